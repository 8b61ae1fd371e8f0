"""How long is the wait for a recommendation: of a command, and inside a running process?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from threadpoolctl import threadpool_limits

from autotune.domain.prediction import Target
from autotune.domain.stats import median
from autotune.domain.workload import Workload
from autotune.predict.life import current_predictor
from autotune.recommend.choose import recommend
from autotune.store.store import Store
from autotune.tune.framing import Wishes, frame_question
from tests.benchmarks.factorial import machines, unpacked
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

TIMES = 7


def main() -> None:
    """Print both, with an empty store and with those of the factorial."""
    (_, path), *_ = models()
    rows = []
    for name in ("", *machines()):
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "store.db"
            if name:
                unpacked(name, database)
            _command(path, database)  # probes the machine and fits, once
            cold = [_command(path, database) for _ in range(TIMES)]
            warm = _warm(path, database)
        rows.append(
            (name or "empty", f"{median(cold):.2f} s ({min(cold):.2f} – {max(cold):.2f})",
             f"{1e3 * median(warm):.0f} ms ({1e3 * min(warm):.0f} – {1e3 * max(warm):.0f})")
        )  # fmt: skip
    headers = ("store", "autotune recommend (bar 1.5 s)", "in a process (bar 50 ms)")
    print_table(f"a recommendation, {TIMES} times", headers, rows)


def _command(path: Path, database: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "autotune", "recommend", str(path), "--db", str(database)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _warm(path: Path, database: Path) -> list[float]:
    times = []
    with Store.open(database, now=lambda: datetime.now(UTC)) as store, threadpool_limits(1):
        question = frame_question(
            path, store, backend="llama-cpp-python", wishes=Wishes(workload=Workload()),
            environ=os.environ,
        )  # fmt: skip
        predictor = current_predictor(store, question.subject.api)
        for _ in range(TIMES + 1):
            started = time.perf_counter()
            recommend(
                predictor, question.cases, target=Target.BALANCED,
                default=question.study.default, available_bytes=question.available_bytes,
            )  # fmt: skip
            times.append(time.perf_counter() - started)
    return times[1:]
