"""Tables with gaps: pandas writes a column that has one as numbers with a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.store.importers.files import read_file
from tests.store.importers.excerpts import make_row, write_csv, write_json


@pytest.mark.parametrize(
    ("year", "cells", "expected"),
    [
        (2024, {"flash_attn": "1.0"}, {"flash_attn": "on"}),
        (2026, {"flash_attn": "-1.0"}, {"flash_attn": "auto"}),
        (2024, {"use_mmap": "0.0"}, {"use_mmap": False}),
        (2024, {"no_kv_offload": "1.0"}, {"offload_kqv": False}),
        (2026, {"no_op_offload": "1.0"}, {"op_offload": False}),
        (2024, {"cuda": "1.0"}, {"api": "CUDA"}),
        (2024, {"cuda": "0.0", "vulkan": "1.0"}, {"api": "Vulkan"}),
        (2026, {"build_number": "4567.0"}, {"build": "4567 0c1e570"}),
        (2026, {"n_batch": "2048.0"}, {"n_batch": 2048}),
    ],
)
def test_a_number_with_a_point_is_the_number(
    tmp_path: Path, year: int, cells: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A switch that was on stays on."""
    (test,) = read_file(write_csv(tmp_path / "t.csv", make_row(year, **cells))).tests

    assert {name: getattr(test, name) for name in expected} == expected


@pytest.mark.parametrize("gap", ["nan", "-nan", "NaN", "n/a", "<NA>", "-nan(ind)"])
def test_a_gap_costs_no_rate(tmp_path: Path, gap: str) -> None:
    """It says as little as a cell that is empty."""
    names = ("stddev_ts", "n_ubatch", "n_depth", "type_k", "flash_attn", "gpu_info", "test_time",
             "tensor_buft_overrides", "devices", "load_mode", "no_op_offload")  # fmt: skip
    (test,) = read_file(write_csv(tmp_path / "t.csv", make_row(**dict.fromkeys(names, gap)))).tests

    assert test.tps == 10000.5
    assert (test.tps_sd, test.n_ubatch, test.n_depth, test.type_k) == (None, None, 0, None)
    assert (test.flash_attn, test.gpu, test.measured_at) == (None, None, None)
    assert (test.api, test.use_mmap, test.op_offload) == ("CUDA", None, None)


def test_a_gap_of_json_costs_no_rate(tmp_path: Path) -> None:
    """Python writes it as ``NaN``, which is no JSON elsewhere."""
    (test,) = read_file(write_json(tmp_path / "t.json", make_row(stddev_ts=float("nan")))).tests

    assert (test.tps, test.tps_sd) == (10000.5, None)
