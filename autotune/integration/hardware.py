"""What the machine is: the guide's ``HardwareDetector``.

As in the guide, MB are mebibytes (1024² bytes).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any

from autotune.domain.errors import AutotuneError
from autotune.domain.machine import GPUFacts, MachineFacts, MachineState
from autotune.domain.units import MIB
from autotune.facts.devices import lookup
from autotune.facts.gpu import merge_devices
from autotune.facts.machine import machine_id, read_machine, read_state
from autotune.integration.address import default_db
from autotune.integration.engines import Engines
from autotune.integration.standing import rank_backends
from autotune.store.engine import Database
from autotune.store.usage import Usage, read_usages

_KEEP_S = 30.0
"""Free memory is old by then; nothing else changes so fast."""
LATEST = 500
"""Uses that a backend's standing rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUInfo:
    """One GPU."""

    name: str
    memory_mb: int
    """All of its memory, MB."""
    free_mb: int | None
    """Of it free, MB; None where nobody tells."""
    device: str | None
    """The engine's name of it, such as ``CUDA0``; None where no installed engine can use it."""
    driver: str | None
    bandwidth_gb_s: float | None
    """Published memory bandwidth, 10⁹ bytes per second; None for a GPU that is not listed."""

    @classmethod
    def of(cls, gpu: GPUFacts) -> GPUInfo:
        """From the facts of a GPU."""
        published = lookup(gpu.name)
        return cls(
            name=gpu.name,
            memory_mb=(gpu.total_bytes or 0) // MIB,
            free_mb=None if gpu.free_bytes is None else gpu.free_bytes // MIB,
            device=gpu.device,
            driver=gpu.driver,
            bandwidth_gb_s=published.read_bytes_per_s / 1e9 if published else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareInfo:
    """One machine. Memory in MB (mebibytes)."""

    gpu_count: int
    """GPUs that the driver or an engine sees."""
    total_vram: int
    """Memory of all GPUs, MB."""
    cpu_cores: int
    """Physical cores that this process may use: affinity and container quota count."""
    total_ram: int
    """Memory of the machine, or of the container where that has less, MB."""
    recommended_backend: str | None
    """The installed backend that has proven itself most on this machine; None without any."""
    gpus: tuple[GPUInfo, ...] = ()
    cpu: str = ""
    """Marketing name of the processor."""
    cpu_threads: int = 1
    """Processors that this process may use, hyper-threads included."""
    available_ram: int = 0
    """Memory that a new process can take without swapping, MB."""
    installed_backends: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why that backend is recommended, a line each."""

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON-ready."""
        values = dataclasses.asdict(self)
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | lists


class HardwareDetector:
    """Looks at the machine. It never needs a GPU, and what is not told is never guessed.

    ``history`` gives the uses of models on a machine by its number: what backends have proven. By
    default it is that of the store that ``environ`` names, if there is one; an optimizer lends its
    own. ``machine`` and ``state`` read the facts, ``clock`` tells seconds; the answer is kept for
    ``keep_s``.
    """

    def __init__(
        self,
        *,
        history: Callable[[str], Sequence[Usage]] | None = None,
        engines: Engines | None = None,
        machine: Callable[[], MachineFacts] = read_machine,
        state: Callable[[], MachineState] = read_state,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        keep_s: float = _KEEP_S,
    ) -> None:
        self.engines = engines or Engines(clock=clock)
        self._has_own_history = history is not None
        self._history = history or partial(_stored_history, default_db(environ))
        self._read_machine, self._read_state = machine, state
        self._clock, self._keep_s = clock, keep_s
        self._info: tuple[float, HardwareInfo] | None = None
        self._machine: MachineFacts | None = None
        self._lock = RLock()

    def get_hardware_info(self, *, refresh: bool = False) -> HardwareInfo:
        """The machine as it is, at most 30 s old; looked at again on ``refresh``.

        The first call asks each engine what it is: a second or a few.
        """
        with self._lock:
            now = self._clock()
            if refresh:
                self.clear_cache()
            if self._info is None or now - self._info[0] >= self._keep_s:
                self._info = (now, self._look())
            return self._info[1]

    def clear_cache(self) -> None:
        """Look again next time, also for engines that were installed meanwhile."""
        with self._lock:
            self._info = self._machine = None
            self.engines.forget()

    def machine(self) -> MachineFacts:
        """The facts of this machine, as the driver tells them; read once."""
        with self._lock:
            if self._machine is None:
                self._machine = self._read_machine()
            return self._machine

    def available_ram_bytes(self) -> int:
        """Memory that a new process can take without swapping, right now."""
        return self._read_state().ram_available_bytes

    def lend_history(self, history: Callable[[str], Sequence[Usage]]) -> None:
        """Use this history, unless the detector was made with one."""
        with self._lock:
            if not self._has_own_history:
                self._history, self._info = history, None

    def _look(self) -> HardwareInfo:
        self._machine = machine = self._read_machine()
        engines = self.engines.installed()
        gpus = merge_devices(machine.gpus, self.engines.gpus())
        ranking = rank_backends(engines, self._history(machine_id(machine)))
        return HardwareInfo(
            gpu_count=len(gpus),
            total_vram=sum((gpu.total_bytes or 0) // MIB for gpu in gpus),
            cpu_cores=usable_cores(machine),
            total_ram=(machine.usable_ram_bytes or 0) // MIB,
            recommended_backend=ranking[0].name if ranking else None,
            gpus=tuple(map(GPUInfo.of, gpus)),
            cpu=machine.cpu,
            cpu_threads=machine.n_processors,
            available_ram=self._read_state().ram_available_bytes // MIB,
            installed_backends=tuple(engines),
            reasons=ranking[0].reasons if ranking else (),
        )


def usable_cores(machine: MachineFacts) -> int:
    """Physical cores that this process may use."""
    return min(machine.n_physical or machine.n_processors, machine.n_processors)


HARDWARE_KEYS = ("gpu_count", "total_vram", "cpu_cores", "total_ram")
"""The guide's ``hardware_config``."""


def machine_numbers(info: HardwareInfo) -> Mapping[str, int]:
    """The four numbers by which the guide names a machine; memory in MB."""
    return {name: getattr(info, name) for name in HARDWARE_KEYS}


def _stored_history(address: str, machine: str) -> Sequence[Usage]:
    """The latest uses in a store; none where there is no store that can be read."""
    try:
        with Database.connect(address) as database:
            if database.is_there:
                return read_usages(database, machine_id=machine, limit=LATEST)
    except AutotuneError:
        pass
    return ()
