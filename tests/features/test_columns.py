"""The feature table: documented, finite, and the same for training rows and candidates."""

from __future__ import annotations

import numpy as np

from autotune.domain.config import Config
from autotune.domain.workload import Workload
from autotune.features.columns import (
    CONFIG_COLUMNS,
    CONFIG_FEATURES,
    MODEL_FEATURES,
    build_features,
)
from tests.factories import make_model
from tests.features.test_physics import make_case


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_reason() -> None:
    """The table is the documentation."""
    features = [*CONFIG_FEATURES, *MODEL_FEATURES]
    names = [feature.name for feature in features]

    assert len(set(names)) == len(names)
    assert all(feature.unit and feature.reason for feature in features)


def test_features_are_finite_at_the_edges() -> None:
    """No prompt, one thread, one token, an empty page cache: numbers all the same."""
    cases = [
        make_case(workload=Workload(n_prompt=0, n_gen=1)),
        make_case(workload=Workload(n_prompt=1, n_gen=0), cached_ratio=0.0),
        make_case(config=Config(n_ctx=64, n_batch=1, n_ubatch=1), cached_ratio=None),
    ]
    table = build_features(cases)

    assert table.x.shape == (3, len(CONFIG_FEATURES) + len(MODEL_FEATURES))
    assert np.isfinite(table.x).all()


def test_only_config_columns_differ_between_configurations_of_a_model() -> None:
    """What the per-model correction looks at is what can change."""
    ours = make_case(config=Config(n_threads=1))
    theirs = make_case(config=Config(n_threads=8, flash_attn="on", n_ubatch=64))
    x = build_features([ours, theirs]).x
    changed = np.flatnonzero(x[0] != x[1])

    assert set(changed) <= set(CONFIG_COLUMNS)
    assert len(changed) >= 3


def test_models_keep_their_columns_apart() -> None:
    """Two models in one batch do not share columns."""
    x = build_features([make_case(), make_case(model=make_model(n_embd=4096))]).x

    assert (x[0] != x[1]).any()


def test_no_cases_are_an_empty_table() -> None:
    """An empty store builds an empty table, not an error."""
    assert build_features([]).x.shape[0] == 0
