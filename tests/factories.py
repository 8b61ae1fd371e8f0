"""Domain values with sensible defaults; a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotune.domain.conditions import Conditions
from autotune.domain.config import Config
from autotune.domain.machine import Build, MachineFacts, Probe
from autotune.domain.model import ModelFacts, TensorSum
from autotune.domain.run import Generation, LoadTime, Run, Trial
from autotune.domain.workload import Workload

STARTED_AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
GB = 1e9


def make_model(**changes: Any) -> ModelFacts:
    """A small dense model: 4 layers of 256, 1,000 words, Q4_1."""
    defaults: dict[str, Any] = {
        "model_id": "0123456789abcdef",
        "name": "tiny",
        "architecture": "llama",
        "quantization": "Q4_1",
        "file_bytes": 3_000_000,
        "header_bytes": 100_000,
        "n_layers": 4,
        "n_embd": 256,
        "n_ff": 768,
        "n_heads": (4,) * 4,
        "n_heads_kv": (2,) * 4,
        "key_length": 64,
        "value_length": 64,
        "n_ctx_train": 8192,
        "n_vocab": 1000,
        "tensors": (
            TensorSum(
                group="embedding", type="Q8_0", n_tensors=1, n_elements=256_000, n_bytes=272_000
            ),
            TensorSum(
                group="attention", type="Q4_1", n_tensors=16, n_elements=786_432, n_bytes=491_520
            ),
            TensorSum(
                group="ffn", type="Q4_1", n_tensors=12, n_elements=2_359_296, n_bytes=1_474_560
            ),
        ),
    }
    return ModelFacts(**{**defaults, **changes})


def make_machine(**changes: Any) -> MachineFacts:
    """A two-core Linux machine without a GPU."""
    defaults: dict[str, Any] = {
        "cpu": "Imaginary 2-Core",
        "n_logical": 2,
        "n_physical": 2,
        "n_usable": 2,
        "isa": ("avx2", "fma"),
        "ram_bytes": 8 * 1024**3,
        "system": "Linux",
        "os_version": "Debian GNU/Linux 12",
        "kernel": "6.1.0",
    }
    return MachineFacts(**{**defaults, **changes})


def make_probe(**changes: Any) -> Probe:
    """10 GB/s and 50 GFLOPS with one thread, 18 and 95 with two."""
    defaults: dict[str, Any] = {
        "n_threads": (1, 2),
        "read_bytes_per_s": (10 * GB, 18 * GB),
        "read_spread_ratio": (0.02, 0.03),
        "flops_per_s": (50 * GB, 95 * GB),
        "flops_spread_ratio": (0.02, 0.03),
        "elapsed_s": 2.0,
    }
    return Probe(**{**defaults, **changes})


def make_build(**changes: Any) -> Build:
    """llama-cpp-python on a CPU."""
    defaults: dict[str, Any] = {
        "backend": "llama-cpp-python",
        "version": "0.3.36",
        "commit": "0c1e57098",
        "devices": ("CPU",),
        "system_info": "AVX2 = 1",
    }
    return Build(**{**defaults, **changes})


def make_trial(**changes: Any) -> Trial:
    """Two threads, a short request."""
    defaults: dict[str, Any] = {
        "model_path": Path("tiny.gguf"),
        "config": Config(n_threads=2, n_threads_batch=2),
        "workload": Workload(n_prompt=64, n_gen=4),
    }
    return Trial(**{**defaults, **changes})


def make_generation(**changes: Any) -> Generation:
    """64 prompt tokens in 0.1 s, 4 tokens of 10 ms."""
    defaults: dict[str, Any] = {
        "workload": Workload(n_prompt=64, n_gen=4),
        "repetition": 0,
        "prefill_ns": 100_000_000,
        "ttft_ns": 101_000_000,
        "token_ns": (10_000_000,) * 4,
        "prefill_cpu_ns": 200_000_000,
        "decode_cpu_ns": 80_000_000,
        "conditions": Conditions(foreign_cpu_ratio=0.01, load_1m=0.5),
    }
    return Generation(**{**defaults, **changes})


def make_run(**changes: Any) -> Run:
    """A successful run with three equal repetitions."""
    trial = changes.pop("trial", make_trial())
    defaults: dict[str, Any] = {
        "trial": trial,
        "backend": "llama-cpp-python",
        "build": make_build(),
        "started_at": STARTED_AT,
        "elapsed_s": 1.5,
        "load": LoadTime(model_s=0.2, context_s=0.02, first_eval_s=0.03),
        "cached_ratio": 1.0,
        "peak_anon_bytes": 60_000_000,
        "peak_file_bytes": 40_000_000,
        "peak_rss_bytes": 99_000_000,
        "conditions": Conditions(foreign_cpu_ratio=0.01, load_1m=0.5),
        "generations": tuple(
            make_generation(workload=trial.workload, repetition=i) for i in range(3)
        ),
    }
    return Run(**{**defaults, **changes})
