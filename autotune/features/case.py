"""A case: everything a prediction is about, known before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.domain.config import Config
from autotune.domain.machine import DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.study import Observation
from autotune.domain.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One configuration of one model on one machine under one workload."""

    machine_id: str
    machine: MachineFacts
    probe: Probe
    model: ModelFacts
    backend: str
    config: Config
    workload: Workload
    cached_ratio: float | None = 1.0
    """Share of the model file in the page cache before the load."""
    disk: DiskProbe | None = None
    """How fast the model's file is read where it lies."""

    @classmethod
    def of(cls, observation: Observation) -> Case | None:
        """The case that a stored run is an answer to; None without probe or workload."""
        if observation.probe is None or observation.workload is None:
            return None
        return cls(
            machine_id=observation.machine_id,
            machine=observation.machine,
            probe=observation.probe,
            model=observation.model,
            backend=observation.backend,
            config=observation.config,
            workload=observation.workload,
            cached_ratio=observation.cached_ratio,
            disk=observation.disk,
        )
