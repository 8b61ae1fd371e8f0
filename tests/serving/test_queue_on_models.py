"""The queue before a real engine: what its order saves, and what is left when the engine dies."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.serving.endings import RequestError
from autotune.serving.loaded_model import LoadedModel
from autotune.serving.request_queue import RequestQueue
from tests.serving.fake_engine import PATIENCE_S

CONFIG = Config(n_ctx=1024, n_batch=256, n_ubatch=256, n_threads=2, n_threads_batch=2)
PREAMBLES = (
    "You are a careful assistant. Answer in one short sentence, and say so if you do not know. ",
    "The following is a list of questions that children asked in a museum of natural history. ",
)
WAIT_S = 60.0


def make_serve(model: LoadedModel) -> Callable[..., TextCompletion]:
    """What the queue calls."""
    return lambda request, on_text: model.generate(request, on_text=on_text).completion


def ask(preamble: str, n: int) -> TextRequest:
    """A short answer by the likeliest words."""
    return TextRequest(prompt=f"{preamble}Question {n}:", max_tokens=3, temperature=0.0)


def test_the_order_of_a_batch_saves_prompts_and_changes_no_answer(smollm2_path: Path) -> None:
    """Of two preambles in turns nothing is reused; in the queue's order, most is."""
    requests = [ask(preamble, n) for n in range(4) for preamble in PREAMBLES]
    with LoadedModel.load("llama-cpp-python", smollm2_path, CONFIG) as model:
        in_turns = [model.generate(request).completion for request in requests]
        with RequestQueue() as queue:
            futures = [queue.submit(request) for request in requests]
            queue.attach(make_serve(model))
            queued = [future.result(WAIT_S) for future in futures]

    assert [one.text for one in queued] == [one.text for one in in_turns]
    computed, of_all = (sum(one.n_prompt for one in answers) for answers in (queued, in_turns))
    assert computed < of_all / 2


def test_an_engine_that_is_killed_fails_its_requests_and_a_new_one_serves_on(
    smollm2_path: Path,
) -> None:
    """Killed in the middle of an answer; everyone is told at once."""
    before = set(psutil.Process().children())
    model = LoadedModel.load("llama-cpp-python", smollm2_path, CONFIG)
    (child,) = set(psutil.Process().children()) - before
    speaking = threading.Event()

    def listen(text: str) -> bool:
        if text:
            speaking.set()
        return True

    with RequestQueue() as queue:
        queue.attach(make_serve(model), is_fatal=lambda _error: not model.is_usable)
        long = TextRequest(prompt="Count: one two", max_tokens=900, temperature=0.0)
        running = queue.submit(long, on_text=listen)
        waiting = [queue.submit(ask(PREAMBLES[0], n)) for n in range(3)]
        assert speaking.wait(WAIT_S)
        os.kill(child.pid, signal.SIGKILL)

        assert isinstance(running.exception(WAIT_S), EngineError)
        assert wait(waiting, PATIENCE_S).not_done == set()
        for future in waiting:
            error = future.exception()
            assert isinstance(error, RequestError)
            assert error.reason is Reason.CRASH
            assert "load the model again" in str(error)
        model.close()

        with LoadedModel.load("llama-cpp-python", smollm2_path, CONFIG) as another:
            queue.attach(make_serve(another))
            assert queue.submit(ask(PREAMBLES[0], 0)).result(WAIT_S).n_tokens == 3
            queue.stop(drain=True)


def test_a_running_answer_ends_soon_after_it_was_taken_back(smollm2_path: Path) -> None:
    """The engine goes on with the next request."""
    with (
        LoadedModel.load("llama-cpp-python", smollm2_path, CONFIG) as model,
        RequestQueue(make_serve(model)) as queue,
    ):
        pieces = itertools.count()
        speaking = threading.Event()

        def listen(text: str) -> bool:
            if text and next(pieces) == 2:
                speaking.set()
            return True

        long = TextRequest(prompt="Count: one two", max_tokens=900, temperature=0.0)
        running = queue.submit(long, on_text=listen)
        following = queue.submit(ask(PREAMBLES[1], 1))
        assert speaking.wait(WAIT_S)
        running.cancel()

        with pytest.raises(RequestError, match="cancelled"):
            running.result(WAIT_S)
        assert following.result(WAIT_S).n_tokens == 3
        assert next(pieces) < 400
