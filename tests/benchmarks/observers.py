"""What does observing cost? Processor time of the parent while a real engine is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.workload import Workload
from autotune.measure.observe import Observer
from autotune.measure.process import WorkerProcess
from autotune.measure.watch import Watch
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

SAMPLES = 20
WORKLOAD = Workload(n_prompt=128, n_gen=32)


def main() -> None:
    """Print the share of one core that waiting, memory and all observers together take."""
    rows = []
    for name, path in models():
        for what, share in (("memory alone", _share(path)), ("all", _share(path, Watch))):
            rows.append((name, what, f"{share:.2%}"))
    print_table("processor time of the parent", ("model", "observers", "of one core"), rows)


def _share(model: Path, watch_over: Callable[[int], Watch] | None = None) -> float:
    """CPU seconds of the parent per second of sampling."""
    config = Config(n_ctx=512, n_batch=256, n_ubatch=256, n_threads=1, n_threads_batch=1)
    with WorkerProcess("llama-cpp-python", deadline_s=600) as worker:
        worker.ask("load", path=str(model), config=config.as_dict())
        watch = watch_over(worker.pid) if watch_over else None
        observers: tuple[Observer, ...] = (watch,) if watch else ()
        cpu, wall = time.process_time(), time.monotonic()
        for seed in range(SAMPLES):
            since = watch.start() if watch else 0.0
            worker.ask("sample", *observers, workload=WORKLOAD.label, seed=seed)
            if watch:
                watch.conditions(since)
        return (time.process_time() - cpu) / (time.monotonic() - wall)
