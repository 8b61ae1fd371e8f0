"""How far from the roofline a phase runs, learned.

The target is the log slowdown: log(measured seconds / roofline seconds), which transfers between
models and configurations where seconds do not. Two stages, both scikit-learn:

1. a ridge over all runs of all models: what knobs and model shapes do in general;
2. for a model with runs on this machine, a Gaussian process with a fixed kernel on the ridge's
   residuals: what is peculiar to this model. A fixed kernel cannot overfit a handful of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autotune.features.columns import CONFIG_COLUMNS
from autotune.features.physics import Array

if TYPE_CHECKING:
    # scikit-learn takes a second to import: the functions that need it do.
    from sklearn.gaussian_process import GaussianProcessRegressor

NOISE_SD = 0.025
"""Spread of the same configuration between processes (2.3 % measured on public telemetry)."""
_OFFSET_SD = 0.30
"""How far a model's own efficiency lies from the general one, before it was run."""
_SHAPE_SD = 0.20
"""How far the effect of a knob on one model lies from its general effect."""
_LENGTH_SCALE = 2.0
"""Two factors of two on one knob, or on two knobs, still resemble each other."""
_CONTAMINATED_WEIGHT = 0.1
"""Weight of a contaminated run in the general part; a clean one weighs 1."""
CONTAMINATED_SD = 0.25
"""How far a contaminated run lies from the truth: a busy neighbour makes a run slower by a tenth,
or by half."""
_RIDGE_ALPHA = 1.0
_MIN_CONFORMAL = 8
"""Fewest left-out residuals that may rescale the intervals."""
_COVERAGE = 0.9
_Z_90 = 1.645


@dataclass(frozen=True, slots=True)
class Belief:
    """Normal beliefs about log slowdowns; shape (n_cases,) each."""

    mean: Array
    sd: Array


@dataclass(frozen=True, slots=True)
class _Correction:
    process: GaussianProcessRegressor
    scale: float
    """Conformal factor on the standard deviations."""


class PhaseRegressor:
    """Log slowdown of one phase. Without data it answers the prior."""

    def __init__(self, *, prior_mean: float, prior_sd: float) -> None:
        self.prior_mean = prior_mean
        self.prior_sd = prior_sd

    def fit(
        self, x: Array, y: Array, groups: Sequence[str], *, clean: Sequence[bool] | None = None
    ) -> PhaseRegressor:
        """Learn from rows x of shape (n, n_features), log slowdowns y and group names, (n,) each.

        A group is one model on one machine with one backend. Rows that are not ``clean`` (all are
        by default) count little.
        """
        is_clean = np.ones(len(y), dtype=bool) if clean is None else np.asarray(clean, dtype=bool)
        weight = np.where(is_clean, 1.0, _CONTAMINATED_WEIGHT)
        self.groups_ = np.asarray(groups)
        self.n_rows_ = len(y)
        self.corrections_: dict[str, _Correction] = {}
        if self.n_rows_ == 0:
            return self
        from sklearn.linear_model import Ridge

        # The prior counts as half a run, so that a single odd row does not become the rule.
        self.center_ = (weight @ y + 0.5 * self.prior_mean) / (weight.sum() + 0.5)
        ridge = Ridge(alpha=_RIDGE_ALPHA, fit_intercept=False)
        self.ridge_ = ridge.fit(x, y - self.center_, sample_weight=weight)
        residual = y - self._general(x)
        self.between_sd_ = self._between_sd(x, y, weight)
        for group in np.unique(self.groups_):
            rows = self.groups_ == group
            self.corrections_[str(group)] = _fit_correction(x[rows], residual[rows], is_clean[rows])
        return self

    def predict(self, x: Array, groups: Sequence[str]) -> Belief:
        """Beliefs for rows x, each of a group that may or may not have been seen."""
        n_cases = len(groups)
        if self.n_rows_ == 0:
            return Belief(np.full(n_cases, self.prior_mean), np.full(n_cases, self.prior_sd))
        mean = self._general(x)
        sd = np.full(n_cases, np.hypot(self.between_sd_, NOISE_SD))
        names = np.asarray(groups)
        for group in np.unique(names):
            correction = self.corrections_.get(str(group))
            if correction is not None:
                rows = names == group
                shift, spread = correction.process.predict(
                    x[np.ix_(rows, CONFIG_COLUMNS)], return_std=True
                )
                mean[rows] += shift
                sd[rows] = correction.scale * np.hypot(spread, NOISE_SD)
        return Belief(mean, sd)

    def _general(self, x: Array) -> Array:
        return np.asarray(self.center_ + self.ridge_.predict(x))

    def _between_sd(self, x: Array, y: Array, weight: Array) -> float:
        """Spread of unseen groups around the general part; between prior and what was seen."""
        n_groups = len(np.unique(self.groups_))
        if n_groups < 3:
            return self.prior_sd
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

        left_out = cross_val_predict(
            Ridge(alpha=_RIDGE_ALPHA),
            x,
            y,
            groups=self.groups_,
            cv=LeaveOneGroupOut(),
            params={"sample_weight": weight},
        )
        # The prior counts as two groups.
        variance = np.average((y - left_out) ** 2, weights=weight)
        return float(np.sqrt((n_groups * variance + 2 * self.prior_sd**2) / (n_groups + 2)))


def _fit_correction(x: Array, residual: Array, is_clean: Array) -> _Correction:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    kernel = ConstantKernel(_OFFSET_SD**2) + ConstantKernel(_SHAPE_SD**2) * Matern(
        length_scale=_LENGTH_SCALE, nu=2.5
    )
    noise = np.where(is_clean, NOISE_SD, CONTAMINATED_SD) ** 2
    process = GaussianProcessRegressor(kernel=kernel, alpha=noise, optimizer=None)
    process.fit(x[:, CONFIG_COLUMNS], residual)
    return _Correction(process, _conformal_scale(process, is_clean))


def _conformal_scale(process: GaussianProcessRegressor, is_clean: Array) -> float:
    """How much wider the process's own intervals must be to cover the clean runs left out.

    From leave-one-out residuals in closed form (Rasmussen & Williams, "Gaussian Processes for
    Machine Learning", 2006, eq. 5.12); at least 1: few rows never make us surer than the kernel.
    """
    from scipy.linalg import cho_solve

    inverse = cho_solve((process.L_, True), np.eye(len(process.alpha_)))
    variance = 1 / np.diag(inverse)
    scores = (np.abs(process.alpha_ * variance) / np.sqrt(variance))[is_clean]
    if len(scores) < _MIN_CONFORMAL:
        return 1.0
    level = min(np.ceil((len(scores) + 1) * _COVERAGE) / len(scores), 1.0)
    return max(float(np.quantile(scores, level)) / _Z_90, 1.0)
