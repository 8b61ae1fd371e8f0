"""Trees as arrays answer what scikit-learn's trees answer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

from autotune.predict.forest import Forest


def make_data(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Rows with ties at the thresholds, as knobs have."""
    random = np.random.default_rng(0)
    x = random.integers(0, 6, size=(n, 5)).astype(float) / 3
    return x, x[:, 0] * 2 - x[:, 1] ** 2 + random.normal(0, 0.1, n)


def test_extra_trees_are_the_mean_of_their_trees() -> None:
    """On rows that were and were not seen."""
    x, y = make_data()
    trees = ExtraTreesRegressor(n_estimators=20, max_depth=8, random_state=0).fit(x[:200], y[:200])
    forest = Forest.of(trees.estimators_, scale=1 / 20)

    assert forest.predict(x) == pytest.approx(trees.predict(x), abs=1e-5)


def test_boosted_trees_are_a_sum() -> None:
    """The initial mean, then each tree by the learning rate."""
    x, y = make_data()
    boosted = GradientBoostingRegressor(n_estimators=30, random_state=0).fit(x, y)
    forest = Forest.of(
        list(boosted.estimators_[:, 0]),
        offset=float(boosted.init_.constant_[0, 0]),
        scale=boosted.learning_rate,
    )

    assert forest.predict(x) == pytest.approx(boosted.predict(x), abs=1e-5)


def test_a_stored_forest_answers_the_same() -> None:
    """Five arrays and three numbers are all there is."""
    x, y = make_data()
    trees = ExtraTreesRegressor(n_estimators=5, random_state=0).fit(x, y)
    forest = Forest.of(trees.estimators_, scale=1 / 5)

    assert (Forest.from_arrays(forest.arrays()).predict(x) == forest.predict(x)).all()


def test_many_rows_that_have_much_in_common_are_answered_the_same() -> None:
    """What all rows share is looked at once; the answers are those of each row alone."""
    x, y = make_data(600)
    trees = ExtraTreesRegressor(n_estimators=20, max_depth=9, random_state=0).fit(x, y)
    forest = Forest.of(trees.estimators_, scale=1 / 20)
    alike = np.column_stack([np.full((600, 3), x[0, :3]), x[:, 3:]])
    for many in (x, alike, np.repeat(x[:1], 600, axis=0)):
        alone = np.concatenate([forest.predict(row[None]) for row in many])

        assert forest.predict(many) == pytest.approx(alone, abs=1e-9)
