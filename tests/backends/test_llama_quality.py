"""Quality costs of real models, held against llama-cpp-python's public interface."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from autotune.backends import llama_quality
from autotune.backends.divergence import Logits
from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.llama_quality import N_SKIPPED
from autotune.backends.protocol import EngineError, Judges
from autotune.domain.config import Config
from autotune.domain.quality import QualityCost, reference_of
from autotune.domain.run import Reason
from autotune.measure.quality import TEXT_FILE
from tests.facts.shapes import dense

TEXT = TEXT_FILE.read_text(encoding="utf-8")[:700]
"""About 160 tokens: three batches, the last of them incomplete."""
BASE = Config(n_threads=2, n_threads_batch=2, flash_attn="on")


def cached(type_kv: str) -> Config:
    return BASE.replace(type_k=type_kv, type_v=type_kv)


@pytest.fixture(scope="module")
def backend() -> LlamaCppBackend:
    """One, so that each model is loaded once."""
    return LlamaCppBackend()


@pytest.fixture(params=["smollm2_path", "gemma3_path"])
def model(request: pytest.FixtureRequest) -> Path:
    """Both real models in turn."""
    return Path(request.getfixturevalue(request.param))


def cost(backend: LlamaCppBackend, model: Path, config: Config, text: str = TEXT) -> QualityCost:
    return backend.quality(model, config, reference=reference_of(config), text=text)


def test_the_backend_judges() -> None:
    """What the worker asks before it hands on the question."""
    assert isinstance(LlamaCppBackend(), Judges)


def test_fewer_bits_cost_more_and_none_cost_nothing(backend: LlamaCppBackend, model: Path) -> None:
    """f16 against itself is exact; q8_0 is close to it, q4_0 is not."""
    same, eight, four = (cost(backend, model, cached(kind)) for kind in ("f16", "q8_0", "q4_0"))

    assert same.kl_mean <= same.kl_p99 <= 1e-9
    assert same.top1_agreement == 1
    assert 0 < eight.kl_mean < 0.02
    assert 4 * eight.kl_mean < four.kl_mean < 1
    assert four.kl_p99 > eight.kl_p99 > eight.kl_mean
    assert 0.5 < four.top1_agreement < eight.top1_agreement < 1


def test_the_figures_are_those_of_the_public_interface(
    backend: LlamaCppBackend, model: Path
) -> None:
    """All logits of two ``llama_cpp.Llama``, one with a q8_0 cache, reduced in NumPy at once."""
    found = cost(backend, model, cached("q8_0"))
    p, q = (log_softmax(public_logits(model, kind)[N_SKIPPED:]) for kind in ("F16", "Q8_0"))
    kl = np.sum(np.exp(p) * (p - q), axis=1)

    assert found.n_tokens == len(kl) > 100
    assert found.kl_mean == pytest.approx(kl.mean(), rel=1e-6)
    assert found.kl_p99 == pytest.approx(np.percentile(kl, 99), rel=1e-6)
    assert found.top1_agreement == np.mean(p.argmax(axis=1) == q.argmax(axis=1))


def public_logits(model: Path, kind: str) -> Logits:
    """Of every position of the text, as ``llama_cpp.Llama`` keeps them; shape (n, n_vocab)."""
    import llama_cpp

    type_kv = getattr(llama_cpp, f"GGML_TYPE_{kind}")
    llama = llama_cpp.Llama(
        str(model), n_ctx=256, n_batch=64, n_ubatch=64, n_threads=2, n_threads_batch=2,
        flash_attn=True, type_k=type_kv, type_v=type_kv, swa_full=True, logits_all=True,
        verbose=False,
    )  # fmt: skip
    tokens = llama.tokenize(TEXT.encode())
    llama.eval(tokens)
    logits = np.array(llama.scores[: len(tokens)])
    llama.close()
    return logits


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def test_keys_and_values_are_judged_apart(backend: LlamaCppBackend, smollm2_path: Path) -> None:
    """A quantised key cache needs no flash attention, and each half costs less than both."""
    keys = cost(backend, smollm2_path, BASE.replace(flash_attn="off", type_k="q4_0"))
    values = cost(backend, smollm2_path, BASE.replace(type_v="q4_0"))
    both = cost(backend, smollm2_path, cached("q4_0"))

    assert 0 < keys.kl_mean < both.kl_mean
    assert 0 < values.kl_mean < both.kl_mean


def test_context_and_batches_of_the_configuration_do_not_matter(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """Contexts are as large as the text, whatever the candidate would allocate."""
    expected = cost(backend, smollm2_path, cached("q8_0"))
    small = cached("q8_0").replace(n_ctx=64, n_batch=16, n_ubatch=16)
    many = cached("q8_0").replace(n_ctx=8192, n_parallel=8)

    assert cost(backend, smollm2_path, small) == expected
    assert cost(backend, smollm2_path, many) == expected


def test_a_text_that_is_too_short_is_refused(backend: LlamaCppBackend, smollm2_path: Path) -> None:
    """The first 32 positions are not judged."""
    for text in ("", "Hello."):
        with pytest.raises(EngineError, match="judged from token 32 on") as caught:
            cost(backend, smollm2_path, cached("q8_0"), text)
        assert caught.value.reason is Reason.UNSUPPORTED


def test_a_model_without_words_is_refused(backend: LlamaCppBackend, tmp_path: Path) -> None:
    """llama.cpp would abort the process that asks it to tokenize."""
    path = dense(
        tmp_path / "wordless.gguf", n_layers=1, n_embd=256, n_heads=4, n_heads_kv=2, head=64,
        n_ff=512, n_vocab=1024,
    )  # fmt: skip
    with pytest.raises(EngineError, match="no vocabulary") as caught:
        cost(backend, path, cached("q8_0"))
    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_refused_combination_is_told_in_the_engines_words(
    backend: LlamaCppBackend, smollm2_path: Path
) -> None:
    """No GPU to split over; afterwards the model still serves."""
    config = cached("q8_0").replace(split_mode="tensor", n_gpu_layers=2)
    with pytest.raises(EngineError, match="needs >= 1 devices"):
        cost(backend, smollm2_path, config)

    assert cost(backend, smollm2_path, cached("q8_0")).kl_mean > 0


def test_a_file_that_is_no_model_is_a_load_error(backend: LlamaCppBackend, tmp_path: Path) -> None:
    """And the next question is answered with a model."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUFnoise" * 50)
    with pytest.raises(EngineError, match=r"noise\.gguf") as caught:
        cost(backend, path, cached("q8_0"))
    assert caught.value.reason is Reason.LOAD_ERROR


def test_distributions_that_are_not_finite_are_an_incorrect_engine(
    backend: LlamaCppBackend, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN is never averaged."""
    monkeypatch.setattr(llama_quality, "divergence", lambda *_: math.nan)
    with pytest.raises(EngineError, match="no finite distribution") as caught:
        cost(backend, smollm2_path, cached("q8_0"))
    assert caught.value.reason is Reason.INCORRECT
