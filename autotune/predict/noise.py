"""How far runs of one configuration lie apart: what no prediction can know.

It is the machine's own: 2.3 % between processes on a quiet desktop with a GPU (public telemetry),
12 % on our virtual machine over some hours. So each machine's repeats tell its noise; where they
are few, the usual one stands beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

NOISE_SD = 0.025
"""The usual spread between processes, natural log; no machine is taken to have less."""
_USUAL_RUNS = 2.0
"""Repeats that the usual spread counts for: a handful may agree by luck."""


def noise_by_machine(repeats: Iterable[tuple[str, Sequence[float]]]) -> dict[str, float]:
    """The spread of one configuration between runs on each machine, natural log.

    ``repeats`` are a machine and the seconds of all runs of one case there, each. Machines that
    repeated nothing are not in the answer. The pooled variance within the cases, shrunk towards
    the usual one as by a scaled inverse chi-square prior (Gelman et al., "Bayesian Data
    Analysis", 3rd edition 2013, section 2.6).
    """
    squares: defaultdict[str, float] = defaultdict(float)
    freedom: defaultdict[str, int] = defaultdict(int)
    for machine, seconds in repeats:
        if not seconds:
            continue
        logs = np.log(seconds)
        squares[machine] += float(np.sum((logs - logs.mean()) ** 2))
        freedom[machine] += len(logs) - 1
    usual = _USUAL_RUNS * NOISE_SD**2
    return {
        machine: max(NOISE_SD, float(np.sqrt((squares[machine] + usual) / (n + _USUAL_RUNS))))
        for machine, n in freedom.items()
        if n
    }
