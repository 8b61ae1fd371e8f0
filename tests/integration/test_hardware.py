"""What the machine is, and which backend has proven itself on it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autotune.domain.errors import UserError
from autotune.domain.machine import GPUFacts, MachineFacts, MachineState
from autotune.domain.run import Reason
from autotune.facts.gpu import EngineDevice
from autotune.facts.machine import read_machine
from autotune.integration.engines import Engines, require_backend
from autotune.integration.hardware import HardwareDetector
from autotune.integration.standing import rank_backends
from autotune.measure.engine import Engine
from tests.factories import make_build, make_machine
from tests.integration.detectors import LIBRARY, SERVER, ask, make_detector
from tests.integration.usages import make_usage

GIB = 1024**3
GPU = GPUFacts(name="NVIDIA GeForce RTX 4090", total_bytes=24 * GIB, free_bytes=20 * GIB)


def detector(machine: MachineFacts, **options: object) -> HardwareDetector:
    return HardwareDetector(
        **{
            "engines": Engines(ask=ask),
            "machine": lambda: machine,
            "state": lambda: MachineState(ram_available_bytes=3 * GIB),
            "environ": {},
            **options,
        }
    )


def test_this_machine_is_told_in_the_words_of_the_guide() -> None:
    """The numbers are the machine's own, memory in MB, and the whole is JSON."""
    machine = read_machine()
    assert machine.ram_bytes is not None

    info = make_detector().get_hardware_info()

    assert info.gpu_count == len(machine.gpus)
    assert info.total_ram == (machine.usable_ram_bytes or 0) // 1024**2
    assert 1 <= info.cpu_cores <= machine.n_processors
    assert json.loads(json.dumps(info.to_dict()))["total_vram"] == info.total_vram
    assert info.installed_backends == (LIBRARY, SERVER)


def test_a_gpu_is_told_with_what_is_published_of_it() -> None:
    """VRAM counts whether an engine can use it or not; the engine's name says whether it can."""
    info = detector(make_machine(gpus=(GPU,))).get_hardware_info()

    assert (info.gpu_count, info.total_vram) == (1, 24 * 1024)
    assert (info.gpus[0].free_mb, info.gpus[0].device) == (20 * 1024, None)
    assert info.gpus[0].bandwidth_gb_s == 1008


def test_a_gpu_that_only_an_engine_sees_counts() -> None:
    """A graphics core without NVIDIA's driver is found through the engine."""
    seen = EngineDevice(name="Vulkan0", description="AMD Radeon RX 7800 XT", total_bytes=16 * GIB)

    def ask_vulkan(name: str) -> Engine:
        return replace(ask(name), gpus=(seen,))

    info = detector(make_machine(), engines=Engines(ask=ask_vulkan)).get_hardware_info()

    assert (info.gpu_count, info.total_vram, info.gpus[0].device) == (1, 16 * 1024, "Vulkan0")


def test_a_container_with_less_counts_as_less() -> None:
    """Limits of the cgroup are the machine's, as far as a model is concerned."""
    machine = make_machine(n_physical=8, n_usable=1, ram_bytes=64 * GIB, ram_limit_bytes=2 * GIB)

    info = detector(machine).get_hardware_info()

    assert (info.cpu_cores, info.cpu_threads, info.total_ram) == (1, 1, 2048)


def test_the_answer_is_kept_for_a_while_and_looked_up_on_request() -> None:
    """Thirty seconds, or until somebody asks to refresh."""
    seconds = [0.0]
    memory = [1 * GIB]
    found = detector(
        make_machine(),
        state=lambda: MachineState(ram_available_bytes=memory[0]),
        clock=lambda: seconds[0],
    )
    assert found.get_hardware_info().available_ram == 1024
    memory[0] = 2 * GIB

    assert found.get_hardware_info().available_ram == 1024
    assert found.get_hardware_info(refresh=True).available_ram == 2048
    memory[0], seconds[0] = 3 * GIB, 31.0
    assert found.get_hardware_info().available_ram == 3072


def test_without_any_engine_nothing_is_recommended() -> None:
    """A machine with nothing installed is described all the same."""

    def missing(name: str) -> Engine:
        return ask(f"{name} of nowhere")

    info = detector(make_machine(), engines=Engines(ask=missing)).get_hardware_info()

    assert info.recommended_backend is None
    assert info.installed_backends == ()


def test_the_recommended_backend_is_the_one_that_proved_itself() -> None:
    """Faster with the same model beats the usual order; failing beats everything."""
    quick = [make_usage(backend=SERVER, decode_tps=90.0), make_usage(decode_tps=60.0)]
    failing = [make_usage(reason=Reason.CRASH, success_ratio=0.0)]

    for used, expected in (([], LIBRARY), (quick, SERVER), (failing, SERVER)):
        history = {"history": lambda _machine, used=used: used}
        assert (
            detector(make_machine(), **history).get_hardware_info().recommended_backend == expected
        )


def test_before_any_run_engines_that_read_todays_files_come_first() -> None:
    """The guide's order alone would name the one whose library is from 2023."""
    engine = Engine(build=make_build(), gpus=())

    names = [s.name for s in rank_backends({"ctransformers": engine, LIBRARY: engine}, [])]

    assert names == [LIBRARY, "ctransformers"]


def test_an_engine_is_asked_once() -> None:
    """Every question of a user would cost a second otherwise; after five minutes it is again."""
    asked: list[str] = []
    seconds = [0.0]

    def count(name: str) -> Engine:
        asked.append(name)
        return ask(name)

    engines = Engines(ask=count, clock=lambda: seconds[0])
    engines.find(LIBRARY)
    engines.find(LIBRARY)
    assert asked == [LIBRARY]
    seconds[0] = 301.0
    engines.find(LIBRARY)
    assert asked == [LIBRARY, LIBRARY]


def test_an_unknown_backend_is_named_with_those_that_are_known() -> None:
    """The cure is in the message."""
    with pytest.raises(UserError, match=r"'ollama': choose one of .*llama-cpp-python"):
        require_backend("ollama")
