"""How wrong predictions are of what was never seen, beside the bars that we set ourselves.

On public telemetry (the prior's own rows, every family and machine held out in turn) and on our
own processor rows (:mod:`tests.benchmarks.factorial`); and what fitting and asking cost.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from autotune.domain.stats import median
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.features.columns import build_features
from autotune.predict.evaluate import Evaluation, evaluate
from autotune.predict.predictor import Predictor
from autotune.predict.prior import load_prior
from tests.benchmarks.factorial import factorial
from tests.benchmarks.table import print_table

BARS = (
    ("decode_tps", "leave_one_model_out", "median 10 %, p90 26 %"),
    ("decode_tps", "leave_one_model_out_after_1_runs", "median 4.4 %"),
    ("decode_tps", "leave_one_model_out_after_5_runs", "median 3.4 %, mean 7 %"),
    ("decode_tps", "leave_one_machine_out", "median 15 %"),
    ("decode_tps", "forward_in_time", ""),
    ("prefill_tps", "leave_one_model_out", "median 18 %"),
    ("prefill_tps", "leave_one_model_out_after_5_runs", "median 12 %"),
    ("peak_memory_bytes", "leave_one_model_out", "mean 3 %"),
    ("load_s_warm", "leave_one_configuration_out", "median 10 %"),
    ("load_s_cold", "leave_one_configuration_out", "median 25 %"),
)
CANDIDATES = 2000
REPEATS = 7


def main() -> None:
    """Print errors, coverage and costs."""
    public, own = load_prior("CUDA"), factorial()
    for title, observations in (("public telemetry", public), ("our processors", own)):
        _print_errors(title, evaluate(observations))
    _print_costs([*public, *own])


def _print_errors(title: str, found: Evaluation) -> None:
    rows = []
    for target, split, bar in BARS:
        score = found.targets[target].splits.get(split) if target in found.targets else None
        if score is None:
            continue
        worst = f"{score.worst_coverage:.2f}" if score.worst_coverage is not None else ""
        rows.append(
            (target, split.replace("_", " "), str(score.n), f"{score.median_ape:.1%}",
             f"{score.mape:.1%}", f"{score.p90_ape:.1%}", f"{score.coverage[0.9]:.3f}", worst, bar)
        )  # fmt: skip
    headers = ("target", "split", "n", "median", "mean", "p90", "in 90 %", "worst family", "bar")
    print_table(f"{title}, {found.n_runs} runs", headers, rows)
    for name, score in found.targets["decode_tps"].baselines.items():
        print(f"baseline {name}, decode, unseen model: median {score.median_ape:.1%}")
    for split, told in found.success.items():
        print(f"success, {split}: skill {told.skill:.3f} (bar 0.45), ECE {told.ece:.3f} (bar 0.02)")


def _print_costs(observations: Sequence[Observation]) -> None:
    rows = []
    for n, bar in ((1_000, "6 s"), (10_000, "30 s")):
        runs = _stretched(observations, n)
        started = time.perf_counter()
        predictor = Predictor().fit(runs)
        rows.append((f"refit at {n} runs", f"{time.perf_counter() - started:.2f} s", bar))
    cases = _candidates(observations)
    with threadpool_limits(1):
        rows.append(("features of 2,000 cases", _typical(lambda: build_features(cases)), "20 ms"))
        rows.append(
            ("forecast of 2,000 cases", _typical(lambda: predictor.forecast(cases)), "50 ms")
        )
    print_table("costs, one thread", ("what", "median", "bar"), rows)


def _typical(work: object) -> str:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()  # type: ignore[operator]
        times.append(time.perf_counter() - started)
    return f"{1e3 * median(times):.0f} ms"


def _stretched(observations: Sequence[Observation], n: int) -> list[Observation]:
    """So many runs of distinct cases: those there are, then again with longer prompts."""
    good = [o for o in observations if o.workload is not None and o.reason is None]
    runs: list[Observation] = []
    for number in range(n):
        again, index = divmod(number, len(good))
        workload = good[index].workload
        assert workload is not None
        longer = dataclasses.replace(workload, n_prompt=workload.n_prompt + again)
        runs.append(dataclasses.replace(good[index], workload=longer))
    return runs


def _candidates(observations: Sequence[Observation]) -> list[Case]:
    """2,000 configurations of one model on one machine."""
    (case,) = [c for o in observations[-1:] if (c := Case.of(o))]
    batches = [2**i for i in range(5, 10)]
    sizes = range(1024, 1024 + 64 * CANDIDATES // len(batches), 64)
    return [
        dataclasses.replace(case, config=case.config.replace(n_ctx=n_ctx, n_batch=512, n_ubatch=b))
        for n_ctx in sizes
        for b in batches
    ]
