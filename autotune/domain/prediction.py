"""Predictions and recommendations: what to expect, and what to choose."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from autotune.domain.config import Config
from autotune.domain.workload import Workload

TARGETS = ("load_s", "peak_memory_bytes", "prefill_tps", "decode_tps", "ttft_s")
"""The quantities a predictor predicts, each with an interval."""


class Evidence(enum.StrEnum):
    """Where a prediction comes from; the weakest link names the whole."""

    MEASURED = "measured"
    """This configuration was run on this machine with this build."""
    CALIBRATED = "calibrated"
    """This model was run on this machine, in other configurations."""
    TRANSFERRED = "transferred"
    """Other models were run on this machine, or this one elsewhere."""
    PHYSICS = "physics"
    """Nothing to learn from: roofline and typical efficiencies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A quantity's median with its central 90 % interval."""

    q05: float
    q50: float
    q95: float

    @property
    def width_ratio(self) -> float:
        """q95 over q05: 1 is certainty."""
        return self.q95 / self.q05


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What to expect of one configuration under one workload."""

    config: Config
    workload: Workload
    load_s: Interval
    peak_memory_bytes: Interval
    prefill_tps: Interval
    decode_tps: Interval
    ttft_s: Interval
    p_success: float
    """Probability that it loads and generates."""
    evidence: Evidence
    n_runs: int = 0
    """Runs of this model on this machine behind it."""
    predictor_id: int | None = None
    """Which fit said so, where it is stored."""

    @property
    def request_s(self) -> float:
        """Median time of one request of the workload, in seconds."""
        return self.workload.n_prompt / self.prefill_tps.q50 + (
            self.workload.n_gen / self.decode_tps.q50
        )

    @property
    def depth_s(self) -> float:
        """Seconds until the tokens before the prompt are cached, once for all requests.

        Without a prompt at most: a batch takes no longer than its tokens one by one.
        """
        tps = self.prefill_tps if self.workload.n_prompt else self.decode_tps
        return self.workload.n_depth / tps.q50


class Target(enum.StrEnum):
    """What a recommendation is for."""

    SPEED = "speed"
    BALANCED = "balanced"
    QUALITY = "quality"


class Hardware(enum.StrEnum):
    """Where a recommendation may place the model."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Another configuration worth knowing, and what it trades."""

    prediction: Prediction
    trade: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A configuration to use, why, and how sure we are."""

    backend: str
    target: Target
    workload: Workload
    prediction: Prediction
    confidence: float
    """Probability that it is within 5 % of the best candidate's request time."""
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...] = ()

    @property
    def config(self) -> Config:
        """The recommended configuration."""
        return self.prediction.config
