"""Will it run? The memory rule first, an L2 logistic on top.

The rule is exact where memory is the question; the logistic learns from the failures that the
store has seen, and starts from pseudo-runs that say what the rule says. Its inputs are few: with a
hundred failures more would be remembered, not learned (all their products had a skill of −0.3 on
unseen models, where these alone have +0.5).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.domain.study import Observation
from autotune.features.case import Array, Case
from autotune.predict.rows import case_key, family_name

_PRIOR_RATIOS = np.array([0.05, 0.2, 0.5, 0.8, 0.95, 1.05, 1.3, 2.0])
"""Peak memory over available memory of the pseudo-runs; those above 1 failed."""
_PRIOR_WEIGHT = 2.0
_RELIABLE = 0.98
"""Share of runs that succeed when nothing speaks against them."""
_STRENGTH = 1.0
"""Inverse L2 penalty of the learned columns, which are standardised."""
_MEMORY_SCALE = 10.0
"""Weight of the memory column: the rule is hardly penalised."""


@dataclass(frozen=True, slots=True)
class Label:
    """Whether one case can run, after all that is known of it."""

    case: Case
    ok: bool
    pairs: tuple[tuple[Observation, Case], ...]
    """The runs that say so."""

    @property
    def family(self) -> str:
        """The model's family."""
        return family_name(self.case.model)


def labels(pairs: Sequence[tuple[Observation, Case]]) -> list[Label]:
    """One label for each case and build: what ever succeeded can run.

    A table's failed rows are mostly runs that somebody stopped: of 1,619 in one public set all but
    181 succeeded in another pass. Their skill as labels was 0.05 raw and 0.45 cleaned.
    """
    found: dict[Hashable, list[tuple[Observation, Case]]] = defaultdict(list)
    for observation, case in pairs:
        # A failed row does not print how the file was read, nor the number of the build.
        group, config, workload = case_key(case)
        key = (group, config.replace(use_mmap=True), workload, case.build.split(" ")[-1])
        found[key].append((observation, case))
    return [
        Label(runs[0][1], any(o.reason is None for o, _ in runs), tuple(runs))
        for runs in found.values()
    ]


class SuccessClassifier:
    """Probability that a configuration loads and generates."""

    def fit(
        self,
        memory_ratio: Array,
        failed_before: Array,
        x: Array,
        ok: npt.NDArray[np.bool_],
    ) -> SuccessClassifier:
        """Learn from runs.

        ``memory_ratio`` is predicted peak over available memory, ``failed_before`` the failures
        of the same configuration seen before minus its successes (clipped to ±3), ``x`` the
        columns of :data:`autotune.features.columns.COLUMNS` for success, ``ok`` whether the run
        succeeded; shape (n_runs,) each, x (n_runs, n_columns).
        """
        from sklearn.linear_model import LogisticRegression

        self.center_ = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
        deviation = x.std(axis=0) if len(x) else np.zeros(x.shape[1])
        self.scale_ = np.where(deviation > 1e-9, deviation, np.inf)
        prior = np.log(_PRIOR_RATIOS)
        calm = np.zeros((len(prior), self._standardised(x).shape[1]))
        rows = np.vstack([
            np.hstack([_columns(prior, np.zeros(len(prior))), calm]),
            np.hstack([_columns(np.log(memory_ratio), failed_before), self._standardised(x)]),
        ])  # fmt: skip
        y = np.concatenate([_PRIOR_RATIOS < 1, np.asarray(ok, dtype=bool)])
        weight = np.concatenate([np.full(len(prior), _PRIOR_WEIGHT), np.ones(len(ok))])
        logistic = LogisticRegression(C=_STRENGTH, max_iter=1000)
        logistic.fit(rows, y, sample_weight=weight)
        self.coefficients_ = logistic.coef_[0]
        self.intercept_ = float(logistic.intercept_[0])
        return self

    def predict(self, memory_ratio: Array, failed_before: Array, x: Array) -> Array:
        """Probabilities of shape (n_cases,); what cannot fit by the rule gets almost none."""
        rows = np.hstack([_columns(np.log(memory_ratio), failed_before), self._standardised(x)])
        learned = 1 / (1 + np.exp(-np.clip(rows @ self.coefficients_ + self.intercept_, -30, 30)))
        return np.asarray(np.where(memory_ratio > 1, learned * 0.05, learned))

    def _standardised(self, x: Array) -> Array:
        return np.asarray(np.clip((x - self.center_) / self.scale_, -4, 4))


def _columns(log_ratio: Array, failed_before: Array) -> Array:
    """A hinge at full memory, and the configuration's own history."""
    hinge = np.maximum(log_ratio + 0.1, -1.0) * 10
    return np.asarray(np.stack([hinge, failed_before], axis=1) * _MEMORY_SCALE**0.5)


def history(keys: Sequence[Hashable], ok: Sequence[bool]) -> Array:
    """Failures minus successes that each run saw before it, clipped to ±3; shape (len(keys),)."""
    seen: dict[Hashable, int] = {}
    before = []
    for key, succeeded in zip(keys, ok, strict=True):
        before.append(seen.get(key, 0))
        seen[key] = seen.get(key, 0) + (-1 if succeeded else 1)
    return np.array(before, dtype=float).clip(-3, 3)


def balance(keys: Sequence[Hashable], ok: Sequence[bool]) -> dict[Hashable, float]:
    """Failures minus successes of each key after all its runs, clipped to ±3."""
    total: Counter[Hashable] = Counter()
    for key, succeeded in zip(keys, ok, strict=True):
        total[key] += -1 if succeeded else 1
    return {key: float(min(max(count, -3), 3)) for key, count in total.items()}
