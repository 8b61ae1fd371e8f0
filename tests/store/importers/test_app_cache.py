"""The cache of the application that this program takes over from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotune.domain.run import Reason
from autotune.domain.units import MIB
from autotune.store.importers.files import read_file

MODEL = {
    "model_path": "C:\\Users\\me\\models\\mistral-7b-instruct.Q4_0.gguf", "model_hash": "abc",
    "size_mb": 3918, "parameter_count": 7241732096, "quantization": "Q4_0",
    "architecture": "llama", "context_length": None,
}  # fmt: skip
RECORD = {
    "backend_name": "ctransformers", "model_hash": "abc",
    "hardware_config": {"gpu_layers": 0, "threads": 6}, "load_time_ms": 2500.0,
    "memory_usage_mb": 6000, "tokens_per_second": 45.5, "success_rate": 1.0,
    "last_updated": 1760000000.0, "usage_count": 1,
}  # fmt: skip


def write(path: Path, *records: dict[str, Any]) -> Path:
    """As the application nests it: model, then backend and hardware."""
    profiles = {f"ctransformers_{i}": record for i, record in enumerate(records)}
    document = {"model_profiles": {"abc": MODEL}, "backend_profiles": {"abc": profiles}}
    path.write_text(json.dumps(document, indent=2))
    return path


def test_a_record_becomes_a_test_that_has_no_phase(tmp_path: Path) -> None:
    """Its rate is words per second, prompt included; its load time was measured."""
    told = read_file(write(tmp_path / "model_performance_cache.json", RECORD), machine="desk")

    assert told.problems == ()
    (test,) = told.tests
    assert (test.backend, test.machine, test.kind) == ("ctransformers", "desk", "pg")
    assert test.model == "mistral-7b-instruct.Q4_0.gguf"
    assert (test.n_params, test.model_bytes) == (7241732096, 3918 * MIB)
    assert (test.load_s, test.tps, test.n_threads) == (2.5, 45.5, 6)
    assert test.measured_at == datetime.fromtimestamp(1760000000, UTC)
    assert test.is_hearsay


def test_a_mean_over_several_calls_is_no_load_time(tmp_path: Path) -> None:
    """The application mixed zeros into it."""
    (test,) = read_file(write(tmp_path / "c.json", RECORD | {"usage_count": 3})).tests

    assert (test.load_s, test.tps) == (None, 45.5)


def test_a_backend_that_never_loaded_failed(tmp_path: Path) -> None:
    """One that only loaded did not."""
    failed = RECORD | {"success_rate": 0.0, "tokens_per_second": 0.0, "load_time_ms": 0.0}
    loaded = RECORD | {"tokens_per_second": 0.0}

    first, second = read_file(write(tmp_path / "c.json", failed, loaded)).tests

    assert (first.reason, first.tps, first.load_s) == (Reason.CRASH, None, None)
    assert (second.reason, second.tps, second.load_s) == (None, None, 2.5)


def test_a_flat_mapping_is_read_too(tmp_path: Path) -> None:
    """As the guide shows one record; a record without a model is named."""
    flat = {
        "a": {"backend": "llamafile", "model": "qwen2.5-7b.gguf", "load_time_ms": 10,
              "memory_usage_mb": 1, "tokens_per_second": 5, "success": True},
        "b": {"backend": "llamafile", "load_time_ms": 10, "memory_usage_mb": 1},
    }  # fmt: skip
    file = tmp_path / "c.json"
    file.write_text(json.dumps(flat))

    told = read_file(file)

    assert [test.model for test in told.tests] == ["qwen2.5-7b.gguf"]
    assert told.problems == ("entry 2: no model: nothing is not described",)
