"""A subject: one model on one machine, registered in the store; what every question is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.machine import DiskProbe, GPUFacts, MachineFacts, Probe, gpu_api
from autotune.domain.model import ModelFacts
from autotune.domain.workload import Workload
from autotune.facts.disk import probe_disk, read_disk
from autotune.facts.gpu import EngineDevice, merge_devices
from autotune.facts.machine import machine_id
from autotune.facts.probe import probe_machine
from autotune.features.case import Case
from autotune.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model file with its facts, and the machine with its probe."""

    model_path: Path
    model: ModelFacts
    machine_id: str
    machine: MachineFacts
    probe: Probe
    disk: DiskProbe | None = None
    """How fast the model's file is read where it lies."""

    @property
    def api(self) -> str:
        """What the engine computes with here: that of its first GPU, else ``CPU``."""
        devices = [gpu.device for gpu in self.machine.gpus if gpu.device]
        return next(filter(None, map(gpu_api, devices)), "CPU")

    def case(self, backend: str, config: Config, workload: Workload) -> Case:
        """The case of one configuration of this subject."""
        return Case(
            machine_id=self.machine_id,
            machine=self.machine,
            probe=self.probe,
            model=self.model,
            backend=backend,
            api=self.api,
            config=config,
            workload=workload,
            disk=self.disk,
        )

    def cases(
        self, backend: str, configs: Iterable[Config], workload: Workload
    ) -> tuple[Case, ...]:
        """The cases of several configurations."""
        return tuple(self.case(backend, config, workload) for config in configs)


def register_subject(
    model_path: Path,
    model: ModelFacts,
    machine: MachineFacts,
    store: Store,
    *,
    engine_gpus: Sequence[EngineDevice] | None = None,
) -> Subject:
    """Enter a model and this machine into the store.

    ``engine_gpus`` are the GPUs that the engine can use; where it was not asked (None), what it
    said the last time counts. A machine that the store does not know is probed once (at most 5 s).
    """
    # The driver's view alone: what an engine can use changes with its build.
    identity = machine_id(machine)
    if engine_gpus is not None:
        machine = dataclasses.replace(machine, gpus=merge_devices(machine.gpus, engine_gpus))
    elif (known := store.find_machine(identity)) is not None:
        machine = dataclasses.replace(machine, gpus=_refreshed(known.gpus, machine.gpus))
    store.record_machine(identity, machine)
    store.record_model(model, model_path)
    return Subject(
        model_path=model_path,
        model=model,
        machine_id=identity,
        machine=machine,
        probe=_probe(identity, machine, store),
        disk=_disk(model.model_id, model_path, store),
    )


def _refreshed(known: Iterable[GPUFacts], seen: Iterable[GPUFacts]) -> tuple[GPUFacts, ...]:
    """The GPUs as an engine named them, with what the driver says is free now."""
    free = {gpu.uuid: gpu.free_bytes for gpu in seen if gpu.uuid}
    return tuple(
        dataclasses.replace(gpu, free_bytes=free[gpu.uuid]) if gpu.uuid in free else gpu
        for gpu in known
    )


def _disk(model_id: str, path: Path, store: Store) -> DiskProbe:
    """The read rates of a file, measured when it is first seen (at most 3 s)."""
    known = store.load_disk(model_id, path)
    if known is not None:
        return known
    probe = probe_disk(path)
    store.record_disk(model_id, path, read_disk(path), probe)
    return probe


def _probe(identity: str, machine: MachineFacts, store: Store) -> Probe:
    known = store.load_probe(identity)
    # A wider affinity than at the last probe asks for thread counts that it did not see.
    if known is not None and max(known.n_threads) >= machine.n_processors:
        return known
    probe = probe_machine(machine.n_processors, cache_l3_bytes=machine.cache_l3_bytes)
    store.record_probe(identity, probe)
    return probe
