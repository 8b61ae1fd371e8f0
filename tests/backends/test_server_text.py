"""Requests of text over the wire: events of servers of different years, and a real one."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.llama_server import LlamaServerBackend
from autotune.backends.protocol import EngineError
from autotune.backends.server_client import Line, ServerClient
from autotune.backends.server_text import ServerText
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason
from tests.backends.programs import environ_with, find_server

MS = 1_000_000
PLAIN = TextRequest(prompt="p", temperature=0.0)
CHAT = TextRequest(prompt="Say hello and nothing else.", temperature=0.0, chat=True, max_tokens=60)


class Recorded(ServerClient):
    """A server that always says the same; what it was asked is remembered."""

    def __init__(self, events: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
        super().__init__(0, timeout_s=1)
        self._events = events
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.n_given = 0

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Line]:
        """Those events, each at its time in milliseconds."""
        self.asked.append((path, body))
        for at_ms, event in self._events:
            self.n_given += 1
            yield round(at_ms * MS), b"data: " + json.dumps(event).encode()

    def stream_or_tick(self, path: str, body: Mapping[str, Any]) -> Iterator[Line | None]:
        """The same, with a pause before each."""
        for line in self.stream(path, body):
            yield None
            yield line

    def ask(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A server of 2024: it knows no such path."""
        self.asked.append((path, body))
        return None


def timings(n: int, ms: float, **more: int) -> dict[str, Any]:
    """What a server tells after n tokens."""
    return {"prompt_n": 5, "prompt_ms": 40.0, "predicted_n": n, "predicted_ms": ms, **more}


def played(
    events: Sequence[tuple[float, Mapping[str, Any]]],
    request: TextRequest = PLAIN,
    *,
    on_text: Any = lambda _text: True,
) -> tuple[TextCompletion, Recorded]:
    """The completion of recorded events, and the server that played them."""
    client = Recorded(events)
    return ServerText(client, n_ctx=512).generate(request, on_text), client


NEW = [
    (1, {"content": "", "stop": False, "tokens_evaluated": 8,
         "prompt_progress": {"total": 8, "cache": 3, "processed": 3}}),
    (45, {"content": "a", "stop": False, "timings": timings(1, 0.0, cache_n=3)}),
    (56, {"content": "b", "stop": False, "timings": timings(2, 10.0, cache_n=3)}),
    (77, {"content": "", "stop": False, "timings": timings(3, 30.0, cache_n=3)}),
    (78, {"content": "", "stop": True, "stop_type": "eos", "timings": timings(3, 30.0, cache_n=3)}),
]  # fmt: skip


def test_a_server_of_today_tells_times_and_cache() -> None:
    """The token that ends the text is neither counted nor timed."""
    done, client = played(NEW)

    assert (done.text, done.finish, done.n_tokens) == ("ab", Finish.STOP, 2)
    assert (done.n_prompt, done.n_cached, done.prefill_ns) == (5, 3, 40 * MS)
    assert done.token_ns == (10 * MS,)
    assert client.asked[0][1]["id_slot"] == 0


def test_a_server_of_2024_is_timed_by_arrivals() -> None:
    """It says in its own way why it stopped, and how long the prompt was."""
    done, _ = played([
        (40, {"content": "a", "stop": False}),
        (50, {"content": "b", "stop": False}),
        (80, {"content": "", "stop": False}),
        (81, {"content": "", "stop": True, "stopped_eos": True, "stopped_word": False,
              "stopped_limit": False, "tokens_evaluated": 8, "timings": timings(3, 80.0)}),
    ])  # fmt: skip

    assert (done.text, done.finish, done.n_tokens) == ("ab", Finish.STOP, 2)
    assert (done.n_prompt, done.n_cached) == (5, 3)
    assert done.token_ns == (20 * MS,)


@pytest.mark.parametrize(
    ("event", "finish"),
    [
        ({"stop_type": "word"}, Finish.STOP),
        ({"stop_type": "limit"}, Finish.LENGTH),
        ({"stopped_word": True}, Finish.STOP),
        ({"stopped_limit": True}, Finish.LENGTH),
    ],
)
def test_other_ends_count_every_token(event: Mapping[str, Any], finish: Finish) -> None:
    """In the words of either year."""
    last = {"content": "", "stop": True, "timings": timings(2, 10.0), **event}
    done, _ = played([*NEW[:3], (60, last)])

    assert (done.finish, done.n_tokens) == (finish, 2)


def test_a_listener_who_has_heard_enough_hears_no_more() -> None:
    """The rest of the stream is not asked for; what was computed is counted."""
    done, client = played(NEW, on_text=lambda text: text != "a")

    assert (done.text, done.finish, done.n_tokens) == ("a", Finish.CANCELLED, 1)
    assert (done.n_prompt, done.n_cached) == (5, 3)
    assert client.n_given == 2


def test_an_answer_can_be_ended_before_its_first_token() -> None:
    """Only what was computed of the prompt until then is counted."""
    progress = {"total": 90, "cache": 3, "processed": 64}
    early = (30, {"content": "", "stop": False, "prompt_progress": progress})
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.append(text)
        return len(heard) < 4

    done, _ = played([NEW[0], early, *NEW[1:]], on_text=listen)

    assert (done.finish, done.n_tokens, done.n_prompt) == (Finish.CANCELLED, 0, 61)
    assert done.token_ns == ()


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    """Nobody has said that it was over: the server has gone away."""
    with pytest.raises(ConnectionError, match="ended its answer early"):
        played(NEW[:3])


def refusal(message: str) -> EngineError:
    """What becomes of a server's error."""
    with pytest.raises(EngineError) as caught:
        played([(1, {"error": {"code": 500, "message": message, "type": "server_error"}})])
    return caught.value


def test_a_refusal_does_not_quote_the_request() -> None:
    """The server may; what it says of its own engine is told."""
    refused = refusal("cannot read: 'my secret'")
    failed = refusal("Compute error.")

    assert refused.reason is Reason.UNSUPPORTED
    assert str(refused) == "the server refused the request: change its prompt or its settings"
    assert (failed.reason, str(failed)) == (Reason.CRASH, "Compute error.")


@pytest.mark.skipif(os.name != "posix", reason="signals are the system's")
def test_a_real_server_goes_on_after_a_refusal(smollm2_path: Path) -> None:
    """It quotes the request in answer and log; neither reaches whoever asked, at its end either."""
    backend = LlamaServerBackend(environ_with(AUTOTUNE_LLAMA_SERVER=find_server()))
    session = backend.load(smollm2_path, Config(n_ctx=512, n_batch=128, n_ubatch=128))
    secret = dataclasses.replace(PLAIN, prompt="secret")
    object.__setattr__(secret, "prompt", "secret \ud800")
    try:
        with pytest.raises(EngineError, match="refused the request") as refused:
            session.generate(secret, on_text=lambda _text: True)
        short = dataclasses.replace(PLAIN, max_tokens=4)
        assert session.generate(short, on_text=lambda _text: True).n_tokens == 4
        assert "secret" in session._program.read_log()
        assert backend.log_excerpt() == ""
        os.kill(session._program.pid, signal.SIGTERM)
        session._program._process.wait(60)
        with pytest.raises(EngineError, match="went away") as gone:
            session.generate(short, on_text=lambda _text: True)
    finally:
        session.close()

    assert refused.value.reason is Reason.UNSUPPORTED
    assert "secret" not in f"{refused.value} {gone.value}"


def test_a_chat_with_a_server_of_2024_goes_another_way() -> None:
    """Pieces are deltas there, and neither times nor the cache are told."""

    def piece(**delta: object) -> dict[str, Any]:
        return {"choices": [{"delta": delta, "finish_reason": None}]}

    done, client = played(
        [
            (40, piece(role="assistant", content=None)),
            (41, piece(content="Hel")),
            (51, piece(content="lo")),
            (61, piece(content="!")),
            (62, {"choices": [{"delta": {}, "finish_reason": "stop"}]}),
            (63, {"choices": [], "usage": {"prompt_tokens": 36, "completion_tokens": 3}}),
        ],
        CHAT,
    )

    assert [path for path, _ in client.asked] == ["/apply-template", "/v1/chat/completions"]
    assert (done.text, done.finish, done.n_tokens) == ("Hello!", Finish.STOP, 3)
    assert (done.n_prompt, done.n_cached) == (36, 0)
    assert len(done.token_ns) == 2


def test_both_ways_of_a_chat_lead_to_the_same_answer(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the template and through the older path, on a real server."""
    backend = LlamaServerBackend(environ_with(AUTOTUNE_LLAMA_SERVER=find_server()))
    session = backend.load(smollm2_path, Config(n_ctx=512, n_batch=128, n_ubatch=128))
    try:
        new = session.generate(CHAT, on_text=lambda _text: True)
        monkeypatch.setattr(ServerClient, "ask", lambda *_: None)
        old = session.generate(CHAT, on_text=lambda _text: True)
    finally:
        session.close()

    assert old.text == new.text
    assert (old.finish, old.n_tokens) == (new.finish, new.n_tokens)
    assert old.n_prompt + old.n_cached == new.n_prompt + new.n_cached


def test_the_server_and_the_library_say_the_same(smollm2_path: Path) -> None:
    """llama.cpp in this process and behind its server: plain, penalised, and as a chat."""
    config = Config(n_ctx=512, n_batch=128, n_ubatch=128)
    server = LlamaServerBackend(environ_with(AUTOTUNE_LLAMA_SERVER=find_server()))
    plain = dataclasses.replace(PLAIN, prompt="The capital of France is", max_tokens=24)
    requests = (plain, dataclasses.replace(plain, repeat_penalty=1.3), CHAT)
    told: list[list[TextCompletion]] = []
    for backend in (LlamaCppBackend(), server):
        session = backend.load(smollm2_path, config)
        try:
            told.append([session.generate(r, on_text=lambda _text: True) for r in requests])
        finally:
            session.close()

    for ours, theirs in zip(*told, strict=True):
        assert ours.text == theirs.text
        assert (ours.finish, ours.n_tokens) == (theirs.finish, theirs.n_tokens)
        assert ours.n_prompt + ours.n_cached == theirs.n_prompt + theirs.n_cached
