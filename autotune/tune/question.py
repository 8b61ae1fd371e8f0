"""A study from outside: the question, where it stands, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.prediction import Recommendation
from autotune.domain.run import Run
from autotune.domain.study import Study
from autotune.features.case import Case
from autotune.recommend.subject import Subject
from autotune.tune.verdict import Measured, Speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A study with everything that stands still while it runs."""

    study: Study
    subject: Subject
    cases: tuple[Case, ...]
    """The candidates; the first is the default."""
    available_bytes: int
    limits: Limits = field(default_factory=Limits)


def question_id(configs: Sequence[Config], limits: Limits) -> str:
    """The same for the same candidates under the same limits."""
    text = "\n".join([*sorted(config.canonical_json() for config in configs), repr(limits)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands."""

    trial: int
    max_trials: int
    doing: str
    config: Config
    elapsed_s: float
    left_s: float
    """Time that the budget still allows."""
    best: Run | None
    default: Run | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a study."""

    study_id: int
    default: Measured | None
    """None where the default itself cannot run."""
    winner: Measured
    is_default: bool
    """Whether the default is the answer: nothing beat it beyond noise."""
    speedup: Speedup | None
    """None without a default to compare with."""
    recommendation: Recommendation
    n_trials: int
    elapsed_s: float
    n_discarded: int = 0
    """Trials taken back, because the machine had drifted."""
    n_resumed: int = 0
    """Trials that were there already, from before the study was stopped."""
    measured_at: datetime | None = None
    """When, of an answer that was there already; None for one that was measured just now."""
