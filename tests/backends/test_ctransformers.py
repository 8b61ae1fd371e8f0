"""ctransformers: what its llama.cpp of 2023 loads, what it would not, and how it answers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.backends.ctransformers_files import why_not
from autotune.backends.ctransformers_llm import CtransformersBackend
from autotune.backends.protocol import EngineError, Session
from autotune.backends.registry import get_backend
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextRequest
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from tests.backends.old_models import N_EMBD, write_old_model, write_smollm2_of_2023
from tests.factories import make_machine

pytest.importorskip("ctransformers", reason="not installed: pip install -e '.[test]'")

CONFIG = Config(n_ctx=256, n_batch=64, n_ubatch=64)
REQUEST = TextRequest(prompt="the cat", max_tokens=8, temperature=0.0)
GOOD: dict[str, dict[str, Any]] = {
    "version 2": {},
    "version 3": {"version": 3},
    "F32": {"type_name": "F32"},
    "Q4_0": {"type_name": "Q4_0"},
    "Q4_1": {"type_name": "Q4_1"},
    "Q5_0": {"type_name": "Q5_0"},
    "Q8_0": {"type_name": "Q8_0"},
    "gpt2": {"vocabulary": "gpt2"},
    "falcon": {"architecture": "falcon", "vocabulary": "gpt2"},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"named": "qwen2"}, "architecture is qwen2, known are llama and falcon"),
    "scores": ({"without": ["scores"]}, "vocabulary has no scores"),
    "kinds": ({"without": ["token_type"]}, "vocabulary has no token_type"),
    "merges": ({"vocabulary": "gpt2", "without": ["merges"]}, "vocabulary has no merges"),
    "tied": ({"without": ["output.weight"]}, "it has no tensor output.weight"),
    "fewer": ({"without": ["blk.1.ffn_gate.weight"]}, "no tensor blk.1.ffn_gate.weight"),
    "more": ({"extra": {"rope_freqs.weight": (8,)}}, "a tensor that is newer: rope_freqs.weight"),
    "biases": ({"extra": {"blk.0.attn_q.bias": (N_EMBD,)}}, "newer: blk.0.attn_q.bias"),
    "BF16": ({"type_name": "BF16"}, "weights of type BF16 are newer"),
}
LOAD = """
import sys
from ctransformers.llm import LLM, Config
llm = LLM(sys.argv[1], "gguf", config=Config(context_length=64), lib=sys.argv[2])
llm.eval([5, 6, 7], batch_size=8, threads=1)
assert len(llm.logits) == llm.vocab_size
"""


@pytest.fixture(scope="module")
def backend() -> CtransformersBackend:
    """The installed library."""
    return CtransformersBackend()


@pytest.fixture(scope="module")
def session(
    backend: CtransformersBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """A tiny llama of 2023."""
    path = write_old_model(tmp_path_factory.mktemp("old") / "tiny.gguf", type_name="Q4_0")
    session = backend.load(path, CONFIG)
    yield session
    session.close()


def loads(path: Path, backend: CtransformersBackend) -> bool:
    """Whether the library itself loads a file and computes with it, in a process of its own."""
    command = [sys.executable, "-c", LOAD, str(path), backend.library()]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", GOOD)
def test_what_the_library_loads_is_not_refused(
    kind: str, backend: CtransformersBackend, tmp_path: Path
) -> None:
    """By the header, by the library alone, and through the backend."""
    path = write_old_model(tmp_path / "tiny.gguf", **GOOD[kind])

    assert why_not(path) == ""
    assert loads(path, backend)


@pytest.mark.parametrize("kind", BAD)
def test_what_the_library_refuses_is_known_from_the_header(
    kind: str, backend: CtransformersBackend, tmp_path: Path
) -> None:
    """Each rule against the library, which says nothing itself or ends its process."""
    changes, reason = BAD[kind]
    path = write_old_model(tmp_path / "tiny.gguf", **changes)

    assert not loads(path, backend)
    with pytest.raises(EngineError, match="ctransformers of 2023 cannot load tiny") as caught:
        backend.load(path, CONFIG)
    assert caught.value.reason is Reason.UNSUPPORTED
    assert reason in str(caught.value)


def test_what_it_would_pass_over_is_refused(backend: CtransformersBackend, tmp_path: Path) -> None:
    """It loads a model with scaled positions, and computes it without: a wrong answer."""
    path = write_old_model(tmp_path / "tiny.gguf", keys={"rope.scaling.type": "yarn"})

    assert loads(path, backend)
    assert why_not(path) == "it would pass over rope.scaling.type=yarn"


def test_models_of_today_are_unsupported(
    backend: CtransformersBackend, smollm2_path: Path, gemma3_path: Path
) -> None:
    """The reason is in the message, in one line."""
    for path, reason in (
        (smollm2_path, "its vocabulary has no scores, which files of 2023 had"),
        (gemma3_path, "its architecture is gemma3, known are llama and falcon"),
    ):
        with pytest.raises(EngineError) as caught:
            backend.load(path, CONFIG)
        assert caught.value.reason is Reason.UNSUPPORTED
        assert str(caught.value).endswith(reason)


def test_the_default_is_the_librarys(backend: CtransformersBackend) -> None:
    """Held against its own settings; threads are chosen in C."""
    from ctransformers.llm import Config as Settings

    settings = Settings()
    default = backend.default_config(n_ctx=512, machine=make_machine())
    assert default.n_batch == default.n_ubatch == settings.batch_size
    assert (settings.threads, settings.gpu_layers) == (-1, default.n_gpu_layers)
    assert (default.use_mmap, default.use_mlock) == (settings.mmap, settings.mlock)
    for n_logical, n_threads in ((2, 2), (4, 4), (6, 3), (16, 8)):
        machine = make_machine(n_logical=n_logical)
        default = backend.default_config(n_ctx=512, machine=machine)
        assert (default.n_threads, default.n_threads_batch) == (n_threads, n_threads)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flash_attn": "on"}, "has no flash_attn=on: leave it at off"),
        ({"type_k": "f32"}, "has no type_k=f32: leave it at f16"),
        ({"n_gpu_layers": 1}, "has no n_gpu_layers=1: leave it at 0"),
        ({"n_parallel": 2}, "has no n_parallel=2"),
        ({"n_ctx": 1024, "n_batch": 1024, "n_ubatch": 513}, "at most 512 tokens at once"),
    ],
)
def test_a_knob_that_it_does_not_have_is_refused(
    changes: dict[str, Any], words: str, backend: CtransformersBackend, tmp_path: Path
) -> None:
    """Nothing is measured under a configuration that it was not measured with."""
    with pytest.raises(EngineError, match=words) as caught:
        backend.load(write_old_model(tmp_path / "tiny.gguf"), CONFIG.replace(**changes))

    assert caught.value.reason is Reason.CONSTRAINT


def test_depth_stays_computed(session: Session) -> None:
    """The second request at the same depth computes its prompt alone, and the same tokens."""
    workload = Workload(n_prompt=8, n_gen=4, n_depth=100)
    inner: Any = session
    session.sample(workload, seed=1)
    first = list(inner._cached)
    again = session.sample(workload, seed=1)

    assert len(again.token_ns) == 4
    assert inner._cached == first
    assert len(first) == 112


def test_batches_do_not_change_what_is_computed(
    backend: CtransformersBackend, tmp_path: Path
) -> None:
    """Eight at once, all at once, and a cache that had something else before."""
    path = write_old_model(tmp_path / "tiny.gguf", type_name="F32")
    tokens = [5 + i % 90 for i in range(60)]
    found = []
    for n_ubatch in (8, 64):
        session: Any = backend.load(path, CONFIG.replace(n_ubatch=n_ubatch))
        for other in ([], [*tokens[:20], 7, 8, 9]):
            session._fill(other)
            session._fill(tokens)
            found.append(session._logits().copy())
        session.close()

    for logits in found[1:]:
        np.testing.assert_allclose(logits, found[0], atol=2e-3)


def test_an_answer_is_sampled_by_the_library(session: Session) -> None:
    """The same seed, the same text; the likeliest is what the library's own loop says."""
    told = [
        session.generate(
            dataclasses.replace(REQUEST, temperature=1.0, seed=seed), on_text=lambda _text: True
        ).text
        for seed in (1, 1, 2, 3)
    ]
    likeliest = session.generate(REQUEST, on_text=lambda _text: True)
    inner: Any = session
    theirs = inner._llm("the cat", max_new_tokens=8, top_k=1, repetition_penalty=1.0, threads=1)
    inner._cached = []

    assert told[0] == told[1]
    assert len(set(told)) > 1
    assert likeliest.text.replace("\ufffd", "") == theirs  # the library drops what is no UTF-8
    assert likeliest.n_tokens == 8
    assert likeliest.finish is Finish.LENGTH


def test_a_minimum_probability_leaves_only_the_likeliest(session: Session) -> None:
    """As likely as the likeliest: nothing else is left, however hot."""
    hot = dataclasses.replace(REQUEST, temperature=5.0, top_k=0, top_p=1.0, min_p=1.0)

    told = {session.generate(hot, on_text=lambda _text: True).text for _ in range(3)}
    assert told == {session.generate(REQUEST, on_text=lambda _text: True).text}


def test_a_text_of_many_bytes_is_read(session: Session) -> None:
    """Three tokens for each character: more than the library's own wrapper makes room for."""
    answer = session.generate(
        dataclasses.replace(REQUEST, prompt="⌘" * 50, max_tokens=1), on_text=lambda _text: True
    )

    assert answer.n_prompt + answer.n_cached == 3 * 50 + 2  # the start, and the space before words


def test_chats_are_unsupported(session: Session) -> None:
    """It has no templates; the session goes on."""
    with pytest.raises(EngineError, match="no chat templates") as caught:
        session.generate(dataclasses.replace(REQUEST, chat=True), on_text=lambda _text: True)

    assert caught.value.reason is Reason.UNSUPPORTED
    assert session.generate(REQUEST, on_text=lambda _text: True).n_tokens == 8


def test_old_and_new_engine_say_the_same(
    backend: CtransformersBackend, smollm2_path: Path, tmp_path: Path
) -> None:
    """The weights of SmolLM2 in a file of 2023: three years of llama.cpp agree on the words."""
    request = dataclasses.replace(REQUEST, prompt="The capital of France is", max_tokens=6)
    old = write_smollm2_of_2023(smollm2_path, tmp_path / "smollm2.gguf")
    told = []
    for engine, path in ((backend, old), (get_backend("llama-cpp-python", {}), smollm2_path)):
        session = engine.load(path, CONFIG)
        told.append(session.generate(request, on_text=lambda _text: True).text)
        session.close()

    assert told[0].startswith(" Paris")
    assert told[0] == told[1]
