"""Peak memory: the plan, and a small learned remainder over it.

Weights and KV cache are known to the byte. What is left is how much of the compute buffer a
workload really touches (an engine reserves for the worst case), the tokeniser's tables and the
process itself. A ridge learns that remainder in physical quantities, around typical values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

from autotune.domain.units import MIB
from autotune.facts.plan import plan_memory
from autotune.facts.weights import repacked_types
from autotune.features.case import Case
from autotune.features.physics import Array

_PRIOR = np.array([45.0, 1.0, 1.0, 400.0])
"""MiB of the process; touched shares of activations and of attention scores; bytes per word."""
_UNCERTAINTY = np.array([20.0, 0.7, 0.7, 200.0])
"""How far each of them may lie from its prior: the ridge's scale."""
_PRIOR_SD_RATIO = 0.12
_NOISE_SD_RATIO = 0.01
_ALPHA = 25.0
"""Variance of a row's noise, (5 MiB)²: with columns scaled by their uncertainty, the ridge is
then the Bayesian posterior mean."""


class MemoryRegressor:
    """Peak resident bytes of a case."""

    def fit(self, cases: Sequence[Case], peak_bytes: Array) -> MemoryRegressor:
        """Learn the remainder from measured peaks of shape (n_cases,), in bytes."""
        self.n_rows_ = len(cases)
        self.sd_ratio_ = _PRIOR_SD_RATIO
        if not cases:
            return self
        known, x = _split(cases)
        surprise = (peak_bytes - known) / MIB - x @ _PRIOR
        self.ridge_ = Ridge(alpha=_ALPHA, fit_intercept=False).fit(x * _UNCERTAINTY, surprise)
        left = (self.predict(cases)[0] - peak_bytes) / peak_bytes
        # The prior counts as one row: a few rows cannot make it sure.
        variance = (np.sum(left**2) + _PRIOR_SD_RATIO**2) / (len(left) + 1)
        self.sd_ratio_ = float(np.sqrt(variance + _NOISE_SD_RATIO**2))
        return self

    def predict(self, cases: Sequence[Case]) -> tuple[Array, Array]:
        """(peak bytes, standard deviation as a share of it), each of shape (n_cases,)."""
        known, x = _split(cases)
        remainder = x @ _PRIOR
        if self.n_rows_:
            remainder = remainder + self.ridge_.predict(x * _UNCERTAINTY)
        peak = known + np.maximum(remainder, 0) * MIB
        return peak, np.full(len(cases), self.sd_ratio_)


def _split(cases: Sequence[Case]) -> tuple[Array, Array]:
    """(bytes known exactly, shape (n,); what is learned in MiB and mega-words, shape (n, 4))."""
    rows = [_row(case) for case in cases]
    table = np.array(rows, dtype=float).reshape(len(rows), 5)
    return table[:, 0], table[:, 1:]


def _row(case: Case) -> tuple[float, float, float, float, float]:
    repacks = repacked_types(case.machine.isa)
    plan = plan_memory(case.model, case.config, repacks=repacks, gpus=case.machine.gpus)
    compute = plan.total_bytes(component="compute", device="CPU")
    n_batch = min(case.config.n_ubatch, max(case.workload.n_prompt, 1))
    activations = 3 * 4 * case.model.n_ff * n_batch
    cells = -(-case.workload.n_tokens // 256) * 256
    scores = 4 * max(case.model.n_heads) * cells * n_batch
    attention = 0 if case.config.flash_attn != "off" else scores
    share = min(1.0, compute / max(activations + attention, 1))
    return (
        plan.host_bytes - compute,
        1.0,
        activations * share / MIB,
        attention * share / MIB,
        case.model.n_vocab / MIB,
    )
