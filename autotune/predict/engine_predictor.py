"""The predictor of one engine: fitted on observations, asked about cases.

Phases are predicted as roofline × learned slowdown (:mod:`autotune.predict.phase`), memory as
plan + remainder (:mod:`autotune.predict.memory`), success by rule and logistic
(:mod:`autotune.predict.success`). A configuration that was measured on this machine is answered
with its measurement; contaminated runs count where there is no clean one, and are not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from autotune.domain.prediction import Evidence
from autotune.domain.run import Purpose, Reason
from autotune.domain.study import Observation
from autotune.facts.devices import bandwidth_spread
from autotune.features.case import Array, Case
from autotune.features.columns import PHASES, SUCCESS, FeatureTable, build_features
from autotune.predict.calibration import COVERAGE
from autotune.predict.depth import deepen, distinct_rows
from autotune.predict.first_token import FirstToken
from autotune.predict.forecast import Forecast
from autotune.predict.known import QUANTITIES, Known, Told, pooled
from autotune.predict.memory import MemoryRegressor, vram_ratios
from autotune.predict.phase import CONTAMINATED_SD, Belief, PhaseRegressor
from autotune.predict.places import MACHINE
from autotune.predict.rows import Rows, build_rows, case_key, subjects_of
from autotune.predict.subjects import Subjects
from autotune.predict.success import SuccessClassifier, balance, history, labels
from autotune.predict.typical import typical_of

SPEEDS = ("prefill", "decode")
_Z = 1.645
_HOPELESS = 0.02
"""Chance of what needs at least the memory of something that ran out of it, and of a model that the
backend does not know."""
_MEMORY_RESERVE_SD = 1.645
"""Feasibility asks for the 95 % quantile of the peak, not its middle."""


class EnginePredictor:
    """Learns from observations of one engine.

    The general part (ensembles, calibration, what can run) is fitted; what is known of the models
    and configurations that were run here is conditioned on it, in milliseconds.
    """

    def __init__(self, engine: str) -> None:
        self.engine = engine

    def fit(
        self, observations: Sequence[Observation], *, prior: Sequence[Observation] = ()
    ) -> EnginePredictor:
        """Learn. Runs that were cancelled or interrupted teach nothing; failures teach success.

        ``prior`` is what others measured elsewhere: it teaches the general part alone. Hearsay says
        something of its own model and nothing of others.
        """
        taught = [(o, c) for o, c in taught_by([*prior, *observations]) if not o.is_hearsay]
        rows = build_rows([(o, c) for o, c in taught if o.reason is None])
        # One thread: on a busy small machine OpenMP made fits ten times slower (measured).
        with threadpool_limits(1):
            self._phases = {phase: _fit_phase(phase, rows, self.engine) for phase in PHASES}
            self._memory = _fit_memory((), self.engine)
            self.adapt(observations)
            self.fit_success(taught)
        return self

    def adapt(self, observations: Sequence[Observation]) -> EnginePredictor:
        """Learn all that observations say of their own models on their own machines.

        The general part stays as it was fitted.
        """
        taught = taught_by(observations)
        good = [(o, c) for o, c in taught if o.reason is None]
        rows = build_rows(good)
        for phase, regressor in self._phases.items():
            regressor.adapt(**_measured(phase, rows))
        self._memory = _fit_memory(good, self.engine)
        self._first_token = FirstToken.fit(good)
        self._known = Known.of(taught)
        own = _own(taught)
        self._history = balance([case_key(c) for _, c in own], [o.reason is None for o, _ in own])
        return self

    def out_of_group(self, observations: Sequence[Observation]) -> dict[str, Array]:
        """Errors of the general part, natural logs of times, by phase and machine.

        Each row was predicted by what has not seen its family; NaN where there is no such thing.
        The rows, one for each clean case, are the same for every predictor.
        """
        rows = build_rows([(o, c) for o, c in taught_by(observations) if o.reason is None])
        found = {}
        for phase, regressor in self._phases.items():
            told = _measured(phase, rows)
            machines, clean = told["subjects"].places[:, MACHINE], told.pop("is_clean")
            told.pop("noise_sd")
            errors = regressor.out_of_group(**told)
            for machine in np.unique(machines):
                found[f"{phase} on {machine}"] = errors[(machines == machine) & clean]
        return found

    def fit_success(self, taught: Sequence[tuple[Observation, Case]]) -> EnginePredictor:
        """Learn from successes and failures alone what can run.

        Of our own runs every one counts; of strangers' the cleaned label of each case.
        """
        own = _own(taught)
        told = labels([(o, c) for o, c in taught if o.purpose is Purpose.IMPORT])
        cases = [case for _, case in own] + [label.case for label in told]
        ok = [o.reason is None for o, _ in own] + [label.ok for label in told]
        keys = [case_key(case) for case in cases]
        ratio, x = self._memory_ratio(cases), build_features(cases).x[SUCCESS]
        self._success = SuccessClassifier().fit(
            ratio, history(keys, ok), x, np.array(ok, dtype=bool)
        )
        return self

    def refuses_kin(self, case: Case) -> bool:
        """Whether the backend did not know another model of the case's architecture, and ran none.

        A presumption: what was not known may have been something else about that model.
        """
        return self._known.refuses_kin(case)

    def _supported(self, table: FeatureTable) -> npt.NDArray[np.bool_]:
        """Whether each case lies near what was measured, in both phases; shape (n_cases,)."""
        phases = [self._phases[phase].is_supported(table.x[phase]) for phase in SPEEDS]
        return np.asarray(np.logical_and.reduce(phases), dtype=bool)

    def _is_guessed(self, table: FeatureTable) -> npt.NDArray[np.bool_]:
        """Whether nobody knows how fast a case's GPU is, and nothing was run there; (n_cases,)."""
        unlisted = (table.arrays.gpu_read > 0) & ~table.is_supported.astype(bool)
        met = [case.machine_id in self._known.machines for case in table.cases]
        return np.asarray(unlisted & ~np.array(met, dtype=bool), dtype=bool)

    def _memory_ratio(
        self,
        cases: Sequence[Case],
        available_bytes: int | None = None,
        told: tuple[Array, Array] | None = None,
    ) -> Array:
        """95 % quantile of the peak over what is available, floored away from 0.

        ``told`` is what the memory regressor says of the cases, where it was asked. Where nobody
        knows what is available, the rule has nothing to say.
        """
        limits = np.array(
            [available_bytes or case.machine.usable_ram_bytes or np.inf for case in cases]
        )
        ratio = np.full(len(cases), 1e-6)
        rows = np.flatnonzero(np.isfinite(limits))
        if len(rows):
            peak, sd_ratio = (
                (told[0][rows], told[1][rows])
                if told
                else self._memory.predict([cases[int(row)] for row in rows])
            )
            ratio[rows] = peak * (1 + _MEMORY_RESERVE_SD * sd_ratio) / limits[rows]
        return np.asarray(np.maximum(np.maximum(ratio, vram_ratios(cases)), 1e-6))

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
        guessed = self._is_guessed(table)
        for phase in SPEEDS:
            beliefs[phase].sd[guessed] = np.hypot(beliefs[phase].sd[guessed], bandwidth_spread())
        peak, peak_sd = self._memory.predict(cases)
        keys = [case_key(case) for case in cases]
        before = np.array([self._history.get(key, 0.0) for key in keys], dtype=float)
        found = [self._known.find(case, key) for case, key in zip(cases, keys, strict=True)]
        p_success = self._success.predict(
            self._memory_ratio(cases, available_bytes, (peak, peak_sd)), before, table.x[SUCCESS]
        )
        prefill = _shift(beliefs["prefill"], table.roofline.prefill_s)
        decode = _shift(beliefs["decode"], table.roofline.decode_s)
        deepen(decode, table, subjects, self._phases["decode"])
        forecast = Forecast(
            cases=tuple(cases),
            prefill=prefill,
            decode=decode,
            ttft=self._first_token.belief(cases, prefill, decode),
            load=_shift(beliefs["load"], table.roofline.load_s),
            peak_bytes=peak,
            peak_sd_ratio=peak_sd,
            p_success=np.where(
                np.maximum(self._known.ran_out(cases), self._known.refused(cases)),
                np.minimum(p_success, _HOPELESS),
                p_success,
            ),
            evidence=tuple(
                evidence if near or evidence is not Evidence.TRANSFERRED else Evidence.PHYSICS
                for (_, evidence, _), near in zip(found, self._supported(table), strict=True)
            ),
            n_runs=tuple(n_runs for _, _, n_runs in found),
        )
        if not verbatim:
            return forecast
        noise = {phase: self._phases[phase].noise_of(subjects) for phase in PHASES}
        return _answer(forecast, [runs for runs, _, _ in found], noise)


def _in_distinct_rows(
    regressor: PhaseRegressor, x: Array, subjects: Subjects, coverage: float
) -> Belief:
    """The regressor's beliefs; candidates that a phase cannot tell apart are predicted once."""
    if not len(x):
        return Belief(np.empty(0), np.empty(0))
    first, index = distinct_rows(x, subjects)
    belief = regressor.predict(x[first], subjects.take(first), coverage=coverage)
    return Belief(belief.mean[index], belief.sd[index])


def _answer(
    forecast: Forecast, known: Sequence[Sequence[Told]], noise: Mapping[str, Array]
) -> Forecast:
    """The forecast with measured cases replaced by their measurements, in place.

    Clean runs answer for the contaminated ones; those answer where there is nothing better. No
    spread is below the ``noise`` of the machine, by phase; shape (n_cases,) each.
    """
    for index, runs in enumerate(known):
        if not runs:
            continue
        for quantity in QUANTITIES:
            seconds, is_clean = pooled(runs, quantity)
            usual_sd = noise["prefill" if quantity == "ttft" else quantity][index]
            least_sd = float(usual_sd) if is_clean else CONTAMINATED_SD
            _put(getattr(forecast, quantity), index, seconds, least_sd=least_sd)
        peaks = [run.peak_bytes for run in runs if np.isfinite(run.peak_bytes)]
        if peaks:
            forecast.peak_bytes[index] = np.median(peaks)
            forecast.peak_sd_ratio[index] = 0.01
    return forecast


def _put(belief: Belief, index: int, seconds: Array, *, least_sd: float) -> None:
    """Replace one belief by measurements: their median, and a spread never below the noise."""
    if not len(seconds):
        return
    logs = np.log(seconds)
    belief.mean[index] = np.median(logs)
    spread = np.std(logs, ddof=1) if len(logs) > 1 else least_sd
    belief.sd[index] = max(spread, least_sd)


def _fit_phase(phase: str, rows: Rows, engine: str) -> PhaseRegressor:
    typical = typical_of(engine).slowdown[phase]
    return PhaseRegressor(phase, typical).fit(**_measured(phase, rows))


def _measured(phase: str, rows: Rows) -> dict[str, Any]:
    """The rows in which a phase was measured, as a phase's regressor learns from them."""
    measured = np.flatnonzero(rows.measured(phase))
    return {
        "x": rows.table.x[phase][measured],
        "y": rows.slowdown(phase)[measured],
        "subjects": rows.subjects.take(measured),
        "is_clean": rows.is_clean[phase][measured],
        "noise_sd": rows.noise_sd[phase],
    }


def _fit_memory(good: Sequence[tuple[Observation, Case]], engine: str) -> MemoryRegressor:
    rows = [(case, o.peak_rss_bytes) for o, case in good if o.peak_rss_bytes]
    typical = typical_of(engine)
    process = (typical.process_mib, typical.process_sd_mib)
    return MemoryRegressor(process_mib=process).fit(
        [case for case, _ in rows], np.array([peak for _, peak in rows], dtype=float)
    )


def taught_by(observations: Iterable[Observation]) -> list[tuple[Observation, Case]]:
    """The observations that say anything of their case, with it."""
    return [(o, c) for o in observations if teaches(o) and (c := Case.of(o)) is not None]


def _own(taught: Iterable[tuple[Observation, Case]]) -> list[tuple[Observation, Case]]:
    """Runs of this store: of each the one observation that tells how it ended."""
    return [(o, c) for o, c in taught if o.purpose is not Purpose.IMPORT and o.counts]


def teaches(observation: Observation) -> bool:
    """Whether a run says anything about its configuration.

    One that was slow beside other programs says nothing: alone it may be in time.
    """
    if observation.reason is Reason.TIMEOUT and observation.contaminated:
        return False
    return observation.reason is None or observation.reason.is_label


def _shift(slowdown: Belief, roofline_s: Array) -> Belief:
    """Log seconds from log slowdowns; phases without work keep log(tiny)."""
    return Belief(slowdown.mean + np.log(np.maximum(roofline_s, 1e-12)), slowdown.sd.copy())
