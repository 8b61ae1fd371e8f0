"""A forecast: predictions for many cases at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autotune.domain.prediction import Evidence, Interval, Prediction
from autotune.features.case import Array, Case
from autotune.predict.phase import Belief

_Z = 1.645
_LEAST_SHARE = 0.05
"""Of a size's median: no size is negative, however little is known of it."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predictions for many cases at once. Arrays have shape (n_cases,); times are natural logs."""

    cases: tuple[Case, ...]
    prefill: Belief
    """Log seconds of the whole prompt."""
    decode: Belief
    """Log seconds of one generated token."""
    load: Belief
    ttft: Belief
    """Log seconds to the first token."""
    peak_bytes: Array
    peak_sd_ratio: Array
    p_success: Array
    evidence: tuple[Evidence, ...]
    n_runs: tuple[int, ...]
    predictor_id: int | None = None

    def request(self) -> Belief:
        """Log seconds of one request: the prompt, then every token.

        The two phases' errors are taken as fully correlated (one machine, one state), which errs
        on the wide side.
        """
        prompt = np.array([case.workload.n_prompt > 0 for case in self.cases])
        n_gen = np.array([case.workload.n_gen for case in self.cases])
        prefill_s = np.where(prompt, np.exp(self.prefill.mean), 0.0)
        decode_s = n_gen * np.exp(self.decode.mean)
        total = prefill_s + decode_s
        sd = (prefill_s * self.prefill.sd + decode_s * self.decode.sd) / total
        return Belief(np.log(total), sd)

    def prediction(self, index: int) -> Prediction:
        """The prediction of one case."""
        case = self.cases[index]
        n_prompt = max(case.workload.n_prompt, 1)
        prefill = _interval(self.prefill, index)
        decode = _interval(self.decode, index)
        return Prediction(
            config=case.config,
            workload=case.workload,
            load_s=_interval(self.load, index),
            peak_memory_bytes=_around(self.peak_bytes[index], self.peak_sd_ratio[index]),
            prefill_tps=_rate(n_prompt, prefill),
            decode_tps=_rate(1, decode),
            ttft_s=_interval(self.ttft, index),
            p_success=float(self.p_success[index]),
            evidence=self.evidence[index],
            n_runs=self.n_runs[index],
            predictor_id=self.predictor_id,
        )


def _interval(belief: Belief, index: int) -> Interval:
    mean, sd = belief.mean[index], belief.sd[index]
    low, middle, high = np.exp([mean - _Z * sd, mean, mean + _Z * sd])
    return Interval(q05=float(low), q50=float(middle), q95=float(high))


def _around(value: float, sd_ratio: float) -> Interval:
    spread = _Z * sd_ratio
    return Interval(
        q05=float(value * max(1 - spread, _LEAST_SHARE)),
        q50=float(value),
        q95=float(value * (1 + spread)),
    )


def _rate(n_tokens: int, seconds: Interval) -> Interval:
    return Interval(
        q05=n_tokens / seconds.q95, q50=n_tokens / seconds.q50, q95=n_tokens / seconds.q05
    )
