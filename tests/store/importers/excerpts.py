"""Telemetry as other programs write it: the columns of llama-bench through the years."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

_MODEL = "model_filename model_type model_size model_n_params"
_RESULT = "test_time avg_ns stddev_ns avg_ts stddev_ts"
COLUMNS = {
    2023: f"build_commit build_number cuda opencl metal gpu_blas blas cpu_info gpu_info {_MODEL} "
    "n_batch n_threads f16_kv n_gpu_layers main_gpu mul_mat_q tensor_split n_prompt n_gen "
    f"{_RESULT}",
    2024: "build_commit build_number cuda vulkan kompute metal sycl rpc gpu_blas blas cpu_info "
    f"gpu_info {_MODEL} n_batch n_ubatch n_threads type_k type_v n_gpu_layers split_mode main_gpu "
    f"no_kv_offload flash_attn tensor_split use_mmap embeddings n_prompt n_gen {_RESULT}",
    2025: f"build_commit build_number cpu_info gpu_info backends {_MODEL} n_batch n_ubatch "
    "n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu "
    "no_kv_offload flash_attn devices tensor_split tensor_buft_overrides use_mmap use_direct_io "
    f"embeddings no_op_offload no_host n_prompt n_gen n_depth {_RESULT}",
    2026: f"build_commit build_number cpu_info gpu_info backends {_MODEL} n_batch n_ubatch "
    "n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu "
    "no_kv_offload flash_attn devices tensor_split tensor_buft_overrides load_mode lazy_mode "
    "embeddings no_op_offload no_host repack fit_target fit_min_ctx n_prompt n_gen n_depth "
    f"{_RESULT}",
}
"""Columns by year: flags of the time before ``backends``, ``use_mmap`` before ``load_mode``."""

_VALUES: dict[str, Any] = {
    "build_commit": "0c1e570", "build_number": 4567, "cuda": 1, "cpu_info": "Intel i7-10700K",
    "gpu_info": "NVIDIA GeForce RTX 4090", "backends": "CUDA",
    "model_filename": "/models/Meta-Llama-3-8B-Instruct-Q8_0.gguf", "model_type": "llama 8B Q8_0",
    "model_size": 8532934656, "model_n_params": 8030261248, "n_batch": 2048, "n_ubatch": 512,
    "n_threads": 8, "cpu_mask": "0x0", "poll": 50, "type_k": "f16", "type_v": "f16", "f16_kv": 1,
    "n_gpu_layers": 99, "n_cpu_moe": 0, "split_mode": "layer", "main_gpu": 0, "flash_attn": 1,
    "devices": "auto", "tensor_split": "0.00", "tensor_buft_overrides": "none",
    "load_mode": "mmap", "lazy_mode": "auto", "use_mmap": 1, "repack": 1, "n_prompt": 512,
    "n_gen": 0, "n_depth": 0, "test_time": "2026-05-03T11:30:15Z", "avg_ns": 51_200_000,
    "stddev_ns": 100_000, "avg_ts": 10000.5, "stddev_ts": 19.5,
}  # fmt: skip


def make_row(year: int = 2026, **changes: Any) -> dict[str, Any]:
    """A row of that year's columns; without changes 10,000 tokens of prompt per second."""
    values = {**_VALUES, **changes}
    return {name: values.get(name, 0) for name in COLUMNS[year].split()}


def decode_row(year: int = 2026, **changes: Any) -> dict[str, Any]:
    """100 generated tokens per second."""
    return make_row(year, **{"n_prompt": 0, "n_gen": 128, "avg_ts": 100.25, **changes})


def write_csv(path: Path, *rows: dict[str, Any]) -> Path:
    """As ``llama-bench -o csv`` quotes it."""
    text = io.StringIO()
    text.write(",".join(rows[0]) + "\n")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows(row.values() for row in rows)
    path.write_text(text.getvalue())
    return path


def write_json(path: Path, *rows: dict[str, Any]) -> Path:
    """As ``llama-bench -o json``, with the samples that only JSON has."""
    samples = [row | {"samples_ts": [row["avg_ts"] - 1, row["avg_ts"] + 1]} for row in rows]
    path.write_text(json.dumps(samples, indent=2) + "\n")
    return path


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    """As ``llama-bench -o jsonl``."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_sql(path: Path, *rows: dict[str, Any]) -> Path:
    """As ``llama-bench -o sql``."""
    columns = ",\n".join(f"  {name} TEXT" for name in rows[0])
    statements = [
        f"INSERT INTO llama_bench ({', '.join(row)}) VALUES "
        f"({', '.join(repr(str(value)) for value in row.values())});"
        for row in rows
    ]
    create = f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n"
    path.write_text(create + "\n".join(statements) + "\n")
    return path


MARKDOWN = """\
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes
| model                  |       size |  params | backend | ngl | fa |             test |              t/s |
| ---------------------- | ---------: | ------: | ------- | --: | -: | ---------------: | ---------------: |
| llama 8B Q8_0          |   7.95 GiB |  8.03 B | CUDA    |  99 |  1 |            pp512 | 10000.50 ± 19.50 |
| llama 8B Q8_0          |   7.95 GiB |  8.03 B | CUDA    |  99 |  1 |    tg128 @ d4096 |    100.25 ± 0.11 |
| llama 8B Q8_0          |   7.95 GiB |  8.03 B | CUDA    |  99 |  1 | pp512+tg128 @ d0 |    412.00 ± 1.00 |

build: 0c1e570 (4567)
"""  # noqa: E501 - as it is pasted
