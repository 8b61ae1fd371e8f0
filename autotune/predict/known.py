"""What was measured, by case: an exact, successful run is the best prediction there is.

And what ran out of memory: no larger configuration of that model is tried on that machine again,
until one succeeds. And what a backend does not know: a model that it refused, and never ran.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.prediction import Evidence
from autotune.domain.run import Purpose, Reason
from autotune.domain.study import Observation
from autotune.features.case import Array, Case
from autotune.predict.rows import IS_CLEAN, SECONDS, Key, case_key, group_name

QUANTITIES = (*SECONDS, "ttft")
"""What one run tells the seconds of."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one successful run said. Missing is NaN."""

    build: str
    seconds: tuple[float, ...]
    """Of each of :data:`QUANTITIES`."""
    is_clean: tuple[bool, ...]
    peak_bytes: float

    @classmethod
    def by(cls, observation: Observation) -> Told:
        """What a run said."""
        clean = {name: IS_CLEAN[name](observation) for name in SECONDS}
        seconds = {name: SECONDS[name](observation) for name in SECONDS}
        return cls(
            observation.build,
            (*(seconds[name] or np.nan for name in SECONDS), observation.ttft_s or np.nan),
            (*(clean[name] for name in SECONDS), clean["prefill"]),
            float(observation.peak_rss_bytes or np.nan),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """A configuration that ran out of memory, or one that did not."""

    config: Config
    n_tokens: int
    """What its workload held in the cache."""
    ok: bool


@dataclass(slots=True)
class Known:
    """Runs of this store, by case, and by the model and machine that they were made with."""

    runs: dict[Key, list[Told]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """Runs of each group."""
    machines: dict[str, bool] = field(default_factory=dict)
    models: dict[str, bool] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    """Of each group in which something ran out of memory, oldest first."""
    refusals: dict[str, list[str]] = field(default_factory=dict)
    """Builds that did not know a model, by backend and model; none where one ever ran."""
    refused_kin: dict[str, bool] = field(default_factory=dict)
    """Backends with an architecture of which they did not know a model and never ran one."""

    @classmethod
    def of(cls, taught: Sequence[tuple[Observation, Case]]) -> Known:
        """What finished runs say, oldest first.

        Ordinary use is no exact answer: its requests are of about a size, on a busy machine.
        """
        known = cls()
        attempts: dict[str, list[Attempt]] = defaultdict(list)
        for observation, case in taught:
            key = case_key(case)
            if observation.reason in (None, Reason.OOM):
                ok = observation.reason is None
                attempts[key[0]].append(Attempt(case.config, case.workload.n_tokens, ok))
            if observation.reason is None:
                if observation.purpose is not Purpose.USER:
                    known.runs.setdefault(key, []).append(Told.by(observation))
                known.counts[key[0]] = known.counts.get(key[0], 0) + observation.counts
                known.machines[case.machine_id] = known.models[case.model.model_id] = True
        known.refusals = _refusals(taught, _model_name)
        known.refused_kin = dict.fromkeys(_refusals(taught, _kin_name), True)
        known.attempts = {
            group: found for group, found in attempts.items() if not all(a.ok for a in found)
        }
        return known

    def find(self, case: Case, key: Key) -> tuple[list[Told], Evidence, int]:
        """(runs of this very case, evidence, number of runs behind it).

        A case that names no build means any.
        """
        runs = [run for run in self.runs.get(key, ()) if case.build in ("", run.build)]
        n_runs = self.counts.get(key[0], 0)
        if runs:
            return runs, Evidence.MEASURED, len(runs)
        if n_runs:
            return runs, Evidence.CALIBRATED, n_runs
        if case.machine_id in self.machines or case.model.model_id in self.models:
            return runs, Evidence.TRANSFERRED, 0
        return runs, Evidence.PHYSICS, 0

    def ran_out(self, cases: Sequence[Case]) -> Array:
        """1 where a configuration at most as large ran out of memory, and none as large ran since.

        Shape (n_cases,).
        """
        marked = np.zeros(len(cases))
        if not self.attempts:
            return marked
        groups = np.array([group_name(case) for case in cases], dtype=str)
        for group, attempts in self.attempts.items():
            rows = np.flatnonzero(groups == group)
            for attempt in attempts if len(rows) else ():
                for row in rows:
                    config = cases[int(row)].config
                    if not attempt.ok and is_at_least(config, attempt.config):
                        marked[row] = 1.0
                    elif attempt.ok and is_at_least(attempt.config, config):
                        marked[row] = 0.0
        return marked

    def refused(self, cases: Sequence[Case]) -> Array:
        """1 where the backend does not know the model; shape (n_cases,).

        A case that names another build than those that refused may be luckier.
        """
        if not self.refusals:
            return np.zeros(len(cases))
        builds = [self.refusals.get(_model_name(case), []) for case in cases]
        told = zip(cases, builds, strict=True)
        return np.array([bool(b) and c.build in ("", *b) for c, b in told], dtype=float)

    def refuses_kin(self, case: Case) -> bool:
        """Whether the backend did not know another model of this architecture, and ran none."""
        return _kin_name(case) in self.refused_kin


def _model_name(case: Case) -> str:
    return f"{case.backend}/{case.model.model_id}"


def _kin_name(case: Case) -> str:
    return f"{case.backend}/{case.model.architecture}"


def _refusals(
    taught: Sequence[tuple[Observation, Case]], name: Callable[[Case], str]
) -> dict[str, list[str]]:
    """The builds that refused, by name; where a model ran, what was refused was a knob."""
    ran = {name(case) for observation, case in taught if observation.reason is None}
    found: dict[str, list[str]] = defaultdict(list)
    for observation, case in taught:
        if observation.reason is Reason.UNSUPPORTED and name(case) not in ran:
            found[name(case)].append(observation.build)
    return dict(found)


def is_at_least(config: Config, other: Config) -> bool:
    """Whether a configuration needs at least the memory of another, whatever the model."""
    if _placement(config) != _placement(other):
        return False
    return all(ours >= theirs for ours, theirs in zip(_sizes(config), _sizes(other), strict=True))


def _placement(config: Config) -> tuple[object, ...]:
    """Where memory lies: what lies elsewhere is neither larger nor smaller."""
    return (*config.layer_split, config.offload_kqv, config.op_offload, config.use_mmap)


def _sizes(config: Config) -> tuple[float, ...]:
    return (
        config.n_ctx,
        config.n_ubatch,
        KV_BYTES_PER_ELEMENT[config.type_k],
        KV_BYTES_PER_ELEMENT[config.type_v],
        config.n_parallel,
        config.swa_full,
        config.flash_attn == "off",
    )


def pooled(runs: Sequence[Told], quantity: str) -> tuple[Array, bool]:
    """(measured seconds, whether they are clean): of the clean runs, else of all; maybe empty."""
    column = QUANTITIES.index(quantity)
    seconds = np.array([run.seconds[column] for run in runs])
    clean = np.array([run.is_clean[column] for run in runs], dtype=bool)
    measured = np.isfinite(seconds)
    has_clean = bool((measured & clean).any()) or not measured.any()
    return seconds[measured & clean] if has_clean else seconds[measured], has_clean
