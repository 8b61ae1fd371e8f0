"""A case: everything a prediction is about, known before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.domain.config import Config
from autotune.domain.engine import engine_of, unpacked_model
from autotune.domain.machine import DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.study import Observation
from autotune.domain.workload import Workload

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One configuration of one model on one machine under one workload."""

    machine_id: str
    machine: MachineFacts
    probe: Probe | None
    """None on a machine that nobody probed: published constants stand in."""
    model: ModelFacts
    backend: str
    api: str = "CPU"
    """What the engine computes with: ``CPU``, ``CUDA``, ``ROCm``, ``Vulkan`` or ``Metal``."""
    build: str = ""
    """Version of the engine, as one word; empty where nobody says."""
    config: Config
    workload: Workload
    cached_ratio: float | None = 1.0
    """Share of the model file in the page cache before the load."""
    disk: DiskProbe | None = None
    """How fast the model's file is read where it lies."""

    @property
    def held(self) -> ModelFacts:
        """The model as the engine holds it in memory; the file's own for most engines."""
        unpacks = engine_of(self.backend).unpacks
        return unpacked_model(self.model, self.config.type_k) if unpacks else self.model

    @classmethod
    def of(cls, observation: Observation) -> Case | None:
        """The case that a stored run is an answer to; None without a workload."""
        if observation.workload is None:
            return None
        return cls(
            machine_id=observation.machine_id,
            machine=observation.machine,
            probe=observation.probe,
            model=observation.model,
            backend=observation.backend,
            api=observation.api,
            build=observation.build,
            config=observation.config,
            workload=observation.workload,
            cached_ratio=observation.cached_ratio,
            disk=observation.disk,
        )
