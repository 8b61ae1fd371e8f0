"""Every configuration of a full factorial, measured: what searches are judged on.

``python -m tests.benchmarks.factorial NAME [PASSES]`` measures for 10 to 15 minutes a pass, in an
order that is dealt anew for each, every run in a process of its own, and writes
``tests/benchmarks/data/factorial/NAME.db.xz``: a store like any other, with machine, models,
samples and the prediction of every run. Name it after the processor. Nothing else may run
meanwhile. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import contextlib
import itertools
import lzma
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.errors import ConfigError
from autotune.domain.run import Purpose, Run
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine
from autotune.facts.pagecache import evict, residency
from autotune.measure.runner import LocalRunner
from autotune.predict.predictor import Predictor
from autotune.recommend.subject import register_subject
from autotune.store.store import Store
from autotune.tune.recording import RecordedRunner
from tests.benchmarks.models import FOLDER, models

STORES = Path(__file__).parent / "data" / "factorial"
"""One for each machine."""
BACKEND = "llama-cpp-python"
WORKLOADS = (Workload(n_prompt=128, n_gen=16), Workload(n_prompt=128, n_gen=16, n_depth=512))
CACHES = (("off", "f16"), ("on", "f16"), ("on", "q8_0"))
"""Flash attention and the element type of the cache; a quantised cache needs the former."""


_COLD_EVERY = 17
"""One case in so many is run once more, after its file was evicted from the page cache."""


def configs(n_threads: int) -> list[Config]:
    """The factorial, the newcomer's default of this context first."""
    threads = range(1, n_threads + 1)
    default = Config(n_ctx=1024, n_threads=max(n_threads // 2, 1), n_threads_batch=n_threads)
    found = [default]
    for decode, prefill, n_ubatch, (flash_attn, kind) in itertools.product(
        threads, threads, (32, 128, 512), CACHES
    ):
        try:
            found.append(
                default.replace(
                    n_threads=decode, n_threads_batch=prefill, n_ubatch=n_ubatch,
                    flash_attn=flash_attn, type_k=kind, type_v=kind,
                )
            )  # fmt: skip
        except ConfigError:
            continue
    return list(dict.fromkeys(found))


def measure(store: Store, *, passes: int, native: Path) -> Iterator[Run]:
    """Every configuration of every model under every workload, once a pass, in random order."""
    machine = read_machine()
    subjects = [register_subject(path, read_model(path), machine, store) for path in _files(native)]
    work = [
        subject.case(BACKEND, config, workload)
        for subject in subjects
        for workload in WORKLOADS
        for config in configs(machine.n_processors)
    ]
    of_model = {subject.model.model_id: subject for subject in subjects}
    physics = Predictor().fit([])
    jobs = [(case, False) for case in work] + [(case, True) for case in work[::_COLD_EVERY]]
    for number in range(passes):
        for case, is_cold in random.Random(number).sample(jobs, len(jobs)):
            subject = of_model[case.model.model_id]
            if is_cold:
                evict(subject.model_path)
            recorded = RecordedRunner(
                subject,
                LocalRunner(BACKEND, residency=residency),
                store,
                memory_limit_bytes=None,
            )
            prediction = physics.forecast([case]).prediction(0)
            _, run = recorded.run(
                case, prediction, purpose=Purpose.EXPLORE, n_reps=1, sampling_s=2.0
            )
            yield run


def _files(native: Path) -> list[Path]:
    """SmolLM2 in Q4_1 and, made from it, in Q8_0; gemma-3 in Q4_K_M."""
    (_, smollm2), (_, gemma3) = models()
    requantised = FOLDER / "SmolLM2-135M-Instruct.Q8_0.gguf"
    if not requantised.exists():
        command = [native / "llama-quantize", "--allow-requantize", smollm2, requantised, "Q8_0"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return [smollm2, gemma3, requantised]


def pack(database: Path, name: str) -> None:
    """The store as a fixture: without the folders of this machine."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for table, column in (("model_location", "path"), ("load_run", "model_path")):
            query = f"SELECT DISTINCT {column} FROM {table}"
            for (path,) in connection.execute(query).fetchall():
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",
                    (Path(path).name, path),
                )
        connection.execute("UPDATE model_location SET mount = NULL")
        connection.execute("UPDATE load_run SET log_excerpt = '', recorder_birth = NULL")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
    STORES.mkdir(parents=True, exist_ok=True)
    (STORES / f"{name}.db.xz").write_bytes(lzma.compress(database.read_bytes(), preset=9))


def unpacked(name: str, database: Path) -> Path:
    """The store of a machine, written to this path."""
    database.write_bytes(lzma.decompress((STORES / f"{name}.db.xz").read_bytes()))
    return database


def machines() -> tuple[str, ...]:
    """Names of those that were measured."""
    return tuple(sorted(path.name.removesuffix(".db.xz") for path in STORES.glob("*.db.xz")))


def factorial() -> tuple[Observation, ...]:
    """What was measured on all machines."""
    found: list[Observation] = []
    for name in machines():
        with tempfile.TemporaryDirectory() as folder:
            database = unpacked(name, Path(folder) / "factorial.db")
            with Store.open(database, now=lambda: datetime.now(UTC)) as store:
                found.extend(store.observations())
    return tuple(found)


def main(native: Path, name: str, passes: int = 6) -> None:
    """Measure and pack, with a line for each run."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "factorial.db"
        with (
            Store.open(database, now=lambda: datetime.now(UTC)) as store,
            contextlib.suppress(KeyboardInterrupt),
        ):
            for number, run in enumerate(measure(store, passes=passes, native=native), start=1):
                print(number, run.reason or "ok", run.trial.workload.label)
        pack(database, name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name the processor: python -m tests.benchmarks.factorial NAME [PASSES]")
    main(Path(".native/bin").resolve(), sys.argv[1], *map(int, sys.argv[2:]))
