"""tune, as a newcomer runs it, on both real models: winner against the newcomer's default."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.models import models
from tests.benchmarks.table import print_table


def main() -> None:
    """Print both speedups with the runs behind them."""
    rows = []
    for name, path in models():
        with tempfile.TemporaryDirectory() as folder:
            answer = _autotune("tune", str(path), "--db", str(Path(folder) / "store.db"))
        changed = {
            knob: value
            for knob, value in answer["winner"]["config"].items()
            if value != answer["default"]["config"][knob]
        }
        rows.append(
            (name, _rate(answer["default"]), _rate(answer["winner"]),
             f"{answer['speedup']['decode']:.2f}×", f"{answer['speedup']['request']:.2f}×",
             str(answer["trials"]), f"{answer['elapsed_s']:.0f} s",
             " ".join(f"{knob}={value}" for knob, value in changed.items()) or "default")
        )  # fmt: skip
    headers = ("model", "default decode", "winner decode", "decode", "request", "trials", "time",
               "changed knobs")  # fmt: skip
    print_table("tune against the newcomer's default, in one run", headers, rows)


def _autotune(*words: str) -> dict[str, dict[str, dict[str, float]]]:
    command = [sys.executable, "-m", "autotune", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _rate(side: dict[str, object]) -> str:
    spread = side["measured"]["decode_tps"]  # type: ignore[index]
    return f"{spread['median']:.1f} ({spread['low']:.1f} – {spread['high']:.1f})"
