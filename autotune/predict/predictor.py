"""The predictor: fitted on observations, asked about cases.

Phases are predicted as roofline × learned slowdown (:mod:`autotune.predict.phase`), memory as
plan + remainder (:mod:`autotune.predict.memory`), success by rule and logistic
(:mod:`autotune.predict.success`). A configuration that was measured on this machine is answered
with its measurement; contaminated runs count where there is no clean one, and are not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from autotune.domain.config import Config
from autotune.domain.prediction import Evidence, Interval, Prediction
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.features.case import Case
from autotune.features.columns import FeatureTable, build_features
from autotune.features.physics import Array
from autotune.predict.memory import MemoryRegressor
from autotune.predict.phase import CONTAMINATED_SD, NOISE_SD, Belief, PhaseRegressor
from autotune.predict.success import SuccessClassifier, history

_PRIOR_SD = 0.42
"""Physics alone: a factor of two either way covers 90 % (public single-GPU telemetry: bandwidth
use 0.52–0.79 between quartiles; prefill 0.2–0.95 of peak)."""
_PRIORS = {"prefill": -np.log(0.45), "decode": -np.log(0.60), "load": np.log(1.5)}
"""Log slowdown of each phase before anything was measured."""
_Z = 1.645
Key = tuple[str, Config, Workload]
_MEMORY_RESERVE_SD = 1.645
"""Feasibility asks for the 95 % quantile of the peak, not its middle."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predictions for many cases at once. Arrays have shape (n_cases,); times are natural logs."""

    cases: tuple[Case, ...]
    prefill: Belief
    """Log seconds of the whole prompt."""
    decode: Belief
    """Log seconds of one generated token."""
    load: Belief
    peak_bytes: Array
    peak_sd_ratio: Array
    p_success: Array
    evidence: tuple[Evidence, ...]
    n_runs: tuple[int, ...]

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
            ttft_s=prefill if case.workload.n_prompt else decode,
            p_success=float(self.p_success[index]),
            evidence=self.evidence[index],
            n_runs=self.n_runs[index],
        )


class Predictor:
    """Learns from observations; refitted from the rows whenever they change."""

    def fit(self, observations: Sequence[Observation]) -> Predictor:
        """Learn. Runs that were cancelled or interrupted teach nothing; failures teach success."""
        rows = [(o, c) for o in observations if _teaches(o) and (c := Case.of(o)) is not None]
        good = [(o, c) for o, c in rows if o.reason is None]
        self._known = _Known(good)
        table = build_features([case for _, case in good])
        # One thread: on a busy small machine OpenMP made fits ten times slower (measured).
        with threadpool_limits(1):
            self._phases = {
                phase: _fit_phase(phase, table, [o for o, _ in good]) for phase in _PRIORS
            }
            self._memory = _fit_memory(good)
            self._success = self._fit_success(rows)
        self._history = [(_key(case), o.reason is None) for o, case in rows]
        self.n_rows_ = len(rows)
        return self

    def _fit_success(self, rows: Sequence[tuple[Observation, Case]]) -> SuccessClassifier:
        cases = [case for _, case in rows]
        ok = [o.reason is None for o, _ in rows]
        ratio = self._memory_ratio(cases, None)
        before = history([_key(case) for case in cases], ok)
        return SuccessClassifier().fit(ratio, before, np.array(ok, dtype=bool))

    def _memory_ratio(self, cases: Sequence[Case], available_bytes: int | None) -> Array:
        """95 % quantile of the peak over what is available, floored away from 0."""
        if not cases:
            return np.empty(0)
        peak, sd_ratio = self._memory.predict(cases)
        limits = np.array([available_bytes or case.machine.usable_ram_bytes for case in cases])
        return np.asarray(np.maximum(peak * (1 + _MEMORY_RESERVE_SD * sd_ratio) / limits, 1e-6))

    def forecast(self, cases: Sequence[Case], *, available_bytes: int | None = None) -> Forecast:
        """Predict many cases in one batch.

        ``available_bytes`` is the memory that may be used now; by default all the machine has.
        """
        table = build_features(cases)
        groups = [_group(case) for case in cases]
        beliefs = {phase: self._phases[phase].predict(table.x, groups) for phase in _PRIORS}
        peak, peak_sd = self._memory.predict(cases)
        keys, ok = [key for key, _ in self._history], [good for _, good in self._history]
        before = history(keys, ok, upto=[_key(case) for case in cases])
        forecast = Forecast(
            cases=tuple(cases),
            prefill=_shift(beliefs["prefill"], table.roofline.prefill_s),
            decode=_shift(beliefs["decode"], table.roofline.decode_s),
            load=_shift(beliefs["load"], table.roofline.load_s),
            peak_bytes=peak,
            peak_sd_ratio=peak_sd,
            p_success=self._success.predict(self._memory_ratio(cases, available_bytes), before),
            evidence=tuple(self._known.evidence(case) for case in cases),
            n_runs=tuple(self._known.n_runs(case) for case in cases),
        )
        return self._known.answer(forecast)


class _Known:
    """What was measured, by case: an exact, successful run is the best prediction there is."""

    def __init__(self, rows: Iterable[tuple[Observation, Case]]) -> None:
        self._exact: dict[Key, list[Observation]] = {}
        self._groups: dict[str, int] = {}
        self._machines: set[str] = set()
        self._models: set[str] = set()
        for observation, case in rows:
            self._exact.setdefault(_key(case), []).append(observation)
            self._groups[_group(case)] = self._groups.get(_group(case), 0) + 1
            self._machines.add(case.machine_id)
            self._models.add(case.model.model_id)

    def evidence(self, case: Case) -> Evidence:
        """Where a prediction of this case comes from."""
        if _key(case) in self._exact:
            return Evidence.MEASURED
        if _group(case) in self._groups:
            return Evidence.CALIBRATED
        if case.machine_id in self._machines or case.model.model_id in self._models:
            return Evidence.TRANSFERRED
        return Evidence.PHYSICS

    def n_runs(self, case: Case) -> int:
        """Runs of this very case, else of its model on its machine."""
        return len(self._exact.get(_key(case), ())) or self._groups.get(_group(case), 0)

    def answer(self, forecast: Forecast) -> Forecast:
        """The forecast with measured cases replaced by their measurements, in place.

        Clean runs answer for the contaminated ones; those answer where there is nothing better.
        """
        for index, case in enumerate(forecast.cases):
            if (runs := self._exact.get(_key(case))) is None:
                continue
            for phase, seconds in _SECONDS.items():
                clean = [o for o in runs if _IS_CLEAN[phase](o)]
                found = [value for o in clean or runs if (value := seconds(o))]
                least_sd = NOISE_SD if clean else CONTAMINATED_SD
                _put(getattr(forecast, phase), index, found, least_sd=least_sd)
            peaks = [o.peak_rss_bytes for o in runs if o.peak_rss_bytes]
            if peaks:
                forecast.peak_bytes[index] = np.median(peaks)
                forecast.peak_sd_ratio[index] = 0.01
        return forecast


def _put(belief: Belief, index: int, seconds: Sequence[float], *, least_sd: float) -> None:
    """Replace one belief by measurements: their median, and a spread never below the noise."""
    if not seconds:
        return
    logs = np.log(seconds)
    belief.mean[index] = np.median(logs)
    spread = np.std(logs, ddof=1) if len(logs) > 1 else least_sd
    belief.sd[index] = max(spread, least_sd)


def _prefill_s(observation: Observation) -> float | None:
    if observation.workload is None or not observation.prefill_tps:
        return None
    return observation.workload.n_prompt / observation.prefill_tps


_SECONDS: dict[str, Callable[[Observation], float | None]] = {
    "prefill": _prefill_s,
    "decode": lambda o: 1 / o.decode_tps if o.decode_tps else None,
    "load": lambda o: o.load.total_s if o.load else None,
}
_IS_CLEAN: dict[str, Callable[[Observation], bool]] = {
    "prefill": lambda o: not o.contaminated,
    "decode": lambda o: not o.contaminated,
    "load": lambda o: not o.load_contaminated,
}


def _fit_phase(
    phase: str, table: FeatureTable, observations: Sequence[Observation]
) -> PhaseRegressor:
    floor = getattr(table.roofline, f"{phase}_s")
    seconds = [_SECONDS[phase](observation) for observation in observations]
    rows = [i for i, value in enumerate(seconds) if value is not None]
    y = np.log([seconds[i] / floor[i] for i in rows])
    groups = [_group(table.cases[i]) for i in rows]
    regressor = PhaseRegressor(prior_mean=float(_PRIORS[phase]), prior_sd=_PRIOR_SD)
    clean = [_IS_CLEAN[phase](observations[i]) for i in rows]
    return regressor.fit(table.x[rows], y, groups, clean=clean)


def _fit_memory(good: Sequence[tuple[Observation, Case]]) -> MemoryRegressor:
    rows = [(case, o.peak_rss_bytes) for o, case in good if o.peak_rss_bytes]
    return MemoryRegressor().fit(
        [case for case, _ in rows], np.array([peak for _, peak in rows], dtype=float)
    )


def _teaches(observation: Observation) -> bool:
    return observation.reason is None or observation.reason.is_label


def _group(case: Case) -> str:
    return f"{case.machine_id}/{case.backend}/{case.model.model_id}"


def _key(case: Case) -> Key:
    return _group(case), case.config, case.workload


def _shift(slowdown: Belief, roofline_s: Array) -> Belief:
    """Log seconds from log slowdowns; phases without work keep log(tiny)."""
    return Belief(slowdown.mean + np.log(np.maximum(roofline_s, 1e-12)), slowdown.sd.copy())


def _interval(belief: Belief, index: int) -> Interval:
    mean, sd = belief.mean[index], belief.sd[index]
    low, middle, high = np.exp([mean - _Z * sd, mean, mean + _Z * sd])
    return Interval(q05=float(low), q50=float(middle), q95=float(high))


def _around(value: float, sd_ratio: float) -> Interval:
    spread = _Z * sd_ratio
    return Interval(
        q05=float(value * (1 - spread)), q50=float(value), q95=float(value * (1 + spread))
    )


def _rate(n_tokens: int, seconds: Interval) -> Interval:
    return Interval(
        q05=n_tokens / seconds.q95, q50=n_tokens / seconds.q50, q95=n_tokens / seconds.q05
    )
