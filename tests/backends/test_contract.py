"""What every backend promises, held against each that is installed, on a real model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import EngineError, Session
from autotune.backends.registry import BUILT_IN
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from tests.backends.engines import MAKERS, Engine
from tests.backends.tiny_models import write_tiny_model
from tests.factories import make_machine


@pytest.fixture(scope="module", params=BUILT_IN)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Each backend in turn; a backend without a maker fails here."""
    return MAKERS[request.param](request.param, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def model_path(
    engine: Engine, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """SmolLM2 in a file that the engine reads."""
    return engine.prepare(smollm2_path, tmp_path_factory.mktemp("model") / "smollm2.gguf")


@pytest.fixture(scope="module")
def quick_path(engine: Engine, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is loaded at once, for what does not depend on it."""
    if not engine.reads_floats:
        return model_path
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def session(engine: Engine, model_path: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """SmolLM2 with a small context."""
    if engine.backend.name == "transformers":
        yield request.getfixturevalue("unpacked_smollm2")
        return
    session = engine.backend.load(model_path, engine.small)
    yield session
    session.close()


def refusal(engine: Engine, path: Path, config: Config) -> EngineError:
    """How a backend fails to load; no process is left of it."""
    with pytest.raises(EngineError) as caught:
        engine.backend.load(path, config)
    return caught.value


def test_a_build_says_who_it_is(engine: Engine) -> None:
    """The backend's own name, a version, and at least the processor."""
    build = engine.backend.build()

    assert build.backend == engine.backend.name
    assert any(character.isdigit() for character in build.version)
    assert "CPU" in build.devices
    assert {gpu.name for gpu in engine.backend.gpus()} <= set(build.devices)


def test_the_newcomers_default_can_be_asked_for(engine: Engine) -> None:
    """A legal configuration with the context that was named, small or large."""
    for n_ctx in (256, 8192):
        default = engine.backend.default_config(n_ctx=n_ctx, machine=make_machine())
        assert default.n_ctx == n_ctx
        assert default.n_gpu_layers == 0


def test_loading_is_timed_by_phase(session: Session) -> None:
    """Every phase takes time, and the whole is their sum; a context may come with the model."""
    load = session.load

    assert min(load.model_s, load.first_eval_s) > 0
    assert load.context_s >= 0
    assert load.total_s == pytest.approx(load.model_s + load.context_s + load.first_eval_s)


def test_a_report_names_what_was_allocated(engine: Engine, session: Session) -> None:
    """KV cache: 512 cells × 30 layers × 2 × 3 heads × 64 × 2 bytes; none where it grows."""
    report = session.report()

    assert report.n_ctx == 512
    assert report.flash_attn is False
    if not engine.says_buffers:
        assert report.buffers == ()
        return
    reserved = 512 * 30 * 2 * 3 * 64 * 2
    assert report.total_bytes("kv") == (reserved if engine.reserves_cache else None)
    assert (report.total_bytes("model") or 0) > 90 * MIB


def test_a_sample_has_exactly_the_tokens_asked_for(session: Session) -> None:
    """End-of-text is banned: twenty tokens are twenty tokens, each with a time."""
    sample = session.sample(Workload(n_prompt=40, n_gen=20), seed=1)

    assert len(sample.token_ns) == 20
    assert min(sample.token_ns) > 0
    assert sample.prefill_cpu_ns
    assert sample.decode_cpu_ns > 0


def test_times_are_parts_of_the_whole(session: Session) -> None:
    """Prompt and tokens together take most of the call, and never more than it."""
    started = time.perf_counter_ns()
    sample = session.sample(Workload(n_prompt=100, n_gen=20), seed=2)
    whole_ns = time.perf_counter_ns() - started

    assert sample.prefill_ns is not None
    assert sample.ttft_ns is not None
    assert 0 < sample.prefill_ns <= sample.ttft_ns
    assert whole_ns / 2 < sample.ttft_ns + sum(sample.token_ns) <= whole_ns


def test_a_phase_that_is_not_asked_for_has_no_time(session: Session) -> None:
    """Decode alone, prefill alone."""
    decode = session.sample(Workload(n_prompt=0, n_gen=3), seed=1)
    prefill = session.sample(Workload(n_prompt=9, n_gen=0), seed=1)

    assert (decode.prefill_ns, decode.ttft_ns, decode.prefill_cpu_ns) == (None, None, None)
    assert len(decode.token_ns) == 3
    assert prefill.prefill_ns
    assert prefill.token_ns == ()


def test_depth_is_outside_the_clock(session: Session) -> None:
    """370 tokens of depth cost nothing in the prefill of 16, computed or kept."""
    shallow = session.sample(Workload(n_prompt=128, n_gen=1), seed=1)
    for seed in (1, 2):  # the first computes the depth, the second finds it
        deep = session.sample(Workload(n_prompt=16, n_gen=1, n_depth=370), seed=seed)
        assert deep.prefill_ns is not None
        assert shallow.prefill_ns is not None
        assert deep.prefill_ns < shallow.prefill_ns


def test_a_request_that_outgrows_the_context_is_refused(session: Session) -> None:
    """A constraint, not a crash; the session goes on."""
    with pytest.raises(EngineError, match="does not fit into n_ctx=512") as caught:
        session.sample(Workload(n_prompt=512, n_gen=1), seed=1)

    assert caught.value.reason is Reason.CONSTRAINT
    assert len(session.sample(Workload(n_prompt=4, n_gen=2), seed=1).token_ns) == 2


def test_a_file_that_is_no_model_is_a_load_error(engine: Engine, tmp_path: Path) -> None:
    """The engine's own words are in the message and in the excerpt of its log."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"not a model" * 100)
    before = engine.living()
    error = refusal(engine, path, engine.small)

    assert error.reason is Reason.LOAD_ERROR
    assert engine.refuses_file in str(error)
    assert "magic" in engine.backend.log_excerpt() or not engine.says_buffers
    assert engine.living() == before


def test_what_the_engine_refuses_is_a_constraint(engine: Engine, model_path: Path) -> None:
    """A quantised value cache without flash attention, past our own validation."""
    config = engine.small.replace(flash_attn="on", type_v="q8_0")
    object.__setattr__(config, "flash_attn", "off")
    before = engine.living()
    error = refusal(engine, model_path, config)

    assert error.reason is Reason.CONSTRAINT
    assert engine.refuses_cache in str(error)
    assert engine.living() == before


def test_flash_attention_is_what_was_asked_for(engine: Engine, quick_path: Path) -> None:
    """In whichever words an engine is told; by its own account. Or it is refused."""
    if not engine.has_flash_attn:
        error = refusal(engine, quick_path, engine.small.replace(flash_attn="on"))
        assert error.reason is Reason.CONSTRAINT
        return
    session = engine.backend.load(quick_path, engine.small.replace(flash_attn="on"))
    report = session.report()
    session.close()

    assert report.flash_attn is True


def test_a_closed_session_leaves_nothing_behind(engine: Engine, quick_path: Path) -> None:
    """Neither a process nor its folder; what was started was announced."""
    before, children = engine.living(), set(psutil.Process().children(recursive=True))
    session = engine.backend.load(quick_path, engine.small.replace(use_mmap=False))
    started = set(psutil.Process().children(recursive=True)) - children
    assert {process.pid for process in started} == set(engine.living()) - set(before)
    session.close()

    assert engine.living() == before
    assert set(psutil.Process().children(recursive=True)) == children


FACT = TextRequest(
    prompt="The capital of France is", max_tokens=12, temperature=0.0, min_p=0.0, top_p=1.0
)
STORY = dataclasses.replace(FACT, prompt="Once upon a time, there was a little", max_tokens=40)


def on_all(_text: str) -> bool:
    """A listener who wants everything."""
    return True


def answer(session: Session, request: TextRequest) -> TextCompletion:
    """An answer that is heard to its end; what was heard is its text."""
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.append(text)
        return True

    completion = session.generate(request, on_text=listen)
    assert "".join(heard) == completion.text
    assert len(completion.token_ns) == max(completion.n_tokens - 1, 0)
    return completion


def test_the_likeliest_answer_is_true(session: Session) -> None:
    """Greedy: every engine that runs these weights knows it."""
    completion = answer(session, FACT)

    assert completion.text.startswith(" Paris")
    assert completion.finish is Finish.LENGTH
    assert completion.n_tokens == 12


def test_an_answer_is_timed_and_counted(session: Session) -> None:
    """Five words are five tokens; times are parts of the whole."""
    session.sample(Workload(n_prompt=4, n_gen=1), seed=1)  # the cache holds nothing of ours
    started = time.perf_counter_ns()
    completion = answer(session, STORY)
    whole_ns = time.perf_counter_ns() - started

    assert (completion.n_prompt, completion.n_cached) == (9, 0)
    assert 0 < completion.prefill_ns <= completion.ttft_ns
    assert min(completion.token_ns) > 0
    assert whole_ns / 2 < completion.ttft_ns + sum(completion.token_ns) <= whole_ns


def test_what_the_cache_has_is_not_computed_again(session: Session) -> None:
    """A conversation that goes on computes only what is new, and says the same."""
    session.sample(Workload(n_prompt=4, n_gen=1), seed=1)
    first = answer(session, STORY)
    longer = dataclasses.replace(
        STORY, prompt=STORY.prompt + first.text + " And then", max_tokens=4
    )
    second = answer(session, longer)
    again = answer(session, FACT)
    repeated = answer(session, FACT)

    assert second.n_cached >= first.n_prompt + first.n_tokens - 4
    assert second.n_prompt <= 8
    assert repeated.text == again.text
    assert repeated.n_prompt <= again.n_prompt
    assert repeated.n_prompt + repeated.n_cached == again.n_prompt + again.n_cached


def test_samples_and_answers_do_not_disturb_each_other(session: Session) -> None:
    """Random tokens in the cache are not taken for a prompt, nor a prompt for depth."""
    before = answer(session, FACT)
    deep = Workload(n_prompt=8, n_gen=2, n_depth=32)
    session.sample(deep, seed=1)
    after = answer(session, FACT)
    sample = session.sample(deep, seed=2)

    assert after.text == before.text
    assert after.n_prompt == before.n_prompt + before.n_cached
    assert len(sample.token_ns) == 2


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(session: Session) -> None:
    """Though it begins within one token and ends within another."""
    whole = answer(session, FACT).text
    short = answer(session, dataclasses.replace(FACT, stop=("no such text", "is.")))
    cut = answer(session, dataclasses.replace(FACT, stop=("Germany", whole[14:21])))

    assert (short.text, short.finish) == (" Par", Finish.STOP)
    assert short.n_tokens < 12
    assert (cut.text, cut.finish) == (whole[: whole.index(whole[14:21])], Finish.STOP)


def test_whoever_asks_can_end_the_answer(session: Session) -> None:
    """What was heard until then is the answer; the session goes on."""
    heard: list[str] = []

    def listen(text: str) -> bool:
        heard.append(text)
        return len("".join(heard)) < 8

    completion = session.generate(dataclasses.replace(STORY, max_tokens=300), on_text=listen)

    assert completion.finish is Finish.CANCELLED
    assert completion.text == "".join(heard)
    assert completion.n_tokens < 30
    assert answer(session, FACT).text.startswith(" Paris")


def test_equal_seeds_repeat_and_others_do_not(session: Session) -> None:
    """From the same cache: what is computed together may differ in its last digits."""
    request = dataclasses.replace(STORY, temperature=1.5, top_k=0, max_tokens=16)

    def told(seed: int | None) -> str:
        return answer(session, dataclasses.replace(request, seed=seed)).text

    told(1)
    assert told(1) == told(1)
    assert len({told(1), told(2), told(3)}) > 1
    assert len({told(None) for _ in range(4)}) > 1


def test_a_penalty_keeps_from_repeating(session: Session) -> None:
    """A list that goes round in circles without it."""
    request = dataclasses.replace(FACT, prompt="one two three one two three one two", max_tokens=30)
    plain = answer(session, request).text
    penalised = answer(session, dataclasses.replace(request, repeat_penalty=1.5)).text

    assert len(set(plain.split())) < len(set(penalised.split()))


def test_a_chat_is_answered_and_ends(engine: Engine, session: Session) -> None:
    """In the model's own template, until the model has said what it has to say. Or refused."""
    request = dataclasses.replace(FACT, prompt="Say hello and nothing else.", max_tokens=100)
    if not engine.has_chats:
        with pytest.raises(EngineError, match="no chat templates"):
            answer(session, dataclasses.replace(request, chat=True))
        return
    plain = answer(session, dataclasses.replace(request, max_tokens=1))
    completion = answer(session, dataclasses.replace(request, chat=True))

    assert completion.finish is Finish.STOP
    assert completion.text.strip()
    assert "<|" not in completion.text
    template = completion.n_prompt + completion.n_cached - plain.n_prompt - plain.n_cached
    assert template > 20


def test_an_answer_may_be_refused_before_it_begins(session: Session) -> None:
    """While a long prompt is computed, by refusing nothing at all; the session goes on."""
    request = dataclasses.replace(STORY, prompt="word " * 400)
    completion = session.generate(request, on_text=lambda _text: False)

    assert completion.finish is Finish.CANCELLED
    assert completion.n_tokens <= 1
    assert answer(session, FACT).text.startswith(" Paris")


def test_characters_come_whole(engine: Engine, session: Session) -> None:
    """Pictures are several tokens each; no piece has half of one."""
    request = dataclasses.replace(FACT, prompt="😀 😃 😄 😁 😀 😃 😄 😁 😀 😃", max_tokens=24)
    pieces: list[str] = []

    def listen(text: str) -> bool:
        pieces.append(text)
        return True

    completion = session.generate(request, on_text=listen)

    assert any(ord(letter) > 0xFFFF for letter in completion.text) or not engine.merges_bytes
    assert not any("\ufffd" in piece for piece in pieces)
    assert completion.n_tokens == 24


def test_a_full_context_ends_the_answer(session: Session) -> None:
    """As if so many tokens had been asked for."""
    request = dataclasses.replace(FACT, prompt="a b c d e f g h " * 30, max_tokens=2000)
    completion = answer(session, request)

    assert completion.finish in {Finish.LENGTH, Finish.STOP}
    assert completion.n_prompt + completion.n_cached + completion.n_tokens <= 513
    assert completion.n_tokens < 512


def test_a_prompt_that_leaves_no_room_is_refused(session: Session) -> None:
    """A constraint in one line; the session goes on."""
    with pytest.raises(
        EngineError, match="leaves no room for an answer: shorten it, or raise n_ctx above 512"
    ) as caught:
        session.generate(dataclasses.replace(FACT, prompt="word " * 600), on_text=on_all)

    assert caught.value.reason is Reason.CONSTRAINT
    assert "\n" not in str(caught.value)
    assert answer(session, FACT).text.startswith(" Paris")
