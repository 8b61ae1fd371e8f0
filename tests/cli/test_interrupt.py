"""Ctrl-C at any point: silence, exit 130, no orphan, nothing half-written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

COMMAND = (sys.executable, "-m", "autotune")


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal are POSIX")
@pytest.mark.parametrize("after_s", [0.05, 0.4, 1.5, 3.0, 5.0])
def test_ctrl_c_leaves_a_clean_machine(smollm2_path: Path, home: Path, after_s: float) -> None:
    """While importing, opening the store, probing, loading or measuring."""
    process = subprocess.Popen(
        [*COMMAND, "tune", str(smollm2_path), "--n-ctx", "1024"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after_s)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    # An interpreter that has not reached our code yet dies by the signal itself.
    assert process.returncode in {130, -signal.SIGINT}
    assert "Traceback" not in err or after_s < 0.1
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert open_runs(home / "autotune.db") == 0


def open_runs(store: Path) -> int:
    """Rows that claim to be running; 0 for a store that was never made."""
    if not store.exists():
        return 0
    with closing(sqlite3.connect(store)) as connection:
        try:
            query = "SELECT count(*) FROM load_run WHERE state = 'running'"
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # interrupted before the first migration
            return 0


def test_the_next_command_works_after_an_interruption(smollm2_path: Path, home: Path) -> None:
    """Whatever was stopped, the store is usable and says what was cancelled."""
    process = subprocess.Popen(
        [*COMMAND, "bench", str(smollm2_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while open_runs(home / "autotune.db") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    done = subprocess.run([*COMMAND, "runs"], capture_output=True, text=True, check=True)

    assert "cancelled" in done.stdout
