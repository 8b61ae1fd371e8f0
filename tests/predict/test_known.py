"""What was measured, and what ran out of memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.prediction import Evidence
from autotune.domain.run import Reason
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.known import is_at_least
from autotune.predict.predictor import Predictor
from tests.simulation import make_cases, scaled_model, simulate

CASE = make_cases()[0]


def case(**knobs: object) -> Case:
    """The same question with other knobs."""
    return dataclasses.replace(CASE, config=CASE.config.replace(**knobs))


def observe(asked: Case, *, reason: Reason | None = None, run_id: int = 1) -> Observation:
    """One run of a case, ended so."""
    (observation,) = simulate([asked])
    return dataclasses.replace(observation, run_id=run_id, reason=reason)


SMALL, MIDDLE, LARGE = (case(n_ctx=n) for n in (2048, 4096, 8192))


def chances(*observations: Observation, cases: tuple[Case, ...]) -> list[bool]:
    """Whether each case is expected to run."""
    forecast = Predictor().fit(observations).forecast(cases)
    return [bool(p > 0.5) for p in forecast.p_success]


def test_one_failure_by_memory_marks_every_larger_configuration() -> None:
    """Smaller ones, other models and other reasons are not touched."""
    (elsewhere,) = make_cases(scaled_model("other", 300))[:1]
    larger = (
        LARGE,
        case(n_ctx=4096, n_ubatch=1024, n_batch=1024),
        case(n_ctx=4096, type_k="f32", type_v="f32"),
        case(n_ctx=8192, n_threads=3),
    )
    oom = observe(MIDDLE, reason=Reason.OOM)

    assert chances(oom, cases=(MIDDLE, *larger)) == [False] * 5
    assert chances(oom, cases=(SMALL, elsewhere)) == [True, True]
    assert chances(observe(MIDDLE, reason=Reason.CRASH), cases=(LARGE,)) == [True]


def test_a_later_success_lifts_the_mark() -> None:
    """The machine had been full, or has more memory now; an earlier success does not."""
    oom, ok = observe(MIDDLE, reason=Reason.OOM), observe(LARGE, run_id=2)

    assert chances(oom, ok, cases=(MIDDLE, LARGE)) == [True, True]
    assert chances(ok, oom, cases=(LARGE,)) == [False]


@pytest.mark.parametrize(
    "knobs",
    [{"n_gpu_layers": 4}, {"use_mmap": False}, {"offload_kqv": False}, {"main_gpu": 1}],
)
def test_what_lies_elsewhere_is_neither_larger_nor_smaller(knobs: dict[str, object]) -> None:
    """Memory of another device has its own limit."""
    assert is_at_least(LARGE.config, MIDDLE.config)
    assert not is_at_least(LARGE.config.replace(**knobs), MIDDLE.config)
    assert not is_at_least(MIDDLE.config, LARGE.config.replace(**knobs))


def test_time_to_first_token_is_the_prompts_and_a_little_more() -> None:
    """Learned over all models of a machine: 30 ms on 300 become 10 % on any."""
    models = [scaled_model(name, size) for name, size in (("a", 50), ("b", 200), ("c", 400))]
    observations = simulate([c for model in models for c in make_cases(model)[::40]])
    late = [
        dataclasses.replace(o, ttft_s=1.1 * o.workload.n_prompt / (o.prefill_tps or 1))
        for o in observations
        if o.workload
    ]
    forecast = Predictor().fit(late).forecast(make_cases()[:50])
    ratio = np.exp(forecast.ttft.mean - forecast.prefill.mean)

    assert np.median(ratio) == pytest.approx(1.1, abs=0.015)


def test_far_from_everything_measured_physics_answers_and_says_so() -> None:
    """A model a hundred times as large as any that was run: a wide interval, no confidence."""
    models = [scaled_model(str(i), 40 * 2**i) for i in range(4)]
    observations = simulate([c for model in models for c in make_cases(model)[::9]])
    predictor = Predictor().fit(observations)
    near, far = (
        predictor.forecast([make_cases(scaled_model("new", size))[0]]).prediction(0)
        for size in (100, 30_000)
    )

    assert near.evidence is Evidence.TRANSFERRED
    assert far.evidence is Evidence.PHYSICS
    assert far.decode_tps.width_ratio > 3 > 1.5 * near.decode_tps.width_ratio


def test_decode_never_gets_faster_with_depth() -> None:
    """Nor prefill, whatever the trees have learned from noisy rows."""
    rng = np.random.default_rng(3)
    depths = [0, 64, 256, 1024, 2048, 3000]
    models = [scaled_model(str(i), 40 * 2**i) for i in range(4)]
    cases = [
        dataclasses.replace(c, workload=dataclasses.replace(c.workload, n_depth=int(depth)))
        for model in models
        for c in make_cases(model)[::11]
        for depth in rng.choice(depths, 2)
    ]
    noisy = [
        dataclasses.replace(o, decode_tps=(o.decode_tps or 1) * rng.lognormal(0, 0.2))
        for o in simulate(cases)
    ]
    predictor = Predictor().fit(noisy)
    for asked in make_cases()[::37]:
        row = [
            dataclasses.replace(asked, workload=dataclasses.replace(asked.workload, n_depth=depth))
            for depth in depths
        ]
        decode = predictor.forecast(row).decode.mean

        assert np.all(np.diff(decode) >= -1e-9)


def test_noise_is_taken_from_repeats() -> None:
    """Where a machine's processes differ by a tenth, intervals are as wide; a few do not tell."""
    rng = np.random.default_rng(0)
    once = simulate(make_cases()[::20])
    noisy = [
        dataclasses.replace(o, run_id=i, decode_tps=(o.decode_tps or 1) * rng.lognormal(0, 0.1))
        for i, o in enumerate(once * 3)
    ]
    asked = make_cases()[5::40]
    quiet, wide = (Predictor().fit(o).forecast(asked).decode.sd for o in (once, noisy))

    assert np.median(wide) > 2 * np.median(quiet)
    assert np.median(wide) > 0.05


def test_two_families_do_not_say_how_models_differ() -> None:
    """A third one, ten times as large, is left to the roofline and what the knobs do."""
    observations = simulate([c for n in (40, 80) for c in make_cases(scaled_model(str(n), n))[::6]])
    spoilt = [
        dataclasses.replace(
            o, decode_tps=(o.decode_tps or 1) * (0.5 if o.model.name == "80" else 1)
        )
        for o in observations
    ]
    asked = make_cases(scaled_model("new", 800))[::30]
    honest, fooled = (
        Predictor().fit(o).forecast(asked).decode.mean for o in (observations, spoilt)
    )

    assert np.max(np.abs(fooled - honest)) < np.log(2), "no extrapolation of what differs"
