"""What the installed llama.cpp was built to use: not always all that the processor has."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from autotune.facts.gguf import read_model
from autotune.facts.isa import normalise_isa
from autotune.facts.machine import read_machine
from autotune.facts.weights import Weights, repacked_types

_ASK = "import llama_cpp; print(llama_cpp.llama_print_system_info().decode())"


@cache
def engine_repacks() -> frozenset[str]:
    """Element types that the installed engine copies on this processor."""
    told = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    return repacked_types(normalise_isa(re.findall(r"(\w+) = 1", told.stdout)))


def assumed_copies_bytes(path: Path) -> int:
    """Size of the repacked copies that are expected of this processor."""
    return Weights(read_model(path), repacked_types(read_machine().isa)).repacked
