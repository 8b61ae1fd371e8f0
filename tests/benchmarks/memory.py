"""Planned memory against measured peaks of real runs, and against llama.cpp's own planner.

``python -m tests.benchmarks memory`` prints the tables; ``python -m tests.benchmarks.memory FILE``
also keeps the measured peaks for the unit tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from autotune.domain.config import Config
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.run import Run, Trial
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine
from autotune.facts.plan import plan_memory
from autotune.facts.weights import repacked_types
from autotune.features.physics import Array
from autotune.measure.planner import ExactPlanner
from autotune.measure.runner import LocalRunner
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table
from tests.predict.memory_runs import MemoryRuns, gather, save_runs

BACKEND = "llama-cpp-python"
WORKLOADS = tuple(map(Workload.parse, ("pp64+tg4", "pp600+tg4")))
DEEP = Workload.parse("pp256+tg4@d512")
_FIT_COMPONENTS = ("weights", "kv", "compute")
_Q8 = {"flash_attn": "on", "type_k": "q8_0", "type_v": "q8_0"}
_Q4 = {"flash_attn": "on", "type_k": "q4_0", "type_v": "q4_0"}
_F32 = {"flash_attn": "on", "type_k": "f32", "type_v": "f32"}
CHANGES: tuple[dict[str, object], ...] = (
    *({"n_ctx": n_ctx} for n_ctx in (1024, 2048, 4096, 8192)),
    *({"n_ctx": n_ctx, "flash_attn": "on"} for n_ctx in (1024, 4096, 8192)),
    *({"n_batch": max(n, 512), "n_ubatch": n} for n in (64, 128, 256, 1024, 2048)),
    {"n_batch": 2048, "n_ubatch": 2048, "flash_attn": "on"},
    *({"n_ctx": n_ctx, **_Q8} for n_ctx in (4096, 8192)),
    *(_Q4, _F32, {"type_k": "q8_0"}, {"flash_attn": "auto"}),
    *({"use_mmap": False}, {"n_parallel": 4}),
)
SLIDING_CHANGES: tuple[dict[str, object], ...] = (
    {"swa_full": False},
    {"swa_full": False, "n_ctx": 8192, "flash_attn": "on"},
    {"swa_full": False, "n_ctx": 16384},
    {"swa_full": False, "n_ubatch": 128},
)


def main(native: Path, keep: Path | None = None) -> None:
    """Measure, predict what was left out, compare with ``llama-fit-params``."""
    chosen = [(name, path, read_model(path)) for name, path in models()]
    with ExactPlanner(BACKEND) as planner:
        for name, path, model in chosen:
            configs = _configs(model)
            _compare_with_fit(name, path, configs, planner, native / "llama-fit-params")
            _compare_with_formulas(name, path, configs, planner)
            _time(name, path, planner)
    runs = gather([*_measure(chosen)], read_machine())
    _print_runs(runs)
    if keep is not None:
        save_runs(keep, runs)


def _configs(model: ModelFacts) -> Sequence[Config]:
    changes = CHANGES + (SLIDING_CHANGES if model.slides else ())
    return [Config(n_threads=2, n_threads_batch=2).replace(**change) for change in changes]


def _measure(chosen: Iterable[tuple[str, Path, ModelFacts]]) -> Iterator[tuple[ModelFacts, Run]]:
    """One run of each configuration and workload; memory does not mind company."""
    runner = LocalRunner(BACKEND)
    for name, path, model in chosen:
        for config in _configs(model):
            deep = [DEEP] if config == Config(n_threads=2, n_threads_batch=2) else []
            for workload in (*WORKLOADS, *deep):
                trial = Trial(
                    model_path=path, config=config, workload=workload, n_reps=1, max_reps=1
                )
                run = runner.run(trial)
                assert run.ok, f"{name} {config} {workload.label}: {run.message}"
                yield model, run


def _print_runs(runs: MemoryRuns) -> None:
    repacks = repacked_types(read_machine().isa)
    reserved = np.array(
        [plan_memory(c.model, c.config, repacks=repacks).host_bytes for c in runs.cases]
    )
    guesses = {
        "nothing": runs.unseen(),
        "all but this model": runs.left_out(runs.models),
        "all but this configuration": runs.left_out(runs.configs),
    }
    peak, _ = guesses["all but this configuration"]
    print_table(
        "resident memory, MiB: reserved by the plan, predicted without its configuration, measured",
        ("model", "configuration", "workload", "reserved", "predicted", "measured", "error"),
        [
            (case.model.name, _text(case.config), case.workload.label, _mib(planned),
             _mib(predicted), _mib(measured), f"{predicted / measured - 1:+.2%}")
            for case, planned, predicted, measured
            in zip(runs.cases, reserved, peak, runs.peak_bytes, strict=True)
        ],
    )  # fmt: skip
    print_table(
        f"error of the predicted peak over {len(runs.cases)} runs",
        ("seen before", "MAPE", "largest", "above the 95 % quantile"),
        [
            ("(the plan alone)", f"{runs.mape(reserved):.2%}", _largest(runs, reserved), "–"),
            *(
                (name, f"{runs.mape(peak):.2%}", _largest(runs, peak),
                 f"{runs.exceeded(peak, sd):.1%}")
                for name, (peak, sd) in guesses.items()
            ),
        ],
    )  # fmt: skip


def _compare_with_fit(
    name: str, path: Path, configs: Sequence[Config], planner: ExactPlanner, program: Path
) -> None:
    """llama-fit-params prints whole MiB, and neither repacked weights nor the output buffer."""
    rows = []
    for config in configs:
        if config.n_parallel > 1:
            continue  # its sequences share one cache
        plan = planner.plan(path, config.replace(use_mmap=False))
        ours = tuple(plan.total_bytes(component=part) // MIB for part in _FIT_COMPONENTS)
        theirs = _fit(program, path, config)
        rows.append((_text(config), _triple(ours), _triple(theirs), str(ours == theirs)))
    print_table(
        f"{name}: MiB of model / context / compute",
        ("configuration", "ours", "llama-fit-params", "equal"),
        rows,
    )


def _fit(program: Path, path: Path, config: Config) -> tuple[int, ...]:
    """(Model, context, compute) in MiB, of the host."""
    command = [
        *(str(program), "-m", str(path), "-fitp", "on", "-fit", "off"),
        *("-c", str(config.n_ctx), "-b", str(config.n_batch), "-ub", str(config.n_ubatch)),
        *("-fa", config.flash_attn, "-ctk", config.type_k, "-ctv", config.type_v),
        *(["--swa-full"] if config.swa_full else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (host,) = (line for line in done.stdout.splitlines() if line.startswith("Host"))
    return tuple(int(word) for word in host.split()[1:4])


def _compare_with_formulas(
    name: str, path: Path, configs: Sequence[Config], planner: ExactPlanner
) -> None:
    repacks, model = repacked_types(read_machine().isa), read_model(path)
    pairs = [
        (planner.plan(path, config), plan_memory(model, config, repacks=repacks))
        for config in configs
    ]
    rows = [
        (component, f"{max(_gaps(pairs, component)):.3%}")
        for component in ("weights", "repack", "kv", "compute", "output", None)
        if pairs[0][0].total_bytes(component=component)
    ]
    rows = [(component or "total", gap) for component, gap in rows]
    print_table(
        f"{name}: largest difference of the analytic plan from the engine's, {len(pairs)} plans",
        ("component", "difference"),
        rows,
    )


def _gaps(pairs: Iterable[tuple[MemoryPlan, MemoryPlan]], component: str | None) -> Iterator[float]:
    for engine, analytic in pairs:
        exact = engine.total_bytes(component=component)
        yield abs(analytic.total_bytes(component=component) / exact - 1)


def _time(name: str, path: Path, planner: ExactPlanner) -> None:
    planner.close()
    seconds = []
    for n_ctx in range(512, 33 * 512, 256):
        start = perf_counter()
        planner.plan(path, Config(n_ctx=n_ctx))
        seconds.append(perf_counter() - start)
    first, *others = seconds
    print_table(
        f"{name}: time of an exact plan",
        ("first", "following (median)", "slowest", "plans"),
        [(f"{first:.2f} s", f"{median(others) * 1e3:.1f} ms", f"{max(others) * 1e3:.1f} ms",
          str(len(others)))],
    )  # fmt: skip


def _text(config: Config) -> str:
    changes = config.differences(Config(n_threads=2, n_threads_batch=2))
    return " ".join(f"{knob}={ours}" for knob, (ours, _) in changes.items()) or "plain"


def _triple(sizes: Iterable[int]) -> str:
    return " / ".join(map(str, sizes))


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / MIB:.1f}"


def _largest(runs: MemoryRuns, peak: Array) -> str:
    return f"{np.max(np.abs(peak / runs.peak_bytes - 1)):.2%}"


if __name__ == "__main__":
    main(Path(".native/bin").resolve(), Path(sys.argv[1]))
