"""A neighbour that computes, on the real engine: its samples are marked, and only its."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.run import Run
from autotune.measure import watch
from autotune.measure.runner import LocalRunner
from tests.measure.test_runner import BACKEND, make_trial


def _spin() -> None:
    while True:
        pass


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that compute as long as the context lasts."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


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
    running: list[object] = []

    def end_at_second_sample(what: str) -> None:
        if what == "sample 3" and running:
            running.pop().__exit__(None, None, None)  # type: ignore[attr-defined]

    context = hogs(1)
    context.__enter__()
    running.append(context)
    try:
        run = LocalRunner(BACKEND).run(
            make_trial(smollm2_path, n_reps=1, sampling_s=30.0), notify=end_at_second_sample
        )
    finally:
        while running:
            running.pop().__exit__(None, None, None)  # type: ignore[attr-defined]

    dirty = [g for g in run.generations if g.contamination]
    clean = [g for g in run.generations if not g.contamination]
    assert dirty
    if clean:  # else somebody else was busy as well
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
