"""What another process does to a store: ``python -m tests.store.worker COMMAND FILE [N]``.

It says ``ready``, waits for a line, and does it; ``done`` when it is done.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from autotune.domain.run import Purpose
from autotune.domain.workload import Workload
from autotune.store.store import Store
from autotune.store.telemetry import Telemetry
from tests.factories import make_generation, make_run, make_trial
from tests.store.examples import MACHINE_ID, MODEL_ID, MODEL_PATH, begin, record_facts


def start(command: str, file: Path, n: int = 0) -> subprocess.Popen[str]:
    """The worker, ready; write a line to let it go on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.worker", command, str(file), str(n)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    expect(process, "ready")
    return process


def go(process: subprocess.Popen[str]) -> None:
    """Let it go on."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def expect(process: subprocess.Popen[str], word: str) -> None:
    """Wait until it says so."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for its end, which must be a good one."""
    expect(process, "done")
    with process:
        assert process.wait(timeout=30) == 0


def kill(process: subprocess.Popen[str]) -> None:
    """End it as the system would: without a word."""
    with process:
        process.kill()


def _open(file: Path, _n: int) -> None:
    _wait()
    _store(file).close()


def _increment(file: Path, n: int) -> None:
    """Read a number, write it one higher: n transactions."""
    with _store(file) as store:
        _wait()
        for _ in range(n):
            with store.database.write() as session:
                n_usable = session.scalar(text("SELECT n_usable FROM machine"))
                session.execute(text(f"UPDATE machine SET n_usable = {n_usable + 1}"))


def _begin(file: Path, _n: int) -> None:
    """Open a run and never close it."""
    with _store(file) as store:
        record_facts(store)
        begin(store)
        _wait()
        time.sleep(60)


def _use(file: Path, n: int) -> None:
    """Load a model and generate n times, as an application that ends without closing anything."""
    store = _store(file)
    record_facts(store)
    telemetry = Telemetry(store, now=lambda: datetime.now(UTC))
    trial = make_trial(model_path=MODEL_PATH, purpose=Purpose.USER)
    run = make_run(trial=trial, generations=())
    _wait()
    ticket = telemetry.loaded(run, machine_id=MACHINE_ID, model_id=MODEL_ID)
    workload = Workload(n_prompt=64, n_gen=32)
    for _ in range(n):
        telemetry.generated(ticket, make_generation(workload=workload, token_ns=(10_000_000,) * 32))
    _KEPT.append((store, telemetry))


def _use_on(file: Path, n: int) -> None:
    """The same, and go on until killed."""
    _use(file, n)
    _KEPT[0][1].flush()
    _say("written")
    time.sleep(60)


def _write(file: Path, _n: int) -> None:
    """Write rows and never commit them."""
    with _store(file) as store, store.database.write() as session:
        for i in range(1000):
            session.execute(
                text("INSERT INTO workload VALUES ('half' || :i, :i, 1, 0, 1)"),
                {"i": i},
            )
        _wait()
        time.sleep(60)


def _store(file: Path) -> Store:
    return Store.open(file, now=lambda: datetime.now(UTC))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _wait() -> None:
    _say("ready")
    sys.stdin.readline()


_KEPT: list[tuple[Store, Telemetry]] = []
_COMMANDS: dict[str, Callable[[Path, int], None]] = {
    "open": _open, "increment": _increment, "begin": _begin, "write": _write,
    "use": _use, "use_on": _use_on,
}  # fmt: skip

if __name__ == "__main__":
    _COMMANDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    _say("done")
