"""Whole studies on simulated machines with noise, cliffs and crashes: does any end slower?"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from autotune.domain.errors import MeasurementError
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from autotune.store.store import Store
from autotune.tune.loop import tune
from tests.benchmarks.table import print_table
from tests.simulation import DEFAULT, SMALL, WORKLOAD, make_cases, make_question

STUDIES = 200
NOISE_RATIO = 0.02


def main() -> None:
    """Print how many ended slower than the default, and how near the others came to the best."""
    gains, regrets, refused = [], [], 0
    for seed in range(STUDIES):
        rng = np.random.default_rng(seed)
        machine = SimulatedMachine(
            read_bytes_per_s=20e9 * rng.uniform(0.5, 2),
            flops_per_s=50e9 * rng.uniform(0.5, 2),
            flash_attn_factor=rng.uniform(0.6, 1.4),
            best_ubatch=int(rng.choice([64, 128, 256, 512])),
            oversubscribed_factor=rng.uniform(0.05, 0.9),
            noise_sd=rng.uniform(0.005, 0.08),
            crash_probability=rng.choice([0.0, 0.05, 0.15]),
        )
        try:
            winner, default, best = _study(machine, seed)
        except MeasurementError:
            refused += 1
            continue
        gains.append(default / winner)
        regrets.append(1 - best / winner)
    gain, regret = np.array(gains), np.array(regrets)
    rows = [
        ("slower than the default beyond noise", f"{int((gain < 1 / (1 + NOISE_RATIO)).sum())}"),
        ("slower at all (true times)", f"{int((gain < 1).sum())}"),
        ("median gain", f"{np.median(gain):.2f}×"),
        ("regret, mean / p90", f"{regret.mean():.1%} / {np.quantile(regret, 0.9):.1%}"),
        ("ended with an error (the default crashed)", str(refused)),
    ]
    print_table(f"{len(gain) + refused} simulated studies", ("what", "figure"), rows)


def _study(machine: SimulatedMachine, seed: int) -> tuple[float, float, float]:
    """True request seconds of winner, default and the best there is."""
    runner = SimulatedRunner(SMALL, machine, seed=seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "s.db", now=lambda: datetime.now(UTC)) as store,
    ):
        question = make_question(store, seed=seed)
        answer = tune(question, runner=runner, store=store, sleep=lambda _s: None)
    best = min(runner.request_s(case.config, WORKLOAD) for case in make_cases())
    return (
        runner.request_s(answer.winner.config, WORKLOAD),
        runner.request_s(DEFAULT, WORKLOAD),
        best,
    )
