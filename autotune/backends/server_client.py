"""The wire of llama.cpp's server: is it ready, and one streamed completion, timed.

Source: ``tools/server/README.md`` of llama.cpp, ``GET /health`` and ``POST /completion``.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason

HOST = "127.0.0.1"
_HEALTH_S = 0.5
_OK = 200
_TOO_LONG = ("exceed_context_size", "context size", "too large")
_NS_PER_MS = 1e6

Line = tuple[int, bytes]
"""(nanoseconds since the request was sent, what arrived)."""
_Event = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a server told of one request. Times in nanoseconds."""

    n_prompt: int
    """Prompt tokens that it computed: the cached ones are not among them."""
    n_tokens: int
    """Tokens that it generated."""
    prompt_ns: int
    """By the server's clock, from taking the request on to having sampled the first token."""
    ttft_ns: int
    """By our clock, from sending the request to the arrival of the first token."""
    token_ns: tuple[int, ...]
    """Time of each token after the first, by the server's clock; shape (n_tokens − 1,)."""


class ServerClient:
    """Speaks to a server on this machine.

    Each request has a connection of its own, opened outside the clock: the server closes idle ones
    after seconds, and one that was closed in between would have to be noticed inside the clock.
    """

    def __init__(self, port: int, *, timeout_s: float) -> None:
        self._port, self._timeout_s = port, timeout_s

    def is_healthy(self) -> bool:
        """Whether it is ready for requests. False while it starts, and where nobody listens."""
        try:
            return self._get("/health", _HEALTH_S)[0] == _OK
        except (OSError, http.client.HTTPException):
            return False

    def model(self) -> tuple[str | None, int | None]:
        """(alias, words of the vocabulary) of its model; None for what a server does not tell.

        Raises OSError or HTTPException.
        """
        _, body = self._get("/v1/models", self._timeout_s)
        try:
            model = json.loads(body)["data"][0]
            return model.get("id"), (model.get("meta") or {}).get("n_vocab")
        except (ValueError, LookupError, TypeError, AttributeError):
            return None, None

    def complete(
        self, prompt: Sequence[int], *, n_predict: int, cache_prompt: bool,
        on_first: Callable[[], None] = lambda: None,
    ) -> Completion:  # fmt: skip
        """Have exactly ``n_predict`` tokens generated; ``on_first`` is called when one has come.

        ``cache_prompt`` starts from what the cache has of the prompt, else from an empty one.
        Raises EngineError for a refusal; OSError or HTTPException where the server goes away.
        """
        body = json.dumps({
            "prompt": list(prompt), "n_predict": n_predict, "cache_prompt": cache_prompt,
            "id_slot": 0, "ignore_eos": True, "temperature": 0, "stream": True,
            "timings_per_token": True,
        })  # fmt: skip
        connection = http.client.HTTPConnection(HOST, self._port, timeout=self._timeout_s)
        connection.connect()
        try:
            start = time.perf_counter_ns()
            connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != _OK:
                raise _refusal(response.read())
            # The lines are read when all have come: the processors are the server's until then.
            lines: list[Line] = []
            while line := response.readline():
                if line.startswith((b"data:", b"error:")):
                    lines.append((time.perf_counter_ns() - start, line))
                    if len(lines) == 1:
                        on_first()
        finally:
            connection.close()
        return read_completion(lines)

    def _get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def read_completion(lines: Sequence[Line]) -> Completion:
    """The events of a stream, one a line, read into a completion.

    A token comes alone, or together with those before it that were parts of a character. Servers
    before 2024-11 send no time with each: then the arrivals tell how the server's total is spread.
    Raises EngineError for an error among the events and for a stream without an end.
    """
    events = [(at, event) for at, line in lines if (event := _event(line))]
    if not events or "timings" not in events[-1][1]:
        raise EngineError(Reason.CRASH, "the server ended its answer early")
    (first_at, first), (_, last) = events[0], events[-1]
    timings = last["timings"]
    waited_ms = first["timings"]["predicted_ms"] if "timings" in first else 0.0
    return Completion(
        n_prompt=int(timings["prompt_n"]),
        n_tokens=int(timings["predicted_n"]),
        prompt_ns=round(timings["prompt_ms"] * _NS_PER_MS),
        ttft_ns=round(first_at - waited_ms * _NS_PER_MS),
        token_ns=_steps(events, int(timings["predicted_n"]), timings["predicted_ms"] * _NS_PER_MS),
    )


def _steps(events: Sequence[_Event], n_tokens: int, total_ns: float) -> tuple[int, ...]:
    """The time of each token after the first; their sum is ``total_ns``."""
    if "timings" in events[0][1]:
        marks = {1: 0.0}
        for _, event in events:
            timings = event["timings"]
            marks.setdefault(int(timings["predicted_n"]), timings["predicted_ms"] * _NS_PER_MS)
    else:
        marks = {number: float(at) for number, (at, _) in enumerate(events[:-1], start=1)}
        marks.setdefault(n_tokens, float(events[-1][0]))
    moments = np.interp(np.arange(1, n_tokens + 1), list(marks), list(marks.values()))
    span = moments[-1] - moments[0]
    scale = total_ns / span if span > 0 else 0.0
    return tuple(max(round(step * scale), 1) for step in np.diff(moments).tolist())


def _event(line: bytes) -> Mapping[str, Any]:
    kind, _, text = line.partition(b":")
    try:
        event = json.loads(text)
    except ValueError:  # [DONE]
        return {}
    if kind == b"error" or "error" in event:
        raise _refusal(text)
    return dict(event)


def _refusal(body: bytes) -> EngineError:
    """A server's error in its own words."""
    try:
        error = json.loads(body)["error"]
        message, kind = str(error["message"]), str(error.get("type", ""))
    except (ValueError, LookupError, TypeError):
        message, kind = body.decode("utf-8", "replace")[:200], ""
    too_long = any(words in f"{kind} {message}" for words in _TOO_LONG)
    return EngineError(Reason.CONSTRAINT if too_long else Reason.CRASH, message)
