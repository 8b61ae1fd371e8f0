"""Is our rate llama-bench's rate? Interleaved pairs on the same configuration.

Ours measures one request, so its decode runs behind the prompt: llama-bench is asked for
``-p 0 -n N -d PROMPT``, which is the same work.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.run import Trial
from autotune.domain.stats import median
from autotune.domain.workload import Workload
from autotune.measure.runner import LocalRunner
from tests.benchmarks.models import models
from tests.benchmarks.table import print_table

PAIRS = 10
N_PROMPT, N_GEN = 128, 32


def main(native: Path) -> None:
    """Print ours / llama-bench for each model and thread count."""
    rows = []
    for name, path in models():
        for n_threads in (1, 2):
            ratios = list(_pairs(native / "llama-bench", path, n_threads))
            for phase, values in zip(("prefill", "decode"), zip(*ratios, strict=True), strict=True):
                rows.append(
                    (name, str(n_threads), phase, str(PAIRS), f"{median(values):.3f}",
                     f"{min(values):.3f} – {max(values):.3f}")
                )  # fmt: skip
    print_table(
        "ours / llama-bench", ("model", "threads", "phase", "pairs", "median", "range"), rows
    )


def _pairs(llama_bench: Path, model: Path, n_threads: int) -> Iterator[tuple[float, float]]:
    """(prefill ratio, decode ratio) of each interleaved pair."""
    for _ in range(PAIRS):
        ours = _ours(model, n_threads)
        theirs = _theirs(llama_bench, model, n_threads)
        yield ours[0] / theirs[0], ours[1] / theirs[1]


def _ours(model: Path, n_threads: int) -> tuple[float, float]:
    """Our median (prefill, decode) rates in tokens per second."""
    config = Config(
        n_ctx=512, n_batch=512, n_ubatch=512, n_threads=n_threads, n_threads_batch=n_threads,
        flash_attn="on", swa_full=False,
    )  # fmt: skip
    trial = Trial(
        model_path=model, config=config, workload=Workload(n_prompt=N_PROMPT, n_gen=N_GEN), n_reps=3
    )
    run = LocalRunner("llama-cpp-python").run(trial)
    measured = run.measurement
    assert measured is not None, run.message
    assert measured.prefill_tps is not None
    assert measured.decode_tps is not None
    return measured.prefill_tps.median, measured.decode_tps.median


def _theirs(llama_bench: Path, model: Path, n_threads: int) -> tuple[float, float]:
    """llama-bench's median (prefill, decode) rates for the same work."""

    def samples(*test: str) -> list[float]:
        command = [str(llama_bench), "-m", str(model), "-t", str(n_threads), "-fa", "on", "-r", "3",
                   "-ub", "512", "-b", "512", "-o", "json", *test]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout)[0]["samples_ts"])

    prefill = samples("-p", str(N_PROMPT), "-n", "0")
    decode = samples("-p", "0", "-n", str(N_GEN), "-d", str(N_PROMPT))
    return median(prefill), median(decode)
