"""Ours against llama-optimus at the same wall time, and against both defaults, live.

Each tuner looks for itself; then its winner, llama-bench's default and the newcomer's default are
measured ten times, interleaved, by the same procedure on the same request. ``pip install
llama-optimus`` first; nothing else may run.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.run import Run, Trial
from autotune.domain.stats import median
from autotune.domain.workload import Workload
from autotune.measure.runner import LocalRunner
from autotune.tune.ledger import request_s
from autotune.tune.verdict import is_faster, process_noise_sd
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

ROUNDS = 10
WORKLOAD = Workload(n_prompt=256, n_gen=64)
N_CTX = 2048
TIME_LIMIT_S = 120
_TRIAL = re.compile(r"Trial \d+ finished with value: ([\d.]+) and parameters: (\{.*?\})")


def main(native: Path) -> None:
    """A table for each model."""
    for name, path in models():
        started = time.monotonic()
        ours = _ours(path)
        wall_s = time.monotonic() - started
        contenders = {
            "ours": ours,
            "llama-optimus": _optimus(path, native, wall_s),
            "llama-bench's default": _llama_bench_default(),
            "newcomer's default": _newcomer(),
        }
        runs: dict[str, list[Run]] = {who: [] for who in contenders}
        for number in range(ROUNDS):
            for who in _rotated(list(contenders), number):
                runs[who].append(_run(path, contenders[who]))
        best = min(runs.values(), key=lambda told: median(_seconds(told)))
        rows = [
            (who, f"{median(_seconds(told)):.3f} s",
             f"{min(_seconds(told)):.3f} – {max(_seconds(told)):.3f}",
             _ratio(_seconds(best), _seconds(told)), _is_behind(best, told),
             _short(contenders[who]))
            for who, told in runs.items()
        ]  # fmt: skip
        headers = ("who", "request", "range", "best / this, by round", "behind?", "configuration")
        title = f"{name}, {WORKLOAD.label}, both tuners {wall_s:.0f} s, {ROUNDS} rounds interleaved"
        print_table(title, headers, rows)


def _rotated(names: list[str], number: int) -> list[str]:
    """Everybody comes first, second, … equally often: what ran before leaves traces."""
    start = number % len(names)
    return names[start:] + names[:start]


def _ratio(best: list[float], values: list[float]) -> str:
    """Median of the rounds' ratios and the quartiles around it."""
    ratios = [theirs / ours for theirs, ours in zip(best, values, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return f"{median(ratios):.3f} ({low:.3f} – {high:.3f})"


def _is_behind(best: list[Run], theirs: list[Run]) -> str:
    """Whether the best is faster beyond noise, by the rule that ends a study."""
    if theirs is best:
        return ""
    noise_sd = process_noise_sd(best)
    return "yes" if is_faster(best, theirs, noise_sd=noise_sd) else "within noise"


def _ours(path: Path) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "autotune", "tune", str(path), "--n-ctx", str(N_CTX),
            "--workload", WORKLOAD.label, "--time-limit", str(TIME_LIMIT_S), "--json",
            "--db", str(Path(folder) / "store.db"),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Config.from_dict(json.loads(done.stdout)["winner"]["config"])


def _optimus(path: Path, native: Path, wall_s: float) -> Config:
    """Its best trial when the time is over; it tunes prompt and generation rate together."""
    command = [
        str(Path(sys.executable).parent / "llama-optimus"), "--llama-bin", str(native),
        "--model", str(path), "--ngl-max", "0", "--no-warmup", "--override-mode", "none",
        "--trials", "100", "-r", "2", "--n-tokens", "64", "--metric", "mean",
    ]  # fmt: skip
    with tempfile.TemporaryFile(mode="w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(wall_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.seek(0)
        trials = _TRIAL.findall(log.read())
    _, best = max(trials, key=lambda trial: float(trial[0]))
    found = json.loads(best.replace("'", '"'))
    n_batch = min(found["batch"], N_CTX)
    return _llama_bench_default().replace(
        n_batch=n_batch,
        n_ubatch=min(found["u_batch"], n_batch),
        n_threads=found["threads"],
        n_threads_batch=found["threads"],
    )


def _llama_bench_default() -> Config:
    """-t of every core, -b 2048, -ub 512, flash attention as the engine likes."""
    return Config(
        n_ctx=N_CTX, n_batch=2048, n_ubatch=512, n_threads=2, n_threads_batch=2, flash_attn="auto"
    )


def _newcomer() -> Config:
    """What llama_cpp.Llama(model_path, n_ctx=…) does on two processors."""
    return Config(n_ctx=N_CTX, n_threads=1, n_threads_batch=2)


def _run(path: Path, config: Config) -> Run:
    trial = Trial(model_path=path, config=config, workload=WORKLOAD, n_reps=2, max_reps=2)
    run = LocalRunner("llama-cpp-python").run(trial)
    assert run.measurement is not None, run.message
    return run


def _seconds(runs: list[Run]) -> list[float]:
    return [request_s(run) for run in runs]


def _short(config: Config) -> str:
    changes = config.differences(_newcomer())
    return " ".join(f"{knob}={ours}" for knob, (ours, _) in changes.items()) or "default"
