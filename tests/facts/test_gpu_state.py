"""What GPUs are doing, told by a driver that is played here."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.domain.conditions import GPUState
from autotune.facts.gpu_state import GPUSensors, decode_reasons
from tests.facts.conftest import RECORDED
from tests.facts.test_gpu import FakeNVML

BUSY = json.loads(
    (RECORDED / "nvml_busy.json").read_text(), object_hook=lambda fields: SimpleNamespace(**fields)
)


def driver(*gpus: dict[str, Any]) -> FakeNVML:
    """A driver with those GPUs."""
    nvml = FakeNVML(*gpus)
    nvml.NVML_CLOCK_SM = 1  # type: ignore[attr-defined]
    return nvml


def test_a_busy_gpu_tells_what_it_does() -> None:
    """Bytes, watts, joules, megahertz, degrees, and why it is not faster."""
    nvml = driver(vars(BUSY))
    with GPUSensors.open(nvml) as sensors:  # type: ignore[union-attr]
        assert sensors.read(4242) == (
            GPUState(
                device="GPU-5c1c0f2e",
                used_bytes=5_906_432_000,
                process_bytes=5_351_931_904,
                utilisation_ratio=0.97,
                power_w=312.417,
                energy_j=91_234_567.891,
                clock_mhz=1755,
                temperature_celsius=61,
                throttle=("sw_power_cap",),
            ),
        )
    assert nvml.open == 0


def test_what_a_gpu_does_not_tell_is_none() -> None:
    """An old board; a driver in another container, which knows no process of ours."""
    with GPUSensors.open(driver({"MemoryInfo": BUSY.MemoryInfo})) as sensors:  # type: ignore[union-attr]
        assert sensors.read(4242) == (GPUState(device="GPU 0", used_bytes=5_906_432_000),)
    with GPUSensors.open(driver(vars(BUSY))) as sensors:  # type: ignore[union-attr]
        (state,) = sensors.read(1)
        assert state.process_bytes is None


def test_the_drivers_older_name_of_the_reasons_is_known() -> None:
    """Before release 535 they were called throttle reasons."""
    old = {"CurrentClocksThrottleReasons": 0x48}
    with GPUSensors.open(driver(old)) as sensors:  # type: ignore[union-attr]
        (state,) = sensors.read(1)
    assert state.throttle == ("hw_slowdown", "hw_thermal_slowdown")


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x000, ()),
        (0x001, ()),  # idle
        (0x004, ("sw_power_cap",)),
        (0x0A1, ("sw_thermal_slowdown", "hw_power_brake_slowdown")),
        (0x102, ("applications_clocks_setting", "display_clock_setting")),
        (0x400, ("bit_10",)),
    ],
)
def test_reasons_have_names(bits: int, names: tuple[str, ...]) -> None:
    """A GPU at rest is not held back; what a later driver adds is kept by its bit."""
    assert decode_reasons(bits) == names


def test_no_driver_and_no_gpu_mean_no_sensors() -> None:
    """And nothing stays open."""
    without = driver()
    assert GPUSensors.open(without) is None
    assert without.open == 0
    assert GPUSensors.open(FakeNVML(vars(BUSY), starts=False)) is None


def test_sensors_can_be_closed_twice_and_then_see_nothing() -> None:
    """A look after the end is silent."""
    nvml = driver(vars(BUSY))
    sensors = GPUSensors.open(nvml)
    assert sensors is not None
    sensors.close()
    sensors.close()

    assert sensors.read(4242) == ()
    assert nvml.open == 0
