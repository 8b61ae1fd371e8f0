"""Requests of text over the wire of llama.cpp's server, of this year and of earlier ones.

The text goes to ``/completion``, after ``/apply-template`` for a chat. Servers before 2025 have no
``/apply-template``: there a chat goes to ``/v1/chat/completions``, whose events look different.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from autotune.backends.answering import no_room
from autotune.backends.protocol import EngineError
from autotune.backends.server_client import (
    COMPUTE_ERROR,
    Completion,
    Event,
    Line,
    ServerClient,
    read_event,
    time_events,
)
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason

_RANDOM_SEED = 0xFFFFFFFF
"""The server's word for another seed each time."""
_PENALTY_TOKENS = 64
_REFUSED = "the server refused the request: change its prompt or its settings"
_STOPS = ("stopped_eos", "stopped_word")
"""What the last event said before it had a ``stop_type``."""


class ServerText:
    """Answers requests of text through a server's client."""

    def __init__(self, client: ServerClient, *, n_ctx: int, has_template: bool = True) -> None:
        self._client, self._n_ctx, self._has_template = client, n_ctx, has_template

    def generate(self, request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
        """One answer: see :class:`autotune.backends.protocol.Session`.

        Raises EngineError for a refusal; OSError or HTTPException where the server goes away.
        """
        started = time.perf_counter_ns()
        stream = _Stream(request, on_text)
        try:
            path, prompt = self._prompt(request)
            since_ns = time.perf_counter_ns() - started
            for said in self._client.stream_or_tick(path, {**prompt, **_options(request)}):
                goes_on = stream.add(since_ns, said) if said else stream.asks_on()
                if not goes_on:
                    break
        except EngineError as error:
            raise self._unquoted(error) from error
        return stream.completion(since_ns)

    def _unquoted(self, error: EngineError) -> EngineError:
        """What a server says of a request, without its words: they may hold the prompt."""
        if error.reason is Reason.CONSTRAINT:
            return no_room(self._n_ctx)
        if str(error) == COMPUTE_ERROR:
            return error
        return EngineError(Reason.UNSUPPORTED, _REFUSED)

    def _prompt(self, request: TextRequest) -> tuple[str, Mapping[str, Any]]:
        """(path, what to say there)."""
        if not request.chat or not self._has_template:
            return "/completion", {"prompt": request.prompt}
        messages = {"messages": [{"role": "user", "content": request.prompt}]}
        answer = self._client.ask("/apply-template", messages)
        if answer is not None:
            return "/completion", {"prompt": answer["prompt"]}
        return "/v1/chat/completions", {**messages, "max_tokens": request.max_tokens}


def _options(request: TextRequest) -> Mapping[str, Any]:
    return {
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "repeat_penalty": request.repeat_penalty,
        "repeat_last_n": _PENALTY_TOKENS,
        "seed": _RANDOM_SEED if request.seed is None else request.seed % _RANDOM_SEED,
        "stop": list(request.stop),
        "stream": True, "stream_options": {"include_usage": True},
        "cache_prompt": True, "id_slot": 0,
        "timings_per_token": True, "return_progress": True,
    }  # fmt: skip


class _Stream:
    """The events of one answer, passed on and remembered."""

    def __init__(self, request: TextRequest, on_text: Callable[[str], bool]) -> None:
        self._request, self._on_text = request, on_text
        self._said: list[str] = []
        self._tokens: list[Event] = []
        self._last: dict[str, Any] = {}
        self._finish: Finish | None = None
        self._ended_by_token = False

    def add(self, since_ns: int, line: Line) -> bool:
        """Take an event on, asked for at that time of the request; whether another is wanted."""
        at, event = since_ns + line[0], read_event(line[1])
        text, finish = _read(event)
        self._last.update(event)
        if text is not None and "prompt_progress" not in event:
            self._tokens.append((at, event))
        if finish is not None:
            self._finish = finish
            self._ended_by_token = _is_ended_by_token(event, self._request)
        if text:
            self._said.append(text)
        return self._tell(text or "")

    def asks_on(self) -> bool:
        """Whether an answer is still wanted."""
        return self._tell("")

    def _tell(self, text: str) -> bool:
        if not self._on_text(text) and self._finish is None:
            self._finish = Finish.CANCELLED
        return self._finish is not Finish.CANCELLED

    def completion(self, since_ns: int) -> TextCompletion:
        """The answer; its times in nanoseconds, after so many before it was asked for."""
        if self._finish is None:
            raise ConnectionError("the server ended its answer early")
        done = self._times(since_ns)
        is_counted = self._ended_by_token and "timings" in self._last
        n_tokens = done.n_tokens - is_counted
        return TextCompletion(
            text="".join(self._said),
            finish=self._finish,
            n_prompt=done.n_prompt,
            n_cached=self._n_cached(done.n_prompt),
            prefill_ns=done.prompt_ns,
            ttft_ns=self._first_ns(done),
            token_ns=done.token_ns[: max(n_tokens - 1, 0)],
            n_tokens=max(n_tokens, 0),
        )

    def _first_ns(self, done: Completion) -> int:
        """When the first token was there: it may arrive late, on a machine that is busy with the
        second, and all the others came after it until the last arrived."""
        last_ns = self._tokens[-1][0] if self._tokens else done.ttft_ns
        return max(min(done.ttft_ns, last_ns - sum(done.token_ns)), done.prompt_ns)

    def _times(self, since_ns: int) -> Completion:
        """By the server's clock, where it tells; else by the arrival of its events."""
        if self._tokens and "timings" in self._last:
            at, event = self._tokens[-1]
            last = {**event, "timings": self._last["timings"]}
            return time_events([*self._tokens[:-1], (at, last)])
        moments = [at for at, _ in self._tokens]
        first_ns = moments[0] if moments else since_ns
        return Completion(
            n_prompt=self._n_read() if moments else self._n_progress(),
            n_tokens=len(moments),
            prompt_ns=first_ns - since_ns,
            ttft_ns=first_ns,
            token_ns=tuple(b - a for a, b in pairwise(moments)),
        )

    def _n_cached(self, n_prompt: int) -> int:
        timings = self._last.get("timings", {})
        if "cache_n" in timings:
            return int(timings["cache_n"])
        return max(self._n_read() - n_prompt, 0)

    def _n_progress(self) -> int:
        """Tokens of the prompt that were computed before it was given up."""
        progress = self._last.get("prompt_progress") or {"processed": 0, "cache": 0}
        return int(progress["processed"] - progress["cache"])

    def _n_read(self) -> int:
        """Tokens of the whole prompt; 0 where the server did not come to tell."""
        usage = self._last.get("usage") or {}
        return int(self._last.get("tokens_evaluated") or usage.get("prompt_tokens") or 0)


def _read(event: Mapping[str, Any]) -> tuple[str | None, Finish | None]:
    """(text, why the answer ended) in an event; None for what is not in it."""
    if "content" in event:
        return event["content"], _finish(event) if event.get("stop") else None
    choices = event.get("choices") or [{}]
    finish = choices[0].get("finish_reason")
    text = (choices[0].get("delta") or {}).get("content")
    return text, None if finish is None else Finish.LENGTH if finish == "length" else Finish.STOP


def _finish(event: Mapping[str, Any]) -> Finish:
    """Why ``/completion`` ended."""
    kind = event.get("stop_type")
    stopped = kind in {"eos", "word"} if kind else any(event.get(name) for name in _STOPS)
    return Finish.STOP if stopped else Finish.LENGTH


def _is_ended_by_token(event: Mapping[str, Any], request: TextRequest) -> bool:
    """Whether the last token that the server counts is one that ends the text."""
    if "choices" in event:
        return event["choices"][0]["finish_reason"] == "stop" and not request.stop
    return event.get("stop_type") == "eos" or bool(event.get("stopped_eos"))
