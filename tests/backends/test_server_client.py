"""The stream of a completion, as recorded from servers of different years, read into times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.backends.server_client import read_completion
from autotune.domain.run import Reason

MS = 1_000_000


def line(at_ms: float, **event: Any) -> tuple[int, bytes]:
    """An event and its arrival."""
    return round(at_ms * MS), b"data: " + json.dumps(event).encode() + b"\n"


def timings(n: int, ms: float) -> dict[str, Any]:
    """What a server tells after n tokens."""
    return {"prompt_n": 5, "prompt_ms": 40.0, "predicted_n": n, "predicted_ms": ms}


def end(at_ms: float, n: int, ms: float) -> tuple[int, bytes]:
    """The last event."""
    return line(at_ms, content="", stop=True, timings=timings(n, ms))


def test_the_servers_own_times_win_over_arrivals() -> None:
    """Steps of 10, 30 and 20 ms, however late they arrive."""
    done = read_completion([
        line(41, content="a", timings=timings(1, 0.001)),
        line(90, content="b", timings=timings(2, 10.0)),
        line(91, content="c", timings=timings(3, 40.0)),
        line(99, content="d", timings=timings(4, 60.0)),
        end(105, 4, 60.0),
    ])  # fmt: skip

    assert (done.n_prompt, done.n_tokens) == (5, 4)
    assert done.prompt_ns == 40 * MS
    assert done.ttft_ns == pytest.approx(41 * MS, abs=MS // 100)
    assert done.token_ns == (10 * MS, 30 * MS, 20 * MS)


def test_parts_of_a_character_come_together() -> None:
    """Three tokens held back, first, in the middle and at the end: none is lost, the sum stays."""
    done = read_completion([
        line(55, content="é", timings=timings(2, 10.0)),
        line(99, content="ü", timings=timings(4, 50.0)),
        end(130, 5, 90.0),
    ])  # fmt: skip

    assert done.token_ns == (10 * MS, 20 * MS, 20 * MS, 40 * MS)
    assert done.ttft_ns == 45 * MS  # when the first token was there, not when it was shown


def test_a_server_without_times_is_timed_by_arrivals() -> None:
    """Its total is spread as the tokens came."""
    done = read_completion([
        line(40, content="a", stop=False),
        line(50, content="b", stop=False),
        line(80, content="c", stop=False),
        end(81, 3, 80.0),
    ])  # fmt: skip

    assert done.ttft_ns == 40 * MS
    assert done.token_ns == (20 * MS, 60 * MS)


def test_one_token_has_no_steps() -> None:
    """Prefill alone."""
    done = read_completion([line(41, content="a", timings=timings(1, 0.001)), end(41, 1, 0.001)])

    assert done.token_ns == ()
    assert done.ttft_ns > done.prompt_ns


def test_the_end_of_the_stream_is_told_apart() -> None:
    """Some end with a word of their own, some break off."""
    done = read_completion([
        line(41, content="a", timings=timings(1, 0.0)), end(42, 1, 0.0), (43, b"data: [DONE]\n"),
    ])  # fmt: skip
    assert done.n_tokens == 1
    for lines in ([], [line(41, content="a")]):
        with pytest.raises(EngineError, match="ended its answer early"):
            read_completion(lines)


@pytest.mark.parametrize("kind", [b"data", b"error"])
def test_an_error_in_the_stream_is_raised_in_the_servers_words(kind: bytes) -> None:
    """With its class where the words tell one."""
    error = {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}
    with pytest.raises(EngineError, match="Compute error") as caught:
        read_completion([(1, kind + b": " + json.dumps(error).encode())])
    assert caught.value.reason is Reason.CRASH
