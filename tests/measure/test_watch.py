"""The watch: conditions of an interval, from planted files, a played driver and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.domain.conditions import Conditions, GPUState
from autotune.domain.run import DevicePeak
from autotune.facts.activity import ProcessorTime
from autotune.facts.gpu_state import GPUSensors
from autotune.measure.observe import Series, Span
from autotune.measure.watch import CPULook, Watch, foreign_cpu_ratio, steal_ratio
from autotune.measure.watch_gpu import Look, add_gpus, peak_vram, telling_looks
from tests.measure.test_observe import Clock


def no_gpus() -> None:
    """A machine without a driver."""


def plant(root: Path, **texts: str) -> None:
    """Write files of a system; double underscores separate folders."""
    for name, text in texts.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def pressure(total: int) -> str:
    """The text of one pressure file."""
    return f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n"


def test_counters_differ_by_what_happened_in_the_interval(tmp_path: Path) -> None:
    """Pressure as a share of the time, swapping in bytes, heat as a reason."""
    throttle = "sys__devices__system__cpu__cpu0__thermal_throttle__core_throttle_count"
    plant(
        tmp_path,
        proc__pressure__cpu=pressure(1_000_000),
        proc__pressure__io=pressure(0),
        proc__vmstat="pswpin 10\npswpout 10\n",
        **{throttle: "5"},
    )
    clock = Clock()
    with Watch(os.getpid(), clock=clock, root=tmp_path, open_gpus=no_gpus) as watch:
        clock.at = 10.0
        since = watch.start()
        clock.at = 14.0
        plant(
            tmp_path,
            proc__pressure__cpu=pressure(2_000_000),
            proc__vmstat="pswpin 12\npswpout 15\n",
            **{throttle: "6"},
        )
        seen = watch.conditions(since)
        clock.at = 15.0
        after = watch.conditions(14.5)

    assert seen.cpu_pressure_ratio == pytest.approx(0.25)
    assert seen.io_pressure_ratio == 0
    assert seen.memory_pressure_ratio is None
    assert seen.swapped_bytes == 7 * os.sysconf("SC_PAGE_SIZE")
    assert seen.throttle == ("cpu_thermal",)
    assert after.throttle == ()


def test_gauges_are_read_meanwhile(tmp_path: Path) -> None:
    """The clock's median and lowest, over the looks of the interval alone."""
    clock_file = "sys__devices__system__cpu__cpu0__cpufreq__scaling_cur_freq"
    plant(tmp_path, **{clock_file: "800000"})
    clock = Clock()
    watch = Watch(os.getpid(), clock=clock, root=tmp_path, open_gpus=no_gpus)
    clock.at = 10.0
    since = watch.start()
    for khz in (4_000_000, 3_900_000, 3_000_000):
        clock.at += 1.0
        plant(tmp_path, **{clock_file: str(khz)})
        watch.poll()
    seen = watch.conditions(since)

    assert (seen.cpu_mhz, seen.cpu_mhz_min) == (3900, 3000)


def test_a_system_that_tells_nothing_leaves_nothing(tmp_path: Path) -> None:
    """None throughout, but for what psutil knows of the machine that runs the test."""
    watch = Watch(os.getpid(), root=tmp_path, open_gpus=no_gpus)
    seen = watch.conditions(watch.start())

    assert seen.throttle is None
    assert (seen.swapped_bytes, seen.cpu_mhz, seen.cpu_pressure_ratio) == (None, None, None)
    assert (watch.peak_pss_bytes, watch.peak_vram) == (None, ())


def cpu_span(
    *, elapsed_s: float, idle_s: float, own_s: float, steal_s: float = 0.0
) -> Span[CPULook]:
    """Two looks at a machine with two processors."""

    def look(share: float) -> CPULook:
        machine = ProcessorTime(
            n_processors=2, idle_s=100 + share * idle_s, steal_s=share * steal_s
        )
        return CPULook(machine=machine, own_s=7 + share * own_s)

    return Span(first=look(0), last=look(1), elapsed_s=elapsed_s)


def test_foreign_time_is_neither_idle_nor_our_own() -> None:
    """One second of two processors: half idle, half ours, nothing left; then half ours is not."""
    assert foreign_cpu_ratio(cpu_span(elapsed_s=1, idle_s=1.0, own_s=1.0)) == 0
    assert foreign_cpu_ratio(cpu_span(elapsed_s=1, idle_s=0.0, own_s=1.0)) == pytest.approx(0.5)
    assert foreign_cpu_ratio(cpu_span(elapsed_s=1, idle_s=1.9, own_s=0.0)) == pytest.approx(0.05)


def test_rounding_makes_no_negative_share() -> None:
    """Idle time is told in steps of 10 ms."""
    assert foreign_cpu_ratio(cpu_span(elapsed_s=0.1, idle_s=0.11, own_s=0.1)) == 0


def test_stolen_time_is_foreign_and_told_apart() -> None:
    """A hypervisor that takes a quarter of the machine."""
    span = cpu_span(elapsed_s=1, idle_s=0.0, own_s=1.5, steal_s=0.5)
    assert foreign_cpu_ratio(span) == pytest.approx(0.25)
    assert steal_ratio(span) == pytest.approx(0.25)


def spin(seconds: float) -> subprocess.Popen[bytes]:
    """A process that computes for that long."""
    code = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_real_hog_is_foreign_and_the_observed_process_is_not() -> None:
    """The same spinning process, seen as a neighbour and as the one that is measured."""
    with spin(2.5) as hog:
        time.sleep(0.3)
        neighbour = Watch(os.getpid(), open_gpus=no_gpus)
        measured = Watch(hog.pid, open_gpus=no_gpus)
        seen = []
        for watch in (neighbour, measured):
            since = watch.start()
            time.sleep(0.7)
            seen.append(watch.conditions(since).foreign_cpu_ratio)
        hog.wait()

    one_core = 1 / (os.cpu_count() or 1)
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0] > 0.7 * one_core
    assert seen[1] < seen[0]


def test_a_short_interval_is_judged_with_the_time_before_it() -> None:
    """Ten milliseconds are one step of the kernel's idle time: they would read 0 or 50 %."""
    with spin(2.0) as hog:
        time.sleep(0.3)
        watch = Watch(os.getpid(), open_gpus=no_gpus)
        deadline = time.monotonic() + 1.2
        while time.monotonic() < deadline:
            watch.poll()
            time.sleep(0.02)
        since = watch.start()
        time.sleep(0.01)
        seen = watch.conditions(since)
        hog.wait()

    assert seen.foreign_cpu_ratio is not None
    assert seen.foreign_cpu_ratio > 0.7 / (os.cpu_count() or 1)
    assert seen.contamination


def test_a_short_interval_after_a_pause_is_not_judged() -> None:
    """What others did while nobody looked says nothing of it; a long one judges itself."""
    clock = Clock()
    watch = Watch(os.getpid(), clock=clock, open_gpus=no_gpus)
    clock.at = 1000.0
    since = watch.start()
    clock.at = 1000.01
    short = watch.conditions(since)
    clock.at = 1002.0
    long = watch.conditions(since)

    assert short.foreign_cpu_ratio is None
    assert short.steal_ratio is None
    assert long.foreign_cpu_ratio is not None


def test_a_watch_of_days_keeps_little(tmp_path: Path) -> None:
    """However long it looked before: what it needs for peaks, and the last looks."""
    plant(tmp_path, proc__vmstat="pswpin 10\npswpout 10\n")
    clock = Clock()
    watch = Watch(os.getpid(), clock=clock, root=tmp_path, open_gpus=no_gpus)
    for second in range(1, 500):
        clock.at = float(second)
        watch.poll()
        watch.forget(second - 5.0)
    seen = watch.conditions(watch.start() - 2)

    assert seen.swapped_bytes == 0
    assert all(len(gauge.series.values) < 60 for gauge in watch._gauges)


def test_a_watch_over_a_process_that_is_gone_is_silent() -> None:
    """No look raises; the conditions are those of the machine."""
    with spin(0.0) as process:
        watch = Watch(process.pid)
        process.wait()
    since = watch.start()
    watch.poll()

    assert isinstance(watch.conditions(since), Conditions)


MB = 1_000_000


def gpu(device: str = "A", **state: object) -> GPUState:
    """A look at one GPU."""
    return GPUState(device=device, **state)  # type: ignore[arg-type]


def series_of(*looks: Look) -> Series[Look]:
    """Looks a second apart, from 1 on."""
    series: Series[Look] = Series()
    for moment, look in enumerate(looks, 1):
        series.add(float(moment), look)
    return series


def test_memory_is_what_the_driver_books_to_the_process() -> None:
    """Its peak over the looks, of each GPU; one that holds nothing of it is not in use."""
    looks = [
        (gpu("A", process_bytes=None, used_bytes=MB), gpu("B", used_bytes=MB)),
        (gpu("A", process_bytes=700 * MB, used_bytes=800 * MB), gpu("B", used_bytes=3 * MB)),
        (gpu("A", process_bytes=500 * MB, used_bytes=800 * MB), gpu("B", used_bytes=2 * MB)),
    ]
    assert peak_vram(looks) == (DevicePeak(device="A", n_bytes=700 * MB),)
    assert peak_vram(telling_looks(looks)) == peak_vram(looks)
    assert peak_vram([]) == ()


def test_where_the_driver_knows_no_process_the_rise_is_its_memory() -> None:
    """In a container: what is in use above what was in use before."""
    looks = [(gpu(used_bytes=300 * MB),), (gpu(used_bytes=1300 * MB),), (gpu(used_bytes=900 * MB),)]
    assert peak_vram(looks) == (DevicePeak(device="A", n_bytes=1000 * MB),)
    assert peak_vram(telling_looks([*looks, *looks[2:] * 50])) == peak_vram(looks)
    assert len(telling_looks(looks * 50)) == 3


def test_gpus_in_use_tell_their_conditions() -> None:
    """Utilisation and power as means, energy by the counter, the slowest clock, every reason."""
    busy = {"process_bytes": 500 * MB, "utilisation_ratio": 0.9, "power_w": 300.0}
    series = series_of(
        (gpu("A", energy_j=1000.0), gpu("B", energy_j=5.0)),
        (gpu("A", **busy, energy_j=1300.0, clock_mhz=1800, temperature_celsius=60, throttle=()),
         gpu("B", utilisation_ratio=0.0, power_w=50.0, clock_mhz=200, throttle=("hw_slowdown",))),
        (gpu("A", **busy, energy_j=1600.0, clock_mhz=1500, temperature_celsius=71,
             throttle=("sw_thermal_slowdown",)), gpu("B", power_w=50.0)),
    )  # fmt: skip
    seen = add_gpus(Conditions(throttle=("cpu_thermal",)), series, 1.5)

    assert (seen.gpu_utilisation_ratio, seen.gpu_power_w, seen.gpu_energy_j) == (0.9, 300, 600)
    assert (seen.gpu_clock_mhz, seen.gpu_clock_mhz_min, seen.gpu_celsius_max) == (1650, 1500, 71)
    assert seen.throttle == ("cpu_thermal", "sw_thermal_slowdown")


def test_energy_without_a_counter_is_power_times_time() -> None:
    """Boards before Volta."""
    look = (gpu(process_bytes=MB, power_w=100.0),)
    assert add_gpus(Conditions(), series_of(look, look, look), 1.0).gpu_energy_j == 200
    silent = (gpu(process_bytes=MB),)
    assert add_gpus(Conditions(), series_of(silent, silent), 1.0).gpu_energy_j is None


def test_a_run_that_uses_no_gpu_has_no_gpu_conditions() -> None:
    """The desktop's GPU may be as hot as it likes."""
    look = (gpu(used_bytes=MB, utilisation_ratio=1.0, throttle=("hw_slowdown",)),)
    assert add_gpus(Conditions(), series_of(look, look), 1.0) == Conditions()


class PlayedSensors:
    """Sensors with one GPU, open until closed."""

    def __init__(self) -> None:
        self.is_open = True

    def read(self, pid: int) -> Look:
        return (gpu(process_bytes=pid, energy_j=1.0, power_w=10.0),)

    def close(self) -> None:
        self.is_open = False


def test_a_watch_looks_at_gpus_and_hangs_up_at_its_end() -> None:
    """The driver is asked for the observed process, and let go with the watch."""
    sensors = PlayedSensors()
    open_gpus: Callable[[], GPUSensors] = lambda: sensors  # type: ignore[assignment,return-value] # noqa: E731
    with Watch(os.getpid(), open_gpus=open_gpus) as watch:
        seen = watch.conditions(watch.start())
        assert watch.peak_vram == (DevicePeak(device="A", n_bytes=os.getpid()),)

    assert seen.gpu_power_w == 10
    assert not sensors.is_open
