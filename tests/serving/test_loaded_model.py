"""A model in a process of its own: one request after another, and every way in which that ends."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.conditions import Conditions
from autotune.domain.config import Config
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Purpose, Reason
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.serving.loaded_model import LoadedModel, LoadFailedError, generation_of
from tests.backends.programs import find_server

BACKEND = "llama-cpp-python"
CONFIG = Config(n_ctx=512, n_batch=128, n_ubatch=128)
FACT = TextRequest(prompt="The capital of France is", max_tokens=8, temperature=0.0)
LONG = dataclasses.replace(FACT, prompt="Count: one two three", max_tokens=450)


@pytest.fixture(scope="module")
def model(smollm2_path: Path) -> Iterator[LoadedModel]:
    """SmolLM2, for requests after which it is as good as before."""
    with LoadedModel.load(BACKEND, smollm2_path, CONFIG) as model:
        yield model


@pytest.fixture
def mortal(smollm2_path: Path) -> Iterator[LoadedModel]:
    """SmolLM2, for a test that ends it; no child outlives the test."""
    before = set(psutil.Process().children(recursive=True))
    with LoadedModel.load(BACKEND, smollm2_path, CONFIG) as model:
        yield model
    assert set(psutil.Process().children(recursive=True)) <= before


def after(n_pieces: int, act: Callable[[], object]) -> Callable[[str], bool]:
    """A listener that does something when so many pieces of text have come."""
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.extend([text] if text else [])
        if len(heard) == n_pieces and text:
            act()
        return True

    return listen


def worker() -> psutil.Process:
    """The newest child of this process."""
    return max(psutil.Process().children(), key=lambda child: child.create_time())


def test_a_load_is_a_run_of_a_user(model: LoadedModel) -> None:
    """With everything that a measured run says of its load."""
    run = model.run

    assert run.ok
    assert run.trial.purpose is Purpose.USER
    assert run.build is not None
    assert run.load is not None
    assert run.load.total_s > 0
    assert (run.report.total_bytes("model") or 0) > 90 * MIB
    assert run.peak_rss_bytes is None or run.peak_rss_bytes > 90 * MIB
    assert run.generations == ()


def test_an_answer_streams_and_is_measured(model: LoadedModel) -> None:
    """The pieces are the text; the generation is the completion, with the machine around it."""
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.append(text)
        return True

    answer = model.generate(FACT, on_text=listen)
    completion, generation = answer.completion, answer.generation

    assert "".join(heard) == completion.text
    assert len([piece for piece in heard if piece]) > 2
    assert completion.text.startswith(" Paris")
    assert generation is not None
    assert generation.workload == Workload(
        n_prompt=completion.n_prompt, n_gen=7, n_depth=completion.n_cached
    )
    assert generation.token_ns == completion.token_ns
    assert generation.conditions.load_1m is None or generation.conditions.load_1m >= 0


def test_answers_are_numbered_and_reuse_the_cache(model: LoadedModel) -> None:
    """A conversation: what was computed for the request before is found."""
    first = model.generate(LONG, on_text=after(3, lambda: None), timeout_s=None)
    second = model.generate(dataclasses.replace(LONG, max_tokens=2))

    assert first.generation is not None
    assert second.generation is not None
    assert second.generation.repetition == first.generation.repetition + 1
    assert second.completion.n_prompt == 1
    assert second.completion.n_cached > 3


def test_an_answer_can_be_ended(model: LoadedModel) -> None:
    """By returning False; the next one is whole."""
    pieces: list[str] = []

    def listen(text: str) -> bool:
        pieces.extend([text] if text else [])
        return len(pieces) < 3

    cancelled = model.generate(LONG, on_text=listen).completion

    assert cancelled.finish is Finish.CANCELLED
    assert cancelled.n_tokens < 400
    assert model.generate(FACT).completion.finish is Finish.LENGTH


def test_what_a_listener_raises_passes_through(model: LoadedModel) -> None:
    """The model goes on, and no leftover of the answer is taken for another's."""

    def refuse() -> None:
        raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        model.generate(LONG, on_text=after(2, refuse))

    assert model.generate(FACT).completion.text.startswith(" Paris")


def test_a_listener_cannot_ask_its_own_model(model: LoadedModel) -> None:
    """It would wait for itself; its answer goes on."""

    def ask() -> None:
        with pytest.raises(UserError, match="has not ended: ask for another one after that"):
            model.generate(FACT, timeout_s=1.0)

    assert model.generate(FACT, on_text=after(2, ask)).completion.finish is Finish.LENGTH


def test_a_request_that_takes_too_long_is_ended_in_time(model: LoadedModel) -> None:
    """The model goes on."""
    request = dataclasses.replace(LONG, prompt="word " * 300, max_tokens=200)
    started = time.monotonic()
    with pytest.raises(EngineError, match="no answer within") as caught:
        model.generate(request, timeout_s=0.2)

    assert caught.value.reason is Reason.TIMEOUT
    assert time.monotonic() - started < 10
    assert model.generate(FACT, timeout_s=60).completion.n_tokens == 8


def test_requests_of_several_threads_wait_for_each_other(model: LoadedModel) -> None:
    """Each gets its own answer, one at a time; who may not wait is told so."""
    texts: dict[str, str] = {}
    prompts = ("The capital of France is", "The capital of Italy is", "The capital of Spain is")

    def ask(prompt: str) -> None:
        texts[prompt] = model.generate(dataclasses.replace(FACT, prompt=prompt)).completion.text

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {
        prompt: model.generate(dataclasses.replace(FACT, prompt=prompt)).completion.text
        for prompt in prompts
    }

    assert texts == alone


def test_a_prompt_that_does_not_fit_is_refused(model: LoadedModel) -> None:
    """In one line that names the cure; the model goes on."""
    with pytest.raises(EngineError, match="raise n_ctx above 512") as caught:
        model.generate(dataclasses.replace(FACT, prompt="word " * 600))

    assert caught.value.reason is Reason.CONSTRAINT
    assert model.is_usable
    assert model.generate(FACT).completion.n_tokens == 8


@pytest.mark.skipif(os.name != "posix", reason="signals are the system's")
def test_an_engine_that_dies_is_a_crash_and_stays_one(mortal: LoadedModel) -> None:
    """In the middle of an answer; later requests are told that the model is gone."""
    with pytest.raises(EngineError, match="killed by SIGKILL") as caught:
        mortal.generate(LONG, on_text=after(2, worker().kill))
    with pytest.raises(EngineError, match=r"gone .*SIGKILL.*: load it again"):
        mortal.generate(FACT)

    assert caught.value.reason is Reason.CRASH
    assert not mortal.is_usable
    assert mortal.run.reason is Reason.CRASH
    assert mortal.run.load is not None


@pytest.mark.skipif(os.name != "posix", reason="signals are the system's")
def test_an_engine_that_hangs_is_ended_at_last(
    mortal: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its time and some grace, then the model is gone."""
    monkeypatch.setattr("autotune.serving.loaded_model.GRACE_S", 0.5)
    pid = worker().pid
    with pytest.raises(EngineError) as caught:
        mortal.generate(LONG, on_text=after(2, lambda: os.kill(pid, signal.SIGSTOP)), timeout_s=1.0)

    assert caught.value.reason is Reason.TIMEOUT
    assert not mortal.is_usable


def test_closing_ends_a_request_under_way(mortal: LoadedModel) -> None:
    """It ends as cancelled, and whoever comes later is told; peaks are known."""
    ends: list[Finish] = []
    begun = threading.Event()

    def ask() -> None:
        answer = mortal.generate(LONG, on_text=after(2, begun.set))
        ends.append(answer.completion.finish)

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(60)
    mortal.close()
    thread.join()

    assert ends == [Finish.CANCELLED]
    with pytest.raises(UserError, match="was closed: load it again"):
        mortal.generate(FACT)
    assert mortal.run.ok
    assert mortal.run.peak_rss_bytes is None or mortal.run.peak_rss_bytes > 90 * MIB
    mortal.close()


def test_a_listener_may_close_the_model(mortal: LoadedModel) -> None:
    """Its answer ends at once, and the process with it."""
    started = time.monotonic()

    def listen(_text: str) -> bool:
        mortal.close()
        return True

    answer = mortal.generate(LONG, on_text=listen)

    assert answer.completion.finish is Finish.CANCELLED
    assert time.monotonic() - started < 5
    assert not mortal.is_usable
    assert not mortal._child.worker.lives


def test_a_file_that_is_gone_cannot_be_loaded(tmp_path: Path) -> None:
    """One line, and the record of the attempt."""
    with pytest.raises(LoadFailedError, match=r"there is no model file .*gone\.gguf") as caught:
        LoadedModel.load(BACKEND, tmp_path / "gone.gguf", CONFIG)

    assert caught.value.run.reason is Reason.LOAD_ERROR
    assert caught.value.run.trial.purpose is Purpose.USER
    assert "\n" not in str(caught.value)


def test_what_is_no_model_cannot_be_loaded(tmp_path: Path) -> None:
    """In the engine's words, with its build and its log; no child is left."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"noise" * 100)
    before = psutil.Process().children()
    with pytest.raises(LoadFailedError, match="invalid magic") as caught:
        LoadedModel.load(BACKEND, path, CONFIG)

    assert caught.value.run.reason is Reason.LOAD_ERROR
    assert caught.value.run.build is not None
    assert caught.value.run.log_excerpt
    assert psutil.Process().children() == before


def test_a_backend_that_nobody_knows_is_refused(smollm2_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(UserError, match="unknown backend"):
        LoadedModel.load("imaginary", smollm2_path, CONFIG)


def test_a_memory_limit_holds_for_a_load(smollm2_path: Path) -> None:
    """Out of memory, in the record as well."""
    with pytest.raises(LoadFailedError, match="the memory limit is 60 MiB") as caught:
        LoadedModel.load(BACKEND, smollm2_path, CONFIG, memory_limit_bytes=60 * MIB)

    assert caught.value.run.reason is Reason.OOM


def test_half_a_character_harms_no_server(smollm2_path: Path) -> None:
    """Applications cut texts where they like."""
    environ = {**os.environ, "AUTOTUNE_LLAMA_SERVER": str(find_server())}
    with LoadedModel.load("llama-server", smollm2_path, CONFIG, environ=environ) as model:
        torn = dataclasses.replace(FACT, prompt="x \ud800", stop=("\udc00",))
        assert model.generate(torn).completion.n_tokens > 0
        assert model.generate(FACT).completion.text.startswith(" Paris")


@pytest.mark.skipif(os.name != "posix", reason="signals are the system's")
def test_a_server_serves_and_may_die(smollm2_path: Path) -> None:
    """An engine that is a program: found in the settings given, its death is the model's."""
    environ = {**os.environ, "AUTOTUNE_LLAMA_SERVER": str(find_server())}
    with LoadedModel.load("llama-server", smollm2_path, CONFIG, environ=environ) as model:
        assert model.generate(FACT).completion.text.startswith(" Paris")
        (server,) = [p for p in worker().children() if "llama-server" in p.name()]
        with pytest.raises(EngineError, match="killed by SIGKILL"):
            model.generate(LONG, on_text=after(2, server.kill))
        with pytest.raises(EngineError, match="load it again"):
            model.generate(FACT)


def make_completion(**changes: object) -> TextCompletion:
    """Ten tokens computed, three generated."""
    defaults: dict[str, object] = {
        "text": "abc", "finish": Finish.STOP, "n_prompt": 10, "n_cached": 5, "prefill_ns": 100,
        "ttft_ns": 110, "token_ns": (7, 8), "n_tokens": 3,
    }  # fmt: skip
    return TextCompletion(**{**defaults, **changes})  # type: ignore[arg-type]


def test_a_completion_becomes_a_generation() -> None:
    """Cached tokens are depth; the first token belongs to the prompt."""
    generation = generation_of(make_completion(), Conditions(), number=4)

    assert generation is not None
    assert generation.workload == Workload(n_prompt=10, n_gen=2, n_depth=5)
    assert (generation.prefill_ns, generation.ttft_ns, generation.decode_ns) == (100, 110, 15)
    assert generation.repetition == 4


def test_what_was_not_computed_has_no_time() -> None:
    """No first token, no prompt that anybody counted, nothing at all."""
    early = make_completion(n_tokens=0, token_ns=())
    uncounted = make_completion(n_prompt=0, n_cached=0)
    nothing = make_completion(n_prompt=0, n_cached=0, n_tokens=0, token_ns=())

    prefill = generation_of(early, Conditions(), number=0)
    decode = generation_of(uncounted, Conditions(), number=0)
    assert prefill is not None
    assert (prefill.prefill_ns, prefill.ttft_ns) == (100, None)
    assert decode is not None
    assert (decode.prefill_ns, decode.ttft_ns) == (None, None)
    assert generation_of(nothing, Conditions(), number=0) is None
