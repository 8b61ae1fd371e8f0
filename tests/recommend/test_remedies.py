"""When nothing fits, or a limit is in the way: one line with what would help."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from autotune.domain.config import Config
from autotune.domain.errors import NothingFitsError
from autotune.domain.limits import Limits
from autotune.domain.prediction import Target
from autotune.domain.units import MIB, human_seconds
from autotune.features.case import Case
from autotune.predict.predictor import Predictor
from autotune.recommend.choose import MEMORY_RESERVE_RATIO, recommend, survey
from tests.factories import make_model
from tests.simulation import DEFAULT, SMALL, make_cases, make_subject

CASES = make_cases()
PLENTY = 8 * 1024**3
WIDE = make_model(n_layers=32, n_heads=(32,) * 32, n_heads_kv=(32,) * 32, key_length=64,
                  value_length=64, tensors=SMALL.tensors, n_ctx_train=131072)  # fmt: skip


def refusal(cases: tuple[Case, ...], available_bytes: int, limits: Limits | None = None) -> str:
    """What the recommender says instead of an answer."""
    with pytest.raises(NothingFitsError) as caught:
        recommend(
            Predictor().fit([]),
            cases,
            target=Target.BALANCED,
            default=cases[0].config,
            available_bytes=available_bytes,
            limits=limits or Limits(),
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def case(n_ctx: int) -> Case:
    """A model whose cache is most of its memory, in a large context."""
    return make_subject(WIDE).case("simulated", Config(n_ctx=n_ctx), CASES[0].workload)


def test_a_smaller_context_is_named_when_it_would_fit() -> None:
    """And it really would: the predictor is asked."""
    text = refusal((case(32768),), 3000 * MIB)
    size = int(re.search(r"--n-ctx (\d+)", text)[1])  # type: ignore[index]

    fitting = survey(Predictor().fit([]), [case(size)], available_bytes=3000 * MIB)
    assert fitting.feasible.all()


def test_a_quantised_cache_is_named_when_it_would_fit() -> None:
    """Where the heads divide into its blocks."""
    assert "--allow-lossy (q8_0 cache)" in refusal((case(32768),), 9000 * MIB)
    narrow = dataclasses.replace(WIDE, key_length=40, value_length=40)
    other = make_subject(narrow).case("simulated", Config(n_ctx=32768), CASES[0].workload)
    assert "--allow-lossy" not in refusal((other,), 4000 * MIB)


def test_another_quantisation_is_named_when_the_weights_are_too_large() -> None:
    """With the bits that a weight may have."""
    text = refusal((CASES[0],), 400 * MIB)

    assert re.search(r"at most \d\.\d bits per weight would fit|bits per weight", text)
    assert f"{400 * (1 - MEMORY_RESERVE_RATIO):.0f} MiB may be used" in text


def test_where_nothing_helps_only_another_model_does() -> None:
    """The process itself takes more."""
    assert "a smaller model would fit" in refusal(CASES, 40 * MIB)


def test_limits_are_kept() -> None:
    """Memory by the upper end of the prediction, latency by its middle."""
    predictor = Predictor().fit([])
    free = survey(predictor, CASES, available_bytes=PLENTY).forecast
    upper = free.peak_bytes * (1 + 1.645 * free.peak_sd_ratio)
    first = np.exp(free.ttft.mean)
    memory, ttft = int(np.median(upper)), float(np.median(first))

    kept = survey(
        predictor,
        CASES,
        available_bytes=PLENTY,
        limits=Limits(memory_bytes=memory, ttft_s=ttft),
    ).feasible
    assert 0 < kept.sum() < len(CASES)
    assert np.array_equal(kept > 0, (upper <= memory) & (first <= ttft))


def test_a_latency_that_nothing_keeps_is_named() -> None:
    """With the best there is."""
    assert re.search(
        r"the first token takes .* at best; raise --max-ttft",
        refusal(CASES, PLENTY, Limits(ttft_s=1e-6)),
    )
    assert CASES[0].config == DEFAULT


def test_what_is_said_of_memory_is_what_is_asked_of_it() -> None:
    """By the upper end of the prediction: a limit between it and the middle is not called kept."""
    free = survey(Predictor().fit([]), CASES, available_bytes=PLENTY).forecast
    least = int(np.argmin(free.peak_bytes))
    limit = int(free.peak_bytes[least] * (1 + 0.8 * free.peak_sd_ratio[least]))
    text = refusal(CASES, PLENTY, Limits(memory_bytes=limit))
    needed = re.search(r"needs about ([\d.]+) MiB, ([\d.]+) MiB may be used", text)

    assert needed is not None
    assert float(needed[1]) > float(needed[2])


def test_the_best_latency_is_that_of_what_may_run() -> None:
    """What breaks the memory limit is no comfort."""
    small = DEFAULT.replace(n_ubatch=64, n_threads_batch=1)
    large = DEFAULT.replace(n_ubatch=2048, n_batch=2048)
    cases = make_subject().cases("simulated", (small, large), CASES[0].workload)
    free = survey(Predictor().fit([]), cases, available_bytes=PLENTY).forecast
    upper, first = free.peak_bytes * (1 + 1.645 * free.peak_sd_ratio), np.exp(free.ttft.mean)
    limits = Limits(memory_bytes=int(upper.mean()), ttft_s=float(first.mean()))

    text = refusal(cases, PLENTY, limits)
    assert f"the first token takes {human_seconds(first[0])} at best" in text
    assert first[1] < first[0]
