"""``python -m tests.benchmarks [NAME …]``: all figures, or the named ones. Nothing else running!"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks import fidelity

NATIVE = Path(".native/bin").resolve()
FIGURES = {"fidelity": lambda: fidelity.main(NATIVE)}

for figure in sys.argv[1:] or FIGURES:
    FIGURES[figure]()
