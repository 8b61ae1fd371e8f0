"""Measured peaks of real runs, kept in a file, and what a regressor makes of the ones left out."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune.domain.config import Config
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts, TensorSum
from autotune.domain.run import Run
from autotune.domain.workload import Workload
from autotune.features.case import Case
from autotune.features.physics import Array
from autotune.predict.memory import MemoryRegressor
from tests.factories import make_probe

RECORDED = Path(__file__).parent / "data" / "memory_runs.json.gz"
"""SmolLM2-135M and gemma-3-270m on one machine; ``python -m tests.benchmarks.memory FILE``."""
Z_95 = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRuns:
    """Cases with their measured peaks; arrays have shape (n_cases,)."""

    cases: tuple[Case, ...]
    peak_bytes: Array

    @property
    def models(self) -> Sequence[str]:
        """Model of each case."""
        return [case.model.model_id for case in self.cases]

    @property
    def configs(self) -> Sequence[str]:
        """Model and configuration of each case."""
        return [f"{case.model.model_id}/{case.config.config_id}" for case in self.cases]

    def left_out(self, groups: Sequence[str]) -> tuple[Array, Array]:
        """(Peak, standard deviation) of each case by a regressor that saw only other groups."""
        peak, sd = np.empty((2, len(self.cases)))
        for group in set(groups):
            out = np.array([name == group for name in groups])
            seen = [case for case, left in zip(self.cases, out, strict=True) if not left]
            asked = [case for case, left in zip(self.cases, out, strict=True) if left]
            regressor = MemoryRegressor().fit(seen, self.peak_bytes[~out])
            peak[out], ratio = regressor.predict(asked)
            sd[out] = ratio * peak[out]
        return peak, sd

    def unseen(self) -> tuple[Array, Array]:
        """The same by a regressor that saw nothing."""
        peak, ratio = MemoryRegressor().fit([], np.empty(0)).predict(self.cases)
        return peak, ratio * peak

    def mape(self, peak: Array) -> float:
        """Mean absolute error as a share of the measured peak."""
        return float(np.mean(np.abs(peak / self.peak_bytes - 1)))

    def exceeded(self, peak: Array, sd: Array) -> float:
        """Share of the runs above their predicted 95 % quantile."""
        return float(np.mean(self.peak_bytes > peak + Z_95 * sd))


def make_case(machine: MachineFacts, model: ModelFacts, config: Config, workload: Workload) -> Case:
    """A case on that machine, whose speed is nobody's concern here."""
    return Case(
        machine_id="recorded",
        machine=machine,
        probe=make_probe(),
        model=model,
        backend="llama-cpp-python",
        config=config,
        workload=workload,
    )


def gather(runs: Sequence[tuple[ModelFacts, Run]], machine: MachineFacts) -> MemoryRuns:
    """Measured runs, as they are evaluated."""
    return MemoryRuns(
        cases=tuple(
            make_case(machine, model, run.trial.config, run.trial.workload) for model, run in runs
        ),
        peak_bytes=np.array([run.peak_rss_bytes for _, run in runs], dtype=float),
    )


def save_runs(path: Path, runs: MemoryRuns) -> None:
    """Keep runs in a file; of a configuration only what differs from the plain one."""
    first = runs.cases[0]
    models = {case.model.model_id: case.model for case in runs.cases}
    document = {
        "machine": dataclasses.asdict(first.machine),
        "models": [dataclasses.asdict(model) for model in models.values()],
        "runs": [
            {
                "model_id": case.model.model_id,
                "config": _changes(case.config),
                "workload": case.workload.label,
                "peak_rss_bytes": int(peak),
            }
            for case, peak in zip(runs.cases, runs.peak_bytes, strict=True)
        ],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))


def load_runs(path: Path = RECORDED) -> MemoryRuns:
    """The inverse of :func:`save_runs`."""
    document = json.loads(gzip.decompress(path.read_bytes()))
    machine = MachineFacts(**_frozen(document["machine"]))
    models = {}
    for values in document["models"]:
        tensors = tuple(TensorSum(**tensor) for tensor in values.pop("tensors"))
        models[values["model_id"]] = ModelFacts(**_frozen(values), tensors=tensors)
    return MemoryRuns(
        cases=tuple(
            make_case(
                machine,
                models[run["model_id"]],
                Config.from_dict(run["config"]),
                Workload.parse(run["workload"]),
            )
            for run in document["runs"]
        ),
        peak_bytes=np.array([run["peak_rss_bytes"] for run in document["runs"]], dtype=float),
    )


def _changes(config: Config) -> dict[str, Any]:
    return {knob: ours for knob, (ours, _) in config.differences(Config()).items()}


def _frozen(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
