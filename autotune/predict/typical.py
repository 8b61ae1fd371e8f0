"""What to expect of an engine before it was run: the share of each roofline that it reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autotune.domain.engine import CTRANSFORMERS, LLAMA_CPP, TRANSFORMERS
from autotune.features.case import Array

_FACTOR_TWO = 0.42
"""Physics alone: a factor of two either way covers 90 % (public single-GPU telemetry: bandwidth
use 0.52–0.79 between quartiles; prefill 0.2–0.95 of peak)."""


PROCESS_MIB, PROCESS_SD_MIB = 56.0, 5.0
"""Of llama.cpp's process: a worker holds 49 MiB before it loads, any model adds 7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """Of one phase: natural log of measured over roofline time."""

    host: float
    gpu: float
    launch_ms: float = 0.0
    """What a GPU adds to each layer, whatever it computes: launches and barriers."""
    sd: float = _FACTOR_TWO

    def mean(self, on_gpu: npt.NDArray[np.bool_], layer_ms: Array) -> Array:
        """Of cases on a GPU or not whose layers take ``layer_ms`` by the roofline; (n_cases,)."""
        gpu = np.log(np.exp(self.gpu) + self.launch_ms / layer_ms)
        return np.where(on_gpu, gpu, self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """What to expect of an engine."""

    slowdown: Mapping[str, Slowdown]
    """Of each phase."""
    process_mib: float = PROCESS_MIB
    """Interpreter and libraries, with what any model adds."""
    process_sd_mib: float = PROCESS_SD_MIB


def _reached(share: float, *, sd: float = _FACTOR_TWO) -> Slowdown:
    """What takes its roofline's time over this share of it, wherever it runs."""
    return Slowdown(host=-np.log(share), gpu=-np.log(share), sd=sd)


_LLAMA_CPP = {
    "prefill": _reached(0.45),
    # For 27 files on two machines this is 6 % off in the median; one share for all of them 8 %.
    "decode": Slowdown(host=-np.log(0.60), gpu=-np.log(0.79), launch_ms=0.056),
    "load": _reached(1 / 1.5),
}


def _doubted(sd: float) -> dict[str, Slowdown]:
    """As llama.cpp, with less known."""
    return {phase: replace(slowdown, sd=sd) for phase, slowdown in _LLAMA_CPP.items()}


_UNKNOWN = Typical(slowdown=_doubted(0.84), process_mib=150.0, process_sd_mib=100.0)
"""An engine that nobody described: as llama.cpp, and a factor of four either way."""
_TYPICAL = {
    LLAMA_CPP.name: Typical(slowdown=_LLAMA_CPP),
    TRANSFORMERS.name: Typical(
        slowdown={
            "prefill": _reached(0.3, sd=0.7),
            "decode": _reached(0.2, sd=0.7),
            # Unpacked weight by weight: 0.14 to 0.2 µs each, on two models.
            "load": _reached(1 / 200, sd=0.7),
        },
        process_mib=386.0,
        process_sd_mib=50.0,
    ),
    # The llama.cpp of 2023, behind Python: its kernels are slower, its memory is alike.
    CTRANSFORMERS.name: Typical(slowdown=_doubted(0.7), process_sd_mib=30.0),
}


def typical_of(engine: str) -> Typical:
    """Typical values of an engine."""
    return _TYPICAL.get(engine, _UNKNOWN)
