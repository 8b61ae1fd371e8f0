"""The predictor: fitted on observations, asked about cases.

Phases are predicted as roofline × learned slowdown (:mod:`autotune.predict.phase`), memory as
plan + remainder (:mod:`autotune.predict.memory`), success by rule and logistic
(:mod:`autotune.predict.success`). A configuration that was measured on this machine is answered
with its measurement; contaminated runs count where there is no clean one, and are not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from autotune.domain.prediction import Evidence, Interval, Prediction
from autotune.domain.run import Purpose
from autotune.domain.study import Observation
from autotune.features.case import Array, Case
from autotune.features.columns import PHASES, SUCCESS, build_features
from autotune.predict.calibration import COVERAGE
from autotune.predict.memory import MemoryRegressor
from autotune.predict.phase import (
    CONTAMINATED_SD,
    NOISE_SD,
    Belief,
    PhaseRegressor,
    Subjects,
)
from autotune.predict.rows import (
    IS_CLEAN,
    SECONDS,
    Key,
    Rows,
    build_rows,
    case_key,
    group_name,
    subjects_of,
)
from autotune.predict.success import SuccessClassifier, balance, history, labels

_PRIOR_SD = 0.42
"""Physics alone: a factor of two either way covers 90 % (public single-GPU telemetry: bandwidth
use 0.52–0.79 between quartiles; prefill 0.2–0.95 of peak)."""
_PRIORS = {"prefill": -np.log(0.45), "decode": -np.log(0.60), "load": np.log(1.5)}
"""Log slowdown of each phase before anything was measured."""
_Z = 1.645
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

    def ttft(self) -> Belief:
        """Log seconds to the first token: the prompt, or one step where there is none."""
        has_prompt = np.array([case.workload.n_prompt > 0 for case in self.cases], dtype=bool)
        return Belief(
            np.where(has_prompt, self.prefill.mean, self.decode.mean),
            np.where(has_prompt, self.prefill.sd, self.decode.sd),
        )

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
        taught = [(o, c) for o in observations if teaches(o) and (c := Case.of(o)) is not None]
        good = [(o, c) for o, c in taught if o.reason is None]
        self._known = _Known(good)
        rows = build_rows(good)
        # One thread: on a busy small machine OpenMP made fits ten times slower (measured).
        with threadpool_limits(1):
            self._phases = {phase: _fit_phase(phase, rows) for phase in PHASES}
            self._memory = _fit_memory(good)
            self.fit_success(taught)
        self.n_rows_ = len(taught)
        return self

    def fit_success(self, taught: Sequence[tuple[Observation, Case]]) -> Predictor:
        """Learn from successes and failures alone what can run.

        Of our own runs every one counts; of strangers' the cleaned label of each case.
        """
        own = [(o, c) for o, c in taught if o.purpose is not Purpose.IMPORT]
        told = labels([(o, c) for o, c in taught if o.purpose is Purpose.IMPORT])
        cases = [case for _, case in own] + [label.case for label in told]
        ok = [o.reason is None for o, _ in own] + [label.ok for label in told]
        keys = [case_key(case) for case in cases]
        self._history = balance(keys, ok)
        ratio, x = self._memory_ratio(cases, None), build_features(cases).x[SUCCESS]
        self._success = SuccessClassifier().fit(
            ratio, history(keys, ok), x, np.array(ok, dtype=bool)
        )
        return self

    def _memory_ratio(self, cases: Sequence[Case], available_bytes: int | None) -> Array:
        """95 % quantile of the peak over what is available, floored away from 0.

        Where nobody knows what is available, the rule has nothing to say.
        """
        limits = np.array(
            [available_bytes or case.machine.usable_ram_bytes or np.inf for case in cases]
        )
        ratio = np.full(len(cases), 1e-6)
        rows = np.flatnonzero(np.isfinite(limits))
        if len(rows):
            peak, sd_ratio = self._memory.predict([cases[int(row)] for row in rows])
            ratio[rows] = peak * (1 + _MEMORY_RESERVE_SD * sd_ratio) / limits[rows]
        return np.asarray(np.maximum(ratio, 1e-6))

    def forecast(
        self,
        cases: Sequence[Case],
        *,
        available_bytes: int | None = None,
        coverage: float = COVERAGE,
        verbatim: bool = True,
    ) -> Forecast:
        """Predict many cases in one batch.

        ``available_bytes`` is the memory that may be used now; by default all the machine has.
        ``coverage`` is the share that mean ± z sd holds. Unless ``verbatim``, what was measured is
        predicted all the same.
        """
        table = build_features(cases)
        subjects = subjects_of(cases)
        beliefs = {
            phase: _in_distinct_rows(self._phases[phase], table.x[phase], subjects, coverage)
            for phase in PHASES
        }
        peak, peak_sd = self._memory.predict(cases)
        keys = [case_key(case) for case in cases]
        before = np.array([self._history.get(key, 0.0) for key in keys], dtype=float)
        told = [self._known.told(case, key) for case, key in zip(cases, keys, strict=True)]
        forecast = Forecast(
            cases=tuple(cases),
            prefill=_shift(beliefs["prefill"], table.roofline.prefill_s),
            decode=_shift(beliefs["decode"], table.roofline.decode_s),
            load=_shift(beliefs["load"], table.roofline.load_s),
            peak_bytes=peak,
            peak_sd_ratio=peak_sd,
            p_success=self._success.predict(
                self._memory_ratio(cases, available_bytes), before, table.x[SUCCESS]
            ),
            evidence=tuple(known.evidence for known in told),
            n_runs=tuple(known.n_runs for known in told),
        )
        return _answer(forecast, [known.runs for known in told]) if verbatim else forecast


def _in_distinct_rows(
    regressor: PhaseRegressor, x: Array, subjects: Subjects, coverage: float
) -> Belief:
    """The regressor's beliefs; candidates that a phase cannot tell apart are predicted once."""
    if not len(x):
        return Belief(np.empty(0), np.empty(0))
    names = np.char.add(subjects.groups, subjects.places[:, 2])
    _, codes = np.unique(names, return_inverse=True)
    rows = np.ascontiguousarray(np.column_stack([x, codes]))
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    belief = regressor.predict(x[first], subjects.take(first), coverage=coverage)
    return Belief(belief.mean[index], belief.sd[index])


class _Known:
    """What was measured, by case: an exact, successful run is the best prediction there is."""

    def __init__(self, rows: Iterable[tuple[Observation, Case]]) -> None:
        self._exact: dict[Key, list[Observation]] = {}
        self._groups: dict[str, int] = {}
        self._machines: set[str] = set()
        self._models: set[str] = set()
        for observation, case in rows:
            self._exact.setdefault(case_key(case), []).append(observation)
            self._groups[group_name(case)] = self._groups.get(group_name(case), 0) + 1
            self._machines.add(case.machine_id)
            self._models.add(case.model.model_id)

    def told(self, case: Case, key: Key) -> _Told:
        """What the runs say of a case."""
        runs = [run for run in self._exact.get(key, ()) if case.build in ("", run.build)]
        n_runs = self._groups.get(key[0], 0)
        if runs:
            return _Told(runs, Evidence.MEASURED, len(runs))
        if n_runs:
            return _Told(runs, Evidence.CALIBRATED, n_runs)
        if case.machine_id in self._machines or case.model.model_id in self._models:
            return _Told(runs, Evidence.TRANSFERRED, 0)
        return _Told(runs, Evidence.PHYSICS, 0)


@dataclass(frozen=True, slots=True)
class _Told:
    """What is known of one case."""

    runs: list[Observation]
    """Of this very case; of any build, where the case does not name one."""
    evidence: Evidence
    n_runs: int
    """Of this very case, else of its model on its machine."""


def _answer(forecast: Forecast, known: Sequence[Sequence[Observation]]) -> Forecast:
    """The forecast with measured cases replaced by their measurements, in place.

    Clean runs answer for the contaminated ones; those answer where there is nothing better.
    """
    for index, runs in enumerate(known):
        if not runs:
            continue
        for phase, seconds in SECONDS.items():
            clean = [o for o in runs if IS_CLEAN[phase](o)]
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


def _fit_phase(phase: str, rows: Rows) -> PhaseRegressor:
    measured = np.flatnonzero(rows.measured(phase))
    regressor = PhaseRegressor(phase, prior_mean=float(_PRIORS[phase]), prior_sd=_PRIOR_SD)
    return regressor.fit(
        rows.table.x[phase][measured],
        rows.slowdown(phase)[measured],
        rows.subjects.take(measured),
        is_clean=rows.is_clean[phase][measured],
    )


def _fit_memory(good: Sequence[tuple[Observation, Case]]) -> MemoryRegressor:
    rows = [(case, o.peak_rss_bytes) for o, case in good if o.peak_rss_bytes]
    return MemoryRegressor().fit(
        [case for case, _ in rows], np.array([peak for _, peak in rows], dtype=float)
    )


def teaches(observation: Observation) -> bool:
    """Whether a run says anything about its configuration."""
    return observation.reason is None or observation.reason.is_label


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
