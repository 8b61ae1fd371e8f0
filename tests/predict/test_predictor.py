"""The predictor against a truth that is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autotune.domain.prediction import TARGETS, Evidence
from autotune.domain.run import Purpose, Reason
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.measure.simulated import SimulatedRunner
from autotune.predict.predictor import Predictor
from autotune.predict.rows import build_rows
from tests.simulation import SMALL, TRUTH, make_cases, scaled_model, simulate

CASES = make_cases()


def decode_errors(predictor: Predictor, cases: tuple[Case, ...]) -> np.ndarray:
    """Absolute relative errors of the predicted decode time against the truth."""
    runner = SimulatedRunner(cases[0].model, TRUTH)
    truth = [runner.decode_s(case.config, case.workload) for case in cases]
    return np.abs(np.exp(predictor.forecast(cases).decode.mean) / truth - 1)


def test_without_data_physics_answers_and_says_so() -> None:
    """Every quantity has an interval; the evidence is physics; the truth is inside."""
    prediction = Predictor().fit([]).forecast(CASES).prediction(0)
    runner = SimulatedRunner(SMALL, TRUTH)
    truth_tps = 1 / runner.decode_s(CASES[0].config, CASES[0].workload)

    assert prediction.evidence is Evidence.PHYSICS
    for name in TARGETS:
        interval = getattr(prediction, name)
        assert 0 < interval.q05 < interval.q50 < interval.q95
    assert prediction.decode_tps.q05 < truth_tps < prediction.decode_tps.q95


def test_a_few_runs_calibrate_the_rest() -> None:
    """Six runs of a model predict its other configurations within a few percent."""
    rng = np.random.default_rng(0)
    chosen = [CASES[i] for i in rng.choice(len(CASES), 6, replace=False)]
    before = decode_errors(Predictor().fit([]), CASES)
    predictor = Predictor().fit(simulate(chosen))
    after = decode_errors(predictor, CASES)

    assert np.median(after) < 0.08
    assert np.median(after) < np.median(before) / 2
    assert predictor.forecast(CASES).evidence.count(Evidence.CALIBRATED) == len(CASES) - 6


def test_other_models_help_an_unseen_one() -> None:
    """Runs of two other models on this machine make a first answer better than physics."""
    others = [*make_cases(scaled_model("a", 50))[::9], *make_cases(scaled_model("b", 400))[::9]]
    predictor = Predictor().fit(simulate(others))
    forecast = predictor.forecast(CASES)

    assert set(forecast.evidence) == {Evidence.TRANSFERRED}
    assert np.median(decode_errors(predictor, CASES)) < 0.1


def test_a_measured_configuration_is_answered_with_its_measurement() -> None:
    """Verbatim: the median of its runs, marked as measured."""
    (observation,) = simulate(CASES[:1])
    prediction = Predictor().fit([observation]).forecast(CASES[:1]).prediction(0)

    assert prediction.evidence is Evidence.MEASURED
    assert prediction.decode_tps.q50 == pytest.approx(observation.decode_tps)
    assert prediction.prefill_tps.q50 == pytest.approx(observation.prefill_tps)
    assert prediction.peak_memory_bytes.q50 == observation.peak_rss_bytes


def test_intervals_cover_what_they_claim() -> None:
    """Of the unseen configurations of a calibrated model, about nine in ten lie inside."""
    covered = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(CASES))
        predictor = Predictor().fit(simulate([CASES[i] for i in order[:12]], seed=seed))
        rest = [CASES[i] for i in order[12:]]
        belief = predictor.forecast(rest).decode
        measured = np.log([1 / (o.decode_tps or 1) for o in simulate(rest, seed=100 + seed)])
        covered.extend(np.abs(measured - belief.mean) <= 1.645 * belief.sd)

    assert 0.85 <= np.mean(covered) <= 1.0


def test_shuffled_measurements_teach_nothing() -> None:
    """The negative control: with speeds shuffled among models, there is no skill to find."""
    models = [scaled_model(str(i), 40 * 2**i) for i in range(5)]
    observations = simulate([case for model in models for case in make_cases(model)[::31]])
    rates = np.random.default_rng(1).permutation([o.decode_tps for o in observations])
    shuffled = [
        dataclasses.replace(o, decode_tps=rate) for o, rate in zip(observations, rates, strict=True)
    ]

    honest = decode_errors(Predictor().fit(observations), CASES)
    fooled = decode_errors(Predictor().fit(shuffled), CASES)
    assert np.median(honest) < np.median(fooled) / 3


def test_a_configuration_that_failed_is_trusted_less() -> None:
    """Failures lower the chance of the same configuration, and of nothing else."""
    good, bad = simulate(CASES[:2])
    failed = [dataclasses.replace(bad, run_id=i, reason=Reason.CRASH) for i in range(10, 13)]
    p_success = Predictor().fit([good, *failed]).forecast(CASES[:3]).p_success

    assert p_success[1] < 0.6 < p_success[0]
    assert p_success[2] > 0.8


def test_a_cancelled_run_is_no_evidence() -> None:
    """Ctrl-C says nothing about a configuration."""
    (observation,) = simulate(CASES[:1])
    cancelled = dataclasses.replace(observation, reason=Reason.CANCELLED)
    with_it = Predictor().fit([observation, cancelled]).forecast(CASES[:2]).p_success
    without = Predictor().fit([observation]).forecast(CASES[:2]).p_success

    assert with_it == pytest.approx(without)


def test_a_timeout_beside_other_programs_is_no_evidence() -> None:
    """Alone the configuration may be in time; one that had the machine to itself is too slow."""
    observation, _ = simulate(CASES[:2])
    late = [
        dataclasses.replace(observation, run_id=i, reason=Reason.TIMEOUT, contaminated=True)
        for i in range(10, 13)
    ]
    alone = [dataclasses.replace(timeout, contaminated=False) for timeout in late]
    beside, without, too_slow = (
        Predictor().fit([observation, *others]).forecast(CASES[:1]).p_success[0]
        for others in (late, [], alone)
    )

    assert beside == pytest.approx(without)
    assert too_slow < 0.9 < without


def test_what_does_not_fit_is_not_expected_to_run() -> None:
    """The memory rule: a peak above what is available almost surely fails."""
    predictor = Predictor().fit(simulate(CASES[:4]))
    plenty = predictor.forecast(CASES, available_bytes=8 * 1024**3).p_success
    scarce = predictor.forecast(CASES, available_bytes=50 * 1024**2).p_success

    assert plenty.min() > 0.9
    assert scarce.max() < 0.05


def test_memory_grows_with_what_it_is_made_of() -> None:
    """Monotone in context and physical batch, among configurations that nobody has run."""
    predictor = Predictor().fit(simulate(CASES[:8]))
    case = CASES[100]
    for knob, sizes in (("n_ctx", [2048, 4096, 8192]), ("n_ubatch", [64, 128, 256])):
        base = case.config.replace(n_batch=512, n_ubatch=64)
        cases = [dataclasses.replace(case, config=base.replace(**{knob: n})) for n in sizes]

        assert np.all(np.diff(predictor.forecast(cases).peak_bytes) > 0)


def spoil(observation: Observation, *, slowdown: float = 20.0, run_id: int = 99) -> Observation:
    """The same run beside a busy neighbour: slower by that factor, and marked."""
    assert observation.decode_tps is not None
    assert observation.prefill_tps is not None
    return dataclasses.replace(
        observation,
        run_id=run_id,
        decode_tps=observation.decode_tps / slowdown,
        prefill_tps=observation.prefill_tps / slowdown,
        contaminated=True,
    )


def unmark(observation: Observation) -> Observation:
    """The planted fault: the same numbers, nobody noticed."""
    return dataclasses.replace(observation, contaminated=False)


def test_a_contaminated_run_is_never_the_measured_answer_beside_a_clean_one() -> None:
    """The clean run is answered verbatim, whichever came last; unmarked, it would not be."""
    (clean,) = simulate(CASES[:1])
    dirty = spoil(clean)
    for order in ([clean, dirty], [dirty, clean]):
        prediction = Predictor().fit(order).forecast(CASES[:1]).prediction(0)
        assert prediction.evidence is Evidence.MEASURED
        assert prediction.decode_tps.q50 == pytest.approx(clean.decode_tps)
        assert prediction.prefill_tps.q50 == pytest.approx(clean.prefill_tps)
    fooled = Predictor().fit([clean, unmark(dirty)]).forecast(CASES[:1]).prediction(0)
    assert fooled.decode_tps.q50 < 0.5 * (clean.decode_tps or 0)


def test_a_contaminated_run_alone_is_an_unsure_answer() -> None:
    """The only measurement there is, with an interval that does not trust it; memory is exact."""
    (clean,) = simulate(CASES[:1])
    dirty = spoil(clean, slowdown=1.3)
    prediction = Predictor().fit([dirty]).forecast(CASES[:1]).prediction(0)

    assert prediction.evidence is Evidence.MEASURED
    assert prediction.decode_tps.q50 == pytest.approx(dirty.decode_tps)
    assert prediction.decode_tps.q05 < (clean.decode_tps or 0) < prediction.decode_tps.q95
    assert prediction.peak_memory_bytes.q50 == dirty.peak_rss_bytes


def test_contaminated_runs_hardly_move_a_fit() -> None:
    """Two of eight, each twenty times too slow; unmarked, they ruin it."""
    rng = np.random.default_rng(0)
    clean = list(simulate([CASES[i] for i in rng.choice(len(CASES), 8, replace=False)]))
    dirty = [*clean[:6], spoil(clean[6]), spoil(clean[7], run_id=100)]
    errors = {
        name: np.median(decode_errors(Predictor().fit(observations), CASES))
        for name, observations in {
            "clean": clean,
            "marked": dirty,
            "unmarked": [unmark(observation) for observation in dirty],
        }.items()
    }

    assert errors["marked"] < 0.2
    assert errors["unmarked"] > 2 * errors["marked"]


def test_hearsay_teaches_of_its_own_model_alone() -> None:
    """Reports of absurd speed move the model that they name and no other one."""
    told = [
        dataclasses.replace(o, purpose=Purpose.IMPORT, contaminated=True, decode_tps=3.0)
        for o in simulate(CASES[:8])
    ]
    others = make_cases(scaled_model("other", 400))[::9]
    before, after = Predictor().fit([]), Predictor().fit(told)

    unmoved = after.forecast(others).decode.mean - before.forecast(others).decode.mean
    moved = after.forecast(CASES).decode.mean - before.forecast(CASES).decode.mean
    assert np.allclose(unmoved, 0)
    assert np.median(moved) > 0.3


def test_a_contaminated_success_is_a_success() -> None:
    """A busy neighbour says nothing against the configuration."""
    (clean,) = simulate(CASES[:1])
    with_it = Predictor().fit([clean]).forecast(CASES[:2]).p_success
    spoiled = Predictor().fit([spoil(clean, slowdown=1)]).forecast(CASES[:2]).p_success

    assert spoiled == pytest.approx(with_it)


def test_a_disturbed_load_spoils_the_load_time_alone() -> None:
    """An undisturbed one answers for it; the rates that were measured after it stay verbatim."""
    clean = simulate(CASES[:1])[0]
    assert clean.load is not None
    slow = dataclasses.replace(clean.load, model_s=60.0)
    disturbed = dataclasses.replace(clean, run_id=99, load=slow, load_contaminated=True)
    prediction = Predictor().fit([clean, disturbed]).forecast(CASES[:1]).prediction(0)

    assert prediction.load_s.q50 == pytest.approx(clean.load.total_s)
    assert prediction.decode_tps.q50 == pytest.approx(clean.decode_tps)
    assert prediction.decode_tps.q95 < 1.1 * prediction.decode_tps.q50


def as_use(observation: Observation, *, run_id: int, **changes: object) -> Observation:
    """The same, seen while an application used the model."""
    return dataclasses.replace(
        observation, run_id=run_id, purpose=Purpose.USER, **changes  # type: ignore[arg-type]
    )  # fmt: skip


def test_ordinary_use_calibrates_and_is_never_the_measured_answer() -> None:
    """Its requests are of about a size; a measurement answers, however outnumbered."""
    (observation,) = simulate(CASES[:1])
    assert observation.decode_tps is not None
    used = [as_use(observation, run_id=i, decode_tps=observation.decode_tps / 2) for i in range(9)]

    alone = Predictor().fit(used).forecast(CASES[:1])
    both = Predictor().fit([*used, observation]).forecast(CASES[:1])

    assert alone.evidence == (Evidence.CALIBRATED,)
    assert alone.prediction(0).decode_tps.q50 == pytest.approx(observation.decode_tps / 2, rel=0.2)
    assert both.evidence == (Evidence.MEASURED,)
    assert both.prediction(0).decode_tps.q50 == pytest.approx(observation.decode_tps)


def test_ordinary_use_does_not_outvote_a_measurement_in_a_fit() -> None:
    """Of one case, the clean measurement is the row; its uses are none besides."""
    (observation,) = simulate(CASES[:1])
    assert observation.decode_tps is not None
    used = [as_use(observation, run_id=i, decode_tps=observation.decode_tps / 2) for i in range(9)]
    pairs = [(o, Case.of(o)) for o in [*used, observation]]
    rows = build_rows([(o, case) for o, case in pairs if case is not None])

    assert rows.seconds["decode"].tolist() == pytest.approx([1 / observation.decode_tps])


def test_the_workloads_of_one_run_are_one_run() -> None:
    """One load, one success, one peak: the others tell of their rates alone."""
    (observation,) = simulate(CASES[:1])
    sizes = [dataclasses.replace(CASES[0].workload, n_prompt=2**i) for i in range(6, 10)]
    parts = [
        as_use(observation, run_id=1, workload=workload, counts=False, load=None,
               peak_rss_bytes=None)
        for workload in sizes
    ]  # fmt: skip
    whole = as_use(observation, run_id=1)
    predictor = Predictor().fit([*parts, whole])
    alone = Predictor().fit([whole])

    assert predictor.n_runs_ == alone.n_runs_ == 1
    forecast, expected = predictor.forecast(CASES[:1]), alone.forecast(CASES[:1])
    assert forecast.n_runs == (1,)
    assert forecast.load.mean == pytest.approx(expected.load.mean)
    assert forecast.load.sd == pytest.approx(expected.load.sd)
    assert forecast.peak_bytes == pytest.approx(expected.peak_bytes)
    assert forecast.p_success == pytest.approx(expected.p_success)
