"""A subject is entered with what an engine said of the GPUs, and what is free on them now."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from autotune.domain.machine import GPUFacts
from autotune.facts.gpu import EngineDevice
from autotune.facts.machine import machine_id
from autotune.recommend.subject import register_subject
from autotune.store.store import Store
from tests.factories import make_machine
from tests.simulation import PROBE, SMALL

GIB = 1024**3
CARD = GPUFacts(name="Card", uuid="GPU-1", total_bytes=24 * GIB, free_bytes=23 * GIB)
DEVICE = EngineDevice(name="CUDA0", description="Card", total_bytes=23 * GIB, free_bytes=22 * GIB)


def test_what_is_free_is_asked_anew(tmp_path: Path) -> None:
    """The engine's names are remembered; another program has taken memory since."""
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(1 << 20))
    machine = make_machine(gpus=(CARD,), n_logical=4, n_physical=4, n_usable=4)
    later = dataclasses.replace(machine, gpus=(dataclasses.replace(CARD, free_bytes=GIB),))
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        store.record_machine(machine_id(machine), machine)
        store.record_probe(machine_id(machine), PROBE)
        asked = register_subject(path, SMALL, machine, store, engine_gpus=[DEVICE])
        known = register_subject(path, SMALL, later, store)

    assert [(gpu.device, gpu.free_bytes) for gpu in asked.machine.gpus] == [("CUDA0", 22 * GIB)]
    assert [(gpu.device, gpu.free_bytes) for gpu in known.machine.gpus] == [("CUDA0", GIB)]
