"""A neighbour that computes, on the real engine: its samples are marked, and only its."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.run import Run
from autotune.measure import watch
from autotune.measure.runner import LocalRunner
from tests.measure.test_runner import BACKEND, make_trial


@contextmanager
def hogs(count: int) -> Iterator[Callable[[], None]]:
    """So many processes that compute, until the context ends or the given function is called."""
    code = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]

    def end() -> None:
        for process in processes:
            process.kill()
            process.wait()

    time.sleep(0.5)
    try:
        yield end
    finally:
        end()


def measure(model_path: Path) -> Run:
    """A short run that gives up on clean samples soon."""
    return LocalRunner(BACKEND).run(make_trial(model_path, sampling_s=1.0))


def test_a_run_beside_a_hog_is_marked(smollm2_path: Path) -> None:
    """One process on every core, for the whole run: load, samples and summary say so."""
    with hogs(os.cpu_count() or 1):
        run = measure(smollm2_path)

    assert run.ok, run.message
    assert Contamination.FOREIGN_CPU in run.contamination
    assert all(generation.contamination for generation in run.generations)
    assert Contamination.FOREIGN_CPU in run.load_contamination
    assert run.conditions.foreign_cpu_ratio is not None
    assert run.conditions.foreign_cpu_ratio > 0.2
    assert run.conditions.cpu_pressure_ratio is None or run.conditions.cpu_pressure_ratio > 0.2


def test_a_hog_that_ends_leaves_clean_samples(smollm2_path: Path) -> None:
    """What is made again after it is clean, and the summary is over that alone."""
    trial = make_trial(smollm2_path, n_reps=2, sampling_s=30.0)
    with hogs(1) as end:

        def notify(what: str) -> None:
            if what == "sample 3":
                end()

        run = LocalRunner(BACKEND).run(trial, notify=notify)

    clean = [generation for generation in run.generations if not generation.contamination]
    assert run.generations[0].contamination
    if clean:  # else somebody else is busy on this machine
        assert run.measurement is not None
        assert run.measurement.decode_tps is not None
        assert run.measurement.decode_tps.n == len(clean)


def test_the_guard_can_fail(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a watch that takes foreign time for idle marks nothing."""
    monkeypatch.setattr(watch, "foreign_cpu_ratio", lambda _span: 0.0)
    with hogs(os.cpu_count() or 1):
        run = measure(smollm2_path)

    assert Contamination.FOREIGN_CPU not in run.contamination


def test_a_watched_run_tells_its_conditions(smollm2_path: Path) -> None:
    """Of the run and of each sample; processor time of both phases; proportional memory."""
    run = measure(smollm2_path)

    assert run.conditions != Conditions()
    assert run.conditions.load_1m is not None
    assert run.peak_vram == ()
    for generation in run.generations:
        assert generation.conditions.foreign_cpu_ratio is not None
        assert generation.prefill_cpu_ns
        assert generation.decode_cpu_ns
    if run.peak_pss_bytes is not None:
        assert run.peak_rss_bytes is not None
        assert 0 < run.peak_pss_bytes <= run.peak_rss_bytes
