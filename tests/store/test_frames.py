"""The store in a notebook."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from autotune.domain.conditions import Conditions
from autotune.domain.run import Purpose, Reason
from autotune.domain.workload import Workload
from autotune.store.frames import (
    GENERATION_COLUMNS,
    PREDICTION_COLUMNS,
    RUN_COLUMNS,
    accuracy_frame,
    generations_frame,
    predictions_frame,
    runs_frame,
)
from autotune.store.store import Store
from tests.factories import make_generation, make_run, make_trial
from tests.store import examples


def test_every_column_is_documented(store: Store) -> None:
    """Also of a store without runs, so that a notebook runs on the first day."""
    for _ in range(2):
        assert list(runs_frame(store)) == list(RUN_COLUMNS)
        assert list(generations_frame(store)) == list(GENERATION_COLUMNS)
        examples.record(store)


def test_column_types_do_not_depend_on_the_rows(store: Store) -> None:
    """A column of integers stays one when the first value is missing."""
    before = runs_frame(store).dtypes, generations_frame(store).dtypes

    examples.begin(store)
    examples.record(store, make_run(reason=Reason.OOM, generations=(), build=None, load=None))
    examples.record(store)

    after = runs_frame(store).dtypes, generations_frame(store).dtypes
    for was, now in zip(before, after, strict=True):
        pd.testing.assert_series_equal(was, now)


def test_one_row_a_run_with_its_medians(store: Store) -> None:
    """Missing is missing, never 0."""
    examples.begin(store)
    examples.record(store)

    running, done = (row for _, row in runs_frame(store).iterrows())
    assert (running["state"], running["n_generations"]) == ("running", 0)
    assert pd.isna(running["decode_tps"])
    assert pd.isna(running["peak_rss_bytes"])
    assert done["decode_tps"] == pytest.approx(100)
    assert done["load_s"] == pytest.approx(0.25)
    assert (done["n_threads"], done["model"], done["n_generations"]) == (2, "tiny", 3)
    assert done["started_at"] == pd.Timestamp(examples.epoch())


def test_one_row_a_generation(store: Store) -> None:
    """It joins the runs by number."""
    run_id = examples.record(store)

    frame = generations_frame(store)
    assert frame["run_id"].tolist() == [run_id] * 3
    assert frame["repetition"].tolist() == [0, 1, 2]
    assert frame["itl_p95_s"].tolist() == pytest.approx([0.01] * 3)


def test_medians_are_over_the_clean_generations(store: Store) -> None:
    """Over all of them where none is clean; the words say which is which."""
    dirty = Conditions(foreign_cpu_ratio=0.5)
    slow = make_generation(repetition=1, token_ns=(200_000_000,) * 4, conditions=dirty)
    examples.record(store, make_run(generations=(make_generation(), slow)))
    examples.record(store, make_run(generations=(slow,)))

    assert runs_frame(store)["decode_tps"].tolist() == pytest.approx([100, 5])
    assert runs_frame(store)["n_generations"].tolist() == [2, 1]
    assert runs_frame(store)["contamination"].tolist() == ["foreign_cpu", "foreign_cpu"]
    words = generations_frame(store)["contamination"].tolist()
    assert words == ["", "foreign_cpu", "foreign_cpu"]


def test_predictions_beside_what_came_of_them(store: Store) -> None:
    """One row a target; a median over the clean generations, errors and coverage in SQL."""
    good = make_run(
        generations=tuple(
            make_generation(repetition=i, token_ns=(ns,) * 4)
            for i, ns in enumerate((10_000_000, 12_000_000, 11_000_000))
        )
    )
    examples.record(store, good, prediction=examples.make_prediction(predictor_id=None))
    examples.begin(store, prediction=examples.make_prediction())
    failed = make_run(reason=Reason.OOM, generations=(), load=None)
    examples.record(store, failed, prediction=examples.make_prediction())
    frame = predictions_frame(store)

    assert list(frame) == list(PREDICTION_COLUMNS)
    done = frame[frame["run_id"] == 1].set_index("target")
    assert done.loc["decode_tps", "measured"] == pytest.approx(1e9 / 11_000_000)
    assert done.loc["decode_tps", "ape"] == pytest.approx(0.1)
    assert bool(done.loc["decode_tps", "covered"])
    assert done.loc["load_s", "measured"] == pytest.approx(0.25)
    assert done.loc["success", ["p_success", "measured"]].tolist() == [0.97, 1.0]
    assert 2 not in set(frame["run_id"]), "a run that has not reported"
    assert frame[frame["run_id"] == 3].set_index("target").loc["success", "measured"] == 0.0


def test_spoilt_generations_do_not_judge_a_prediction(store: Store) -> None:
    """Beside a clean one they are left out; alone they count, and are not called clean."""
    spoilt = Conditions(foreign_cpu_ratio=0.5)
    slow = make_generation(repetition=1, token_ns=(100_000_000,) * 4, conditions=spoilt)
    for generations in ((make_generation(), slow), (slow,)):
        run = make_run(generations=generations)
        examples.record(store, run, prediction=examples.make_prediction())
    frame = predictions_frame(store).set_index(["run_id", "target"])

    assert frame.loc[(1, "decode_tps"), "measured"] == pytest.approx(100)
    assert frame.loc[(2, "decode_tps"), "measured"] == pytest.approx(10)
    assert not bool(frame.loc[(2, "decode_tps"), "clean"])


def test_ordinary_use_is_held_to_what_was_predicted(store: Store) -> None:
    """By its generations of about the size that was asked for; memory when it is over."""
    trial = make_trial(purpose=Purpose.USER)
    asked = trial.workload  # pp64+tg4
    sizes = [(70, 5, 20), (50, 3, 0), (200, 4, 0), (64, 40, 0), (64, 4, 900)]
    rates_ns = [10_000_000, 20_000_000, 1, 1, 1]
    generations = tuple(
        make_generation(
            workload=Workload(n_prompt=n_prompt, n_gen=n_gen, n_depth=n_depth),
            repetition=i,
            token_ns=(ns,) * n_gen,
        )
        for i, ((n_prompt, n_gen, n_depth), ns) in enumerate(zip(sizes, rates_ns, strict=True))
    )
    whole = make_run(trial=trial, generations=generations)
    assert asked not in {generation.workload for generation in generations}
    for reason in (None, Reason.INTERRUPTED):
        run = dataclasses.replace(whole, reason=reason)
        examples.record(store, run, prediction=examples.make_prediction())
    frame = predictions_frame(store).set_index(["run_id", "target"])

    assert frame.loc[(1, "decode_tps"), "measured"] == pytest.approx(75)
    assert bool(frame.loc[(1, "decode_tps"), "clean"])
    assert (1, "peak_memory_bytes") in frame.index
    assert (2, "peak_memory_bytes") not in frame.index
    assert frame.loc[(2, "success"), "measured"] == 1.0
    runs = runs_frame(store).set_index("run_id")
    assert runs.loc[1, "n_generations"] == 5


def test_accuracy_is_one_row_a_target_and_evidence(store: Store) -> None:
    """Of clean runs; spoilt ones do not judge."""
    spoilt = Conditions(foreign_cpu_ratio=0.5)
    for generation in (make_generation(), make_generation(conditions=spoilt)):
        run = make_run(generations=(generation,))
        examples.record(store, run, prediction=examples.make_prediction())
    frame = accuracy_frame(store).set_index("target")

    assert frame.loc["decode_tps", ["evidence", "n", "coverage_90"]].tolist() == ["physics", 1, 1.0]
    assert frame.loc["decode_tps", "median_ape"] == pytest.approx(0.0)
    assert frame.loc["load_s", "n"] == 2
    assert "success" not in frame.index
