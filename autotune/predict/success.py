"""Will it run? The memory rule first, an L2 logistic on top.

The rule is exact where memory is the question; the logistic learns from the failures that the
store has seen, and starts from pseudo-runs that say what the rule says.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from autotune.features.physics import Array

_PRIOR_RATIOS = np.array([0.05, 0.2, 0.5, 0.8, 0.95, 1.05, 1.3, 2.0])
"""Peak memory over available memory of the pseudo-runs; those above 1 failed."""
_PRIOR_WEIGHT = 2.0
_RELIABLE = 0.98
"""Share of runs that succeed when nothing speaks against them."""


class SuccessClassifier:
    """Probability that a configuration loads and generates."""

    def fit(self, memory_ratio: Array, failed_before: Array, ok: Array) -> SuccessClassifier:
        """Learn from runs.

        ``memory_ratio`` is predicted peak over available memory, ``failed_before`` the failures
        of the same configuration seen before minus its successes (clipped to ±3), ``ok`` whether
        the run succeeded; shape (n_runs,) each.
        """
        from sklearn.linear_model import LogisticRegression

        prior = np.log(_PRIOR_RATIOS)
        x = np.concatenate([_columns(prior, np.zeros(len(prior))),
                            _columns(np.log(memory_ratio), failed_before)])  # fmt: skip
        y = np.concatenate([_PRIOR_RATIOS < 1, np.asarray(ok, dtype=bool)])
        weight = np.concatenate([np.full(len(prior), _PRIOR_WEIGHT), np.ones(len(ok))])
        self.logistic_ = LogisticRegression(C=10.0).fit(x, y, sample_weight=weight)
        return self

    def predict(self, memory_ratio: Array, failed_before: Array) -> Array:
        """Probabilities of shape (n_cases,); what cannot fit by the rule gets almost none."""
        x = _columns(np.log(memory_ratio), failed_before)
        learned = self.logistic_.predict_proba(x)[:, 1]
        return np.asarray(np.where(memory_ratio > 1, learned * 0.05, learned * _RELIABLE))


def _columns(log_ratio: Array, failed_before: Array) -> Array:
    """The logistic's inputs: a hinge at full memory, and the configuration's own history."""
    return np.stack([np.maximum(log_ratio + 0.1, -1.0) * 10, failed_before], axis=1)


def history(
    keys: Sequence[Hashable], ok: Sequence[bool], upto: Sequence[Hashable] | None = None
) -> Array:
    """Failures minus successes of each key, clipped to ±3.

    Without ``upto``, each run sees only the runs before it (training); with it, each of the
    ``upto`` keys sees all runs (prediction). Shape (len(keys),) or (len(upto),).
    """
    seen: dict[Hashable, int] = {}
    before = []
    for key, succeeded in zip(keys, ok, strict=True):
        before.append(seen.get(key, 0))
        seen[key] = seen.get(key, 0) + (-1 if succeeded else 1)
    counts = before if upto is None else [seen.get(key, 0) for key in upto]
    return np.array(counts, dtype=float).clip(-3, 3)
