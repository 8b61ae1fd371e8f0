"""The store in a notebook."""

from __future__ import annotations

import pandas as pd
import pytest

from autotune.domain.conditions import Conditions
from autotune.domain.run import Reason
from autotune.store.frames import (
    GENERATION_COLUMNS,
    RUN_COLUMNS,
    generations_frame,
    runs_frame,
)
from autotune.store.store import Store
from tests.factories import make_generation, make_run
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
