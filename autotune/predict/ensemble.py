"""What holds for all models: an ensemble of scikit-learn regressors on log slowdowns.

Extra trees, gradient-boosted trees and a ridge, added with non-negative weights that follow from
their out-of-group errors: rows of one model family are always predicted by members that have not
seen it. The same out-of-group residuals calibrate the intervals. Few rows get the ridge alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array
from autotune.predict.calibration import weighted_quantile
from autotune.predict.forest import Forest

MIN_ENSEMBLE_ROWS = 30
"""Fewer rows get the ridge alone: trees would remember them."""
N_FOLDS = 4
_RIDGE_ALPHA = 3.0
_TREES = {"n_estimators": 80, "min_samples_leaf": 3, "max_features": 0.7, "max_depth": 14}
_BOOSTED = {"n_estimators": 150, "max_depth": 4, "learning_rate": 0.1, "subsample": 0.7,
            "min_samples_leaf": 5, "max_features": 0.5}  # fmt: skip
_SHARPNESS = 4.0
"""A member with half the error weighs 2⁴ times as much."""
MEMBERS = ("ridge", "trees", "boosted")
Strings = npt.NDArray[np.str_]
Ints = npt.NDArray[np.int_]


@dataclass(frozen=True, slots=True)
class Linear:
    """A ridge on standardised columns."""

    center: Array
    scale: Array
    coefficients: Array
    intercept: float
    low: float
    """Smallest target seen: no prediction lies below it."""
    high: float
    """Largest target seen: none lies above it."""

    def predict(self, x: Array) -> Array:
        """Predictions of rows of shape (n, n_features)."""
        z = np.clip((x - self.center) / self.scale, -6.0, 6.0)
        return np.asarray(np.clip(self.intercept + z @ self.coefficients, self.low, self.high))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Fitted members and their weights."""

    linear: Linear
    forests: tuple[Forest, ...]
    """Extra trees and boosted trees; empty where there were few rows."""
    weights: Array
    """Of ridge and forests; shape (1 + len(forests),), none negative, summing to 1."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(mean, spread between the members) of log slowdowns; shape (n,) each."""
        told = [self.linear.predict(x), *(forest.predict(x) for forest in self.forests)]
        each = np.stack(told, axis=1)
        mean = each @ self.weights
        return mean, np.sqrt((each - mean[:, None]) ** 2 @ self.weights)


def deal_folds(families: Strings, n_folds: int = N_FOLDS) -> dict[str, int]:
    """The fold of each family: large families apart from each other, so that folds are alike."""
    names, counts = np.unique(families, return_counts=True)
    n_folds = min(n_folds, len(names))
    load = [0] * n_folds
    dealt = {}
    for index in np.argsort(-counts, kind="stable"):
        fold = load.index(min(load))
        dealt[str(names[index])] = fold
        load[fold] += int(counts[index])
    return dealt


def fit_ensembles(
    x: Array, y: Array, weight: Array, families: Strings, fold: Ints
) -> tuple[Ensemble, ...]:
    """For each fold an ensemble of the rows of all other folds.

    ``fold`` numbers the fold of each row from 0. Where there is one alone, it is all there is to
    learn from: its ensemble has seen it.
    """
    numbers = np.unique(fold)
    names = ("ridge",) if len(y) < MIN_ENSEMBLE_ROWS or len(numbers) < 2 else MEMBERS
    left_out = np.empty((len(y), len(names)))
    fitted = []
    for number in numbers:
        test = fold == number
        train = ~test if len(numbers) > 1 else test
        members = _fit_members(x[train], y[train], weight[train], names)
        left_out[test] = np.stack([m.predict(x[test]) for m in members], axis=1)
        fitted.append(members)
    weights = _stack(left_out, y, _balanced(families) * weight)
    return tuple(Ensemble(linear, tuple(forests), weights) for linear, *forests in fitted)


def fit_linear(x: Array, y: Array, weight: Array) -> Linear:
    """A ridge on standardised columns."""
    from sklearn.linear_model import Ridge

    center = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - center) ** 2, axis=0, weights=weight))
    scale = np.where(deviation > 1e-9, deviation, np.inf)
    ridge = Ridge(alpha=_RIDGE_ALPHA).fit((x - center) / scale, y, sample_weight=weight)
    bounds = float(y.min()), float(y.max())
    return Linear(center, scale, ridge.coef_, float(ridge.intercept_), *bounds)


def _fit_members(x: Array, y: Array, weight: Array, names: tuple[str, ...]) -> list[Any]:
    members: list[Any] = [fit_linear(x, y, weight)]
    if "trees" in names:
        from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

        trees = ExtraTreesRegressor(**_TREES, random_state=0).fit(x, y, sample_weight=weight)
        members.append(Forest.of(trees.estimators_, scale=1 / len(trees.estimators_)))
        boosted = GradientBoostingRegressor(**_BOOSTED, random_state=0)
        boosted.fit(x, y, sample_weight=weight)
        members.append(
            Forest.of(
                list(boosted.estimators_[:, 0]),
                offset=float(boosted.init_.constant_[0, 0]),
                scale=boosted.learning_rate,
            )
        )
    return members


def _stack(left_out: Array, y: Array, weight: Array) -> Array:
    """Weights by the members' out-of-group errors, summing to 1.

    By the median error: least squares would follow the few rows that no member predicts.
    """
    errors = np.abs(left_out - y[:, None])
    typical = np.array([weighted_quantile(error, weight, 0.5) for error in errors.T])
    trust = np.maximum(typical, 1e-6) ** -_SHARPNESS
    return np.asarray(trust / trust.sum())


def _balanced(groups: Strings) -> Array:
    """Weights under which every group counts by the root of its rows."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1 / np.sqrt(counts[index]))
