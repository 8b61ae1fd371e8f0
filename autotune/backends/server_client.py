"""The wire of llama.cpp's server: is it ready, what it streams, and how long that took.

Source: ``tools/server/README.md`` of llama.cpp, ``GET /health`` and ``POST /completion``.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason

HOST = "127.0.0.1"
_HEALTH_S = 0.5
_TICK_S = 0.05
"""Longest time without a word."""
_OK, _NOT_FOUND = 200, 404
COMPUTE_ERROR = "Compute error."
"""All that a server says where it refused nothing and its engine failed."""
_TOO_LONG = ("exceed_context_size", "context size", "too large")
_NS_PER_MS = 1e6

Line = tuple[int, bytes]
"""(nanoseconds since the request was sent, what arrived)."""
Event = tuple[int, Mapping[str, Any]]
"""The same, read."""


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
        body = {
            "prompt": list(prompt), "n_predict": n_predict, "cache_prompt": cache_prompt,
            "id_slot": 0, "ignore_eos": True, "temperature": 0, "stream": True,
            "timings_per_token": True,
        }  # fmt: skip
        # The lines are read when all have come: the processors are the server's until then.
        lines: list[Line] = []
        for line in self.stream("/completion", body):
            lines.append(line)
            if len(lines) == 1:
                on_first()
        return read_completion(lines)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Line]:
        """The events of an answer as they come; whoever stops listening ends it.

        Raises as :meth:`complete`.
        """
        with closing(self._connect()) as connection:
            yield from self._listen(connection, path, body)

    def stream_or_tick(self, path: str, body: Mapping[str, Any]) -> Iterator[Line | None]:
        """As :meth:`stream`, with None whenever nothing came for a while."""
        heard: queue.SimpleQueue[Line | BaseException | None] = queue.SimpleQueue()
        connection = self._connect()
        end = connection.sock  # by name: the connection forgets it when the server wants to close

        def listen() -> None:
            try:
                for line in self._listen(connection, path, body):
                    heard.put(line)
                heard.put(None)
            except BaseException as error:  # raised again where it is waited for
                heard.put(error)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield from _until_none(heard)
        finally:
            with suppress(OSError):  # it has closed
                end.shutdown(socket.SHUT_RDWR)
            listener.join()
            connection.close()

    def _listen(
        self, connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]
    ) -> Iterator[Line]:
        start = time.perf_counter_ns()
        with self._post(connection, path, body) as response:
            while line := response.readline():
                if line.startswith((b"data:", b"error:")):
                    yield time.perf_counter_ns() - start, line

    def ask(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """One JSON object for another; None where the server knows no such path.

        Raises as :meth:`complete`.
        """
        with closing(self._connect()) as connection:
            try:
                with self._post(connection, path, body) as response:
                    return dict(json.loads(response.read()))
            except FileNotFoundError:
                return None

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=self._timeout_s)
        connection.connect()
        return connection

    @staticmethod
    def _post(
        connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        if response.status == _NOT_FOUND:
            raise FileNotFoundError(path)
        if response.status != _OK:
            raise _refusal(response.read())
        return response

    def _get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _until_none(
    heard: queue.SimpleQueue[Line | BaseException | None],
) -> Iterator[Line | None]:
    """What another thread puts there until it puts None; None in between while nothing comes."""
    while True:
        try:
            said = heard.get(timeout=_TICK_S)
        except queue.Empty:
            yield None
            continue
        if isinstance(said, BaseException):
            raise said
        if said is None:
            return
        yield said


def read_completion(lines: Sequence[Line]) -> Completion:
    """The events of a stream, one a line, read into a completion.

    Raises EngineError for an error among the events and for a stream without an end.
    """
    events = [(at, event) for at, line in lines if (event := read_event(line))]
    if not events or "timings" not in events[-1][1]:
        raise EngineError(Reason.CRASH, "the server ended its answer early")
    return time_events(events)


def time_events(events: Sequence[Event]) -> Completion:
    """The times of a stream's events, of which at least the last has ``timings``.

    A token comes alone, or together with those before it that were parts of a character. Servers
    before 2024-11 send no time with each: then the arrivals tell how the server's total is spread.
    """
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


def _steps(events: Sequence[Event], n_tokens: int, total_ns: float) -> tuple[int, ...]:
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


def read_event(line: bytes) -> Mapping[str, Any]:
    """An event of a stream; an empty one for what ends it. Raises EngineError for an error."""
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
