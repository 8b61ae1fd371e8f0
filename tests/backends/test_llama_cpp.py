"""The llama.cpp backend on the real library and a real model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from autotune.backends.llama_cpp import LlamaCppBackend, LlamaCppSession
from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.domain.workload import Workload

SMALL = Config(n_ctx=512, n_batch=128, n_ubatch=128)


@pytest.fixture(scope="module")
def backend() -> LlamaCppBackend:
    """The library, initialised once."""
    return LlamaCppBackend()


@pytest.fixture(scope="module")
def session(backend: LlamaCppBackend, smollm2_path: Path) -> Iterator[LlamaCppSession]:
    """SmolLM2 with a small context."""
    session = backend.load(smollm2_path, SMALL)
    yield session
    session.close()


def test_the_build_says_who_it_is(backend: LlamaCppBackend) -> None:
    """Version, revision and devices come from the library itself."""
    build = backend.build()

    assert build.version == llama_cpp.__version__
    assert build.commit
    assert "CPU" in build.devices


def test_the_newcomers_default_is_the_librarys(backend: LlamaCppBackend) -> None:
    """Our idea of Llama(model_path, n_ctx=…) is held against the library's signature."""
    default = backend.default_config(n_ctx=2048, n_logical=2)
    parameters = inspect.signature(llama_cpp.Llama.__init__).parameters

    for name in ("n_batch", "n_ubatch", "use_mmap", "use_mlock", "offload_kqv", "n_gpu_layers"):
        assert getattr(default, name) == parameters[name].default
    assert parameters["flash_attn"].default is (default.flash_attn != "off")
    assert parameters["n_threads"].default is None


def test_the_newcomers_default_is_what_a_real_llama_gets(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """A Llama made with nothing but a context has our default's threads and batches."""
    import os

    llama = llama_cpp.Llama(str(smollm2_path), n_ctx=1024, verbose=False)
    default = backend.default_config(n_ctx=1024, n_logical=os.cpu_count() or 1)
    params = llama.context_params
    swa_full, llama_threads = params.swa_full, (params.n_threads, params.n_threads_batch)
    batches = (params.n_batch, params.n_ubatch)
    llama.close()

    assert llama_threads == (default.n_threads, default.n_threads_batch)
    assert batches == (default.n_batch, default.n_ubatch)
    assert swa_full == default.swa_full


def test_loading_is_timed_by_phase(session: LlamaCppSession) -> None:
    """Every phase takes time, and the whole is their sum."""
    load = session.load

    assert min(load.model_s, load.context_s, load.first_eval_s) > 0
    assert load.total_s == pytest.approx(load.model_s + load.context_s + load.first_eval_s)


def test_a_sample_has_exactly_the_tokens_asked_for(session: LlamaCppSession) -> None:
    """End-of-text is banned: twenty tokens are twenty tokens, and none of them ends the text."""
    sample = session.sample(Workload(n_prompt=40, n_gen=20), seed=1)

    assert len(sample.token_ns) == 20
    assert min(sample.token_ns) > 0
    assert sample.prefill_ns is not None
    assert sample.ttft_ns is not None
    assert sample.ttft_ns >= sample.prefill_ns
    assert sample.prefill_cpu_ns
    assert sample.decode_cpu_ns > 0


def test_a_workload_without_a_prompt_has_no_prefill(session: LlamaCppSession) -> None:
    """Decode alone starts from the start-of-text token."""
    sample = session.sample(Workload(n_prompt=0, n_gen=3), seed=1)

    assert sample.prefill_ns is None
    assert len(sample.token_ns) == 3


def test_depth_is_outside_the_clock(session: LlamaCppSession) -> None:
    """400 tokens of depth cost nothing in the prefill of 16, computed or restored."""
    shallow = session.sample(Workload(n_prompt=128, n_gen=1), seed=1)
    for _ in range(2):  # the first computes the depth, the second restores it
        deep = session.sample(Workload(n_prompt=16, n_gen=1, n_depth=370), seed=1)
        assert deep.prefill_ns is not None
        assert shallow.prefill_ns is not None
        assert deep.prefill_ns < shallow.prefill_ns


def test_the_report_names_what_was_allocated(session: LlamaCppSession) -> None:
    """KV cache: 512 cells × 30 layers × 2 × 3 heads × 64 × 2 bytes."""
    report = session.report()

    assert report.total_bytes("kv") == 512 * 30 * 2 * 3 * 64 * 2
    assert report.n_ctx == 512
    assert (report.total_bytes("model") or 0) > 90 * MIB


def test_a_request_that_outgrows_the_context_is_refused(session: LlamaCppSession) -> None:
    """A constraint, not a crash."""
    with pytest.raises(EngineError, match="does not fit into n_ctx=512") as caught:
        session.sample(Workload(n_prompt=512, n_gen=1), seed=1)

    assert caught.value.reason is Reason.CONSTRAINT


def test_a_file_that_is_no_model_is_a_load_error(backend: LlamaCppBackend, tmp_path: Path) -> None:
    """llama.cpp's own words are in the message."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"not a model" * 100)

    with pytest.raises(EngineError, match="invalid magic") as caught:
        backend.load(path, SMALL)

    assert caught.value.reason is Reason.LOAD_ERROR
    assert "magic" in backend.log_excerpt()


def test_the_engine_refuses_what_our_rules_would_have_refused(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """A quantised value cache without flash attention: a constraint, in the engine's words."""
    config = SMALL.replace(flash_attn="on", type_v="q8_0")
    object.__setattr__(config, "flash_attn", "off")  # past our own validation

    with pytest.raises(EngineError, match="requires flash_attn") as caught:
        backend.load(smollm2_path, config)

    assert caught.value.reason is Reason.CONSTRAINT
