"""The same configuration in fresh processes: how far do our medians spread, and do we notice when
somebody else uses the machine?"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
from collections.abc import Iterator
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.run import Run, Trial
from autotune.domain.workload import Workload
from autotune.measure.runner import LocalRunner
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

RUNS = 10
CONFIG = Config(n_ctx=1024, n_threads=2, n_threads_batch=2)
WORKLOAD = Workload(n_prompt=64, n_gen=16)
"""Small: two threads that share one core with a hog decode a few tokens per second."""


def main() -> None:
    """Ten quiet runs, then ten of which every second one has a hog on one core."""
    _, path = models()[0]
    quiet = [_measure(path) for _ in range(RUNS)]
    decode = [_decode_tps(run) for run in quiet]
    clean = statistics.median(decode)
    variation = statistics.stdev(decode) / statistics.mean(decode)
    print_table(
        f"{RUNS} fresh processes, nobody else",
        ("quantity", "median", "CV"),
        [("decode tok/s", f"{clean:.1f}", f"{variation:.2%}")],
    )
    rows = []
    for number in range(RUNS):
        hogged = number % 2 == 1
        with _hog() if hogged else contextlib.nullcontext():
            run = _measure(path)
        error = _decode_tps(run) / clean - 1
        marked = bool(run.contamination)
        verdict = "right" if abs(error) <= 0.05 else "marked" if marked else "WRONG AND UNMARKED"
        rows.append(
            (str(number), "hog" if hogged else "–", f"{_decode_tps(run):.1f}", f"{error:+.1%}",
             ", ".join(run.contamination) or "–", verdict)
        )  # fmt: skip
    headers = ("run", "neighbour", "decode tok/s", "error", "contamination", "verdict")
    print_table("every second run with a hog on one core", headers, rows)


def _measure(path: Path) -> Run:
    trial = Trial(model_path=path, config=CONFIG, workload=WORKLOAD, sampling_s=10.0)
    return LocalRunner("llama-cpp-python").run(trial)


def _decode_tps(run: Run) -> float:
    measurement = run.measurement
    assert measurement is not None, run.message
    assert measurement.decode_tps is not None
    return measurement.decode_tps.median


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def _hog() -> Iterator[None]:
    """One core kept busy by somebody else."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
