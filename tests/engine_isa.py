"""What the installed llama.cpp was built to use: not always all that the processor has."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from autotune.domain.units import MIB
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


def copies_bytes(path: Path, repacks: frozenset[str]) -> int:
    """Size of the repacked copies of a model."""
    return Weights(read_model(path), repacks).repacked


def assumed_copies_bytes(path: Path) -> int:
    """The same as is assumed of this processor: that the engine uses all of it."""
    return copies_bytes(path, repacked_types(read_machine().isa))


def room_for_copies_mb(path: Path) -> int:
    """What the assumed copies need, with the reserve of a tenth."""
    return math.ceil(assumed_copies_bytes(path) / 0.9 / MIB)
