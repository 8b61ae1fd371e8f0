"""What the store and this machine tell of a model, kept between calls.

The first question about a model looks at its file, its disk and, on a new machine, at the memory
and the processors (up to 8 s); later ones take milliseconds. Where the store cannot be written,
the same answers come, and nothing is kept.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from threading import RLock

from autotune.domain.errors import AutotuneError
from autotune.domain.machine import MachineFacts, gpu_api
from autotune.domain.quality import QualityCost
from autotune.facts.disk import probe_disk
from autotune.facts.gpu import EngineDevice, merge_devices
from autotune.facts.machine import machine_id
from autotune.facts.probe import probe_machine
from autotune.integration.files import ModelFile, ModelFiles
from autotune.integration.hardware import HardwareDetector
from autotune.measure.engine import Engine
from autotune.predict.life import borrowed_predictor, current_predictor
from autotune.predict.predictor import Predictor
from autotune.recommend.backend_history import BackendHistory, read_history
from autotune.recommend.subject import Subject, register_subject
from autotune.store.store import Store

_log = logging.getLogger(__name__)


class Knowledge:
    """Subjects and predictors, each made when it is first needed."""

    def __init__(self, store: Store, files: ModelFiles, detector: HardwareDetector) -> None:
        self._store, self._files, self._detector = store, files, detector
        self._subjects: dict[tuple[str, Path], Subject] = {}
        self._predictors: dict[str, tuple[str, Predictor]] = {}
        self._lock = RLock()

    def subject(self, model_path: str | Path) -> Subject:
        """A model file and this machine, with the GPUs that any installed engine can use.

        Raises GGUFError for a file that is missing, damaged or no model.
        """
        file = self._files.find(model_path)
        key = (file.facts.model_id, file.path)
        with self._lock:
            if key not in self._subjects:
                self._subjects[key] = self._meet(file)
            return self._subjects[key]

    def predictor(self, api: str, *, is_here: bool = True) -> Predictor:
        """The predictor that knows every run of the store, for what an engine computes with.

        For what is not in this machine the first one takes seconds to fit, once for a store.
        """
        with self._lock:
            fingerprint = self._store.fingerprint()
            known = self._predictors.get(api)
            if known is None or known[0] != fingerprint:
                find = current_predictor if is_here else borrowed_predictor
                known = (fingerprint, find(self._store, api))
                self._predictors[api] = known
            return known[1]

    def histories(self, subject: Subject) -> dict[str, BackendHistory]:
        """What each backend did with a model here."""
        runs = self._store.list_runs(model_id=subject.model.model_id, limit=None)
        return read_history(runs, machine_id=subject.machine_id)

    def quality_costs(self, subject: Subject) -> dict[tuple[str, str], QualityCost]:
        """What each judged cache costs a model."""
        return self._store.quality_costs(subject.model.model_id)

    def forget(self) -> None:
        """Look at everything again next time."""
        with self._lock:
            self._subjects.clear()
            self._predictors.clear()

    def _meet(self, file: ModelFile) -> Subject:
        machine, gpus = self._detector.machine(), self._detector.engines.gpus()
        try:
            return register_subject(
                file.path, file.facts, machine, self._store, engine_gpus=gpus or None
            )
        except AutotuneError as error:
            _log.warning("%s is not registered: %s", file.path, error)
            return self._unregistered(file, machine, gpus)

    def _unregistered(
        self, file: ModelFile, machine: MachineFacts, gpus: Sequence[EngineDevice]
    ) -> Subject:
        """The subject of a store that cannot be written: what it lacks is looked up, not kept."""
        identity = machine_id(machine)
        probe = self._store.load_probe(identity) or probe_machine(
            machine.n_processors, cache_l3_bytes=machine.cache_l3_bytes
        )
        disk = self._store.load_disk(file.facts.model_id, file.path) or probe_disk(file.path)
        return Subject(
            model_path=file.path,
            model=file.facts,
            machine_id=identity,
            machine=dataclasses.replace(machine, gpus=merge_devices(machine.gpus, gpus)),
            probe=probe,
            disk=disk,
        )


def for_engine(subject: Subject, engine: Engine) -> Subject:
    """The subject as one engine sees it: only the GPUs that this one can use have a device."""
    if not subject.machine.gpus:
        return subject
    plain = [dataclasses.replace(gpu, device=None) for gpu in subject.machine.gpus]
    seen = merge_devices(plain, engine.gpus)
    return dataclasses.replace(subject, machine=dataclasses.replace(subject.machine, gpus=seen))


def has_gpu(subject: Subject) -> bool:
    """Whether an engine can use a GPU here."""
    return any(gpu.device and gpu_api(gpu.device) for gpu in subject.machine.gpus)
