"""Training rows: what the observations say of each case, repeats folded into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.model import ModelFacts
from autotune.domain.run import Purpose
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.features.case import Array, Case
from autotune.features.columns import PHASES, FeatureTable, build_features
from autotune.predict.noise import noise_by_machine
from autotune.predict.places import MACHINE, WIDTHS, place_names
from autotune.predict.subjects import Subjects

Key = tuple[str, Config, Workload]
_OF_ITS_SIZE = ("prefill",)
"""Phases of which ordinary use repeats nothing: its prompts are of about a length."""
_CACHED_STEPS = 10
"""Page-cache shares are told apart in tenths."""


def group_name(case: Case) -> str:
    """One model, run by one backend on one machine."""
    return f"{case.machine_id}/{case.backend}/{case.api}/{case.model.model_id}"


def family_name(model: ModelFacts) -> str:
    """Models that differ in quantisation only: architecture and two digits of their size."""
    return f"{model.architecture} {model.n_params:.2g}"


def subjects_of(cases: Sequence[Case], *, fully: bool = False) -> Subjects:
    """Group, family and places of each case; computed once for the cases that share them.

    Only ``fully`` tells the configurations apart, which prediction does not need.
    """
    index: dict[Hashable, int] = {}
    kinds: dict[tuple[str, ...], int] = {}
    rows = []
    for case in cases:
        key = (id(case.model), id(case.machine), case.machine_id, case.backend, case.api,
               case.build, case.config.flash_attn != "off")  # fmt: skip
        if key not in index:
            names = (group_name(case), family_name(case.model), *place_names(case))
            index[key] = kinds.setdefault(names, len(kinds))
        rows.append(index[key])
    table = np.array(list(kinds), dtype=str).reshape(-1, 2 + len(WIDTHS))
    table = table[np.array(rows, dtype=np.intp)]
    configs = [f"{case.build}/{_without_context(case.config)}" for case in cases] if fully else []
    return Subjects(
        groups=table[:, 0],
        families=table[:, 1],
        places=table[:, 2:],
        configs=np.array(configs, dtype=str) if fully else np.full(len(cases), ""),
        kinds=np.array(rows, dtype=np.intp),
    )


@lru_cache(maxsize=4096)
def _without_context(config: Config) -> str:
    """A configuration, whatever its context: that follows the workload in benchmark tables."""
    return config.replace(n_ctx=max(config.n_batch, 2**20)).config_id


def case_key(case: Case) -> Key:
    """What makes two runs of one build repeats of one another."""
    return group_name(case), case.config, case.workload


def prefill_s(observation: Observation) -> float | None:
    """Measured seconds of the whole prompt."""
    if observation.workload is None or not observation.prefill_tps:
        return None
    return observation.workload.n_prompt / observation.prefill_tps


SECONDS: dict[str, Callable[[Observation], float | None]] = {
    "prefill": prefill_s,
    "decode": lambda o: 1 / o.decode_tps if o.decode_tps else None,
    "load": lambda o: o.load.total_s if o.load else None,
}
"""Measured seconds of each phase; of decode, of one token."""
IS_CLEAN: dict[str, Callable[[Observation], bool]] = {
    "prefill": lambda o: not o.contaminated,
    "decode": lambda o: not o.contaminated,
    "load": lambda o: not o.load_contaminated,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Distinct cases with what was measured of them. Arrays have shape (n_cases,)."""

    cases: tuple[Case, ...]
    table: FeatureTable
    seconds: dict[str, Array]
    """Of each phase: median over the clean repeats, or over all where none is clean; else NaN."""
    is_clean: dict[str, npt.NDArray[np.bool_]]
    noise_sd: dict[str, dict[str, float]]
    """Of each phase, by machine and engine: spread between clean repeats of one case, natural log.

    None where nothing was repeated.
    """
    subjects: Subjects
    started_at: Array
    """Seconds since 1970 of the first repeat."""

    def __len__(self) -> int:
        return len(self.cases)

    def slowdown(self, phase: str) -> Array:
        """log(measured / roofline) of a phase; NaN where it was not measured."""
        floor = getattr(self.table.roofline, f"{phase}_s")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(self.seconds[phase] / floor))

    def measured(self, phase: str) -> npt.NDArray[np.bool_]:
        """Rows in which a phase was measured."""
        return np.isfinite(self.slowdown(phase))


def build_rows(observations: Sequence[tuple[Observation, Case]]) -> Rows:
    """The rows of successful observations, in the order of their first appearance."""
    members = repeats(observations)
    cases = [found[0][1] for found in members]
    runs = [[observation for observation, _ in found] for found in members]
    folded = {phase: [_fold(phase, found) for found in runs] for phase in PHASES}
    subjects = subjects_of(cases, fully=True)
    machines = [str(machine) for machine in subjects.places[:, MACHINE]]
    return Rows(
        cases=tuple(cases),
        table=build_features(cases),
        seconds={p: np.array([s for s, _ in folded[p]], dtype=float) for p in PHASES},
        is_clean={p: np.array([clean for _, clean in folded[p]], dtype=bool) for p in PHASES},
        noise_sd={
            phase: noise_by_machine(zip(machines, _clean(phase, runs), strict=True))
            for phase in PHASES
        },
        subjects=subjects,
        started_at=np.array([found[0].started_at.timestamp() for found in runs], dtype=float),
    )


def repeats(
    observations: Sequence[tuple[Observation, Case]],
) -> list[list[tuple[Observation, Case]]]:
    """The observations of each row, in the order of their first appearance."""
    found: dict[Hashable, list[tuple[Observation, Case]]] = defaultdict(list)
    for observation, case in observations:
        cached = round(_CACHED_STEPS * (1.0 if case.cached_ratio is None else case.cached_ratio))
        found[case_key(case), case.build, cached].append((observation, case))
    return list(found.values())


def _clean(phase: str, runs: Sequence[Sequence[Observation]]) -> Iterator[list[float]]:
    """Clean seconds of each row's repeats."""
    for every in runs:
        again = [r for r in every if r.purpose is not Purpose.USER or phase not in _OF_ITS_SIZE]
        yield [s for run in again if (s := SECONDS[phase](run)) and IS_CLEAN[phase](run)]


def _fold(phase: str, runs: Sequence[Observation]) -> tuple[float, bool]:
    """(median seconds, whether they are clean) of repeats; NaN where nothing was measured."""
    told = [run for run in runs if SECONDS[phase](run)]
    clean = [run for run in told if IS_CLEAN[phase](run)]
    # What was measured on purpose is better than ordinary use, of which there is more.
    exact = [run for run in clean if run.purpose is not Purpose.USER]
    seconds = [s for run in exact or clean or told if (s := SECONDS[phase](run))]
    return (stats.median(seconds), bool(clean)) if seconds else (np.nan, False)
