"""Cold and warm loads are two different quantities: the ratio, with the residency of each."""

from __future__ import annotations

import statistics
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.run import LoadTime, Run, Trial
from autotune.domain.workload import Workload
from autotune.facts.pagecache import evict, residency
from autotune.measure.runner import LocalRunner
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

PAIRS = 5


def main() -> None:
    """Interleaved cold and warm loads of both models."""
    rows = []
    for name, path in models():
        pairs = [(_load(path, cold=True), _load(path, cold=False)) for _ in range(PAIRS)]
        ratios = [_total_s(cold) / _total_s(warm) for cold, warm in pairs]
        rows.append(
            (name,
             f"{statistics.median(_total_s(cold) for cold, _ in pairs):.3f} s",
             f"{statistics.median(_total_s(warm) for _, warm in pairs):.3f} s",
             f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})",
             _residency(cold for cold, _ in pairs), _residency(warm for _, warm in pairs))
        )  # fmt: skip
    headers = ("model", "cold", "warm", "cold / warm", "residency cold", "residency warm")
    print_table(f"loads, {PAIRS} interleaved pairs", headers, rows)


def _load(path: Path, *, cold: bool) -> Run:
    if cold:
        evict(path)
    trial = Trial(
        model_path=path,
        config=Config(n_ctx=512, n_threads=2, n_threads_batch=2),
        workload=Workload(n_prompt=8, n_gen=1),
        n_reps=1,
        max_reps=1,
    )
    run = LocalRunner("llama-cpp-python", residency=residency).run(trial)
    assert run.ok, run.message
    return run


def _total_s(run: Run) -> float:
    load = run.load
    assert isinstance(load, LoadTime)
    return load.total_s


def _residency(runs: object) -> str:
    ratios = [run.cached_ratio for run in runs]  # type: ignore[attr-defined]
    return f"{min(ratios):.2f} – {max(ratios):.2f}"
