"""``python -m tests.benchmarks [NAME …]``: all figures, or the named ones. Nothing else running!"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import (
    fidelity,
    live,
    loads,
    memory,
    observers,
    original,
    prediction,
    recommending,
    repeatability,
    search,
    studies,
    telemetry,
    tuning,
)

NATIVE = Path(".native/bin").resolve()
FIGURES: dict[str, Callable[[], None]] = {
    "fidelity": lambda: fidelity.main(NATIVE),
    "loads": loads.main,
    "memory": lambda: memory.main(NATIVE),
    "observers": observers.main,
    "prediction": prediction.main,
    "recommending": recommending.main,
    "repeatability": repeatability.main,
    "search": search.main,
    "studies": studies.main,
    "telemetry": telemetry.main,
    "tuning": tuning.main,
    "live": lambda: live.main(NATIVE),
    "original": original.main,
}

if __name__ == "__main__":
    for figure in sys.argv[1:] or FIGURES:
        FIGURES[figure]()
