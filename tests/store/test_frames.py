"""The store in a notebook."""

from __future__ import annotations

import pandas as pd
import pytest

from autotune.domain.run import Reason
from autotune.store.frames import (
    GENERATION_COLUMNS,
    RUN_COLUMNS,
    generations_frame,
    runs_frame,
)
from autotune.store.store import Store
from tests.factories import make_run
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
