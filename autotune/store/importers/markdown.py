"""The table that llama-bench prints, as people paste it, with the log around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from autotune.domain.units import GIB, MIB
from autotune.store.importers.rows import Problem, Row

_NAMES = {
    "backend": "backends", "be": "backends", "dev": "devices", "fa": "flash_attn",
    "lm": "load_mode", "mmap": "use_mmap", "model": "model_type", "ngl": "n_gpu_layers",
    "nkvo": "no_kv_offload", "nopo": "no_op_offload", "sm": "split_mode", "th": "n_threads",
    "threads": "n_threads", "ts": "tensor_split",
}  # fmt: skip
"""What the table calls the fields; ``ts`` is no rate here."""
_TEST = re.compile(r"(?:pp\s*(\d+))?\s*\+?\s*(?:tg\s*(\d+))?\s*(?:@\s*d\s*(\d+))?")
_RATE = re.compile(
    r"(\d+(?:\.\d+)?)(?:\s*[^\sA-Za-z0-9.,]\D*(?:(\d+(?:\.\d+)?)|nan(?:\(ind\))?|n/a))?",
    re.IGNORECASE,
)
"""Whatever an encoding made of the ``±``; no letter, and no comma of thousands.

A rate is good where its deviation is not a number.
"""
_UNITS = {"KIB": 1024.0, "MIB": float(MIB), "GIB": float(GIB), "TIB": 1024.0 * GIB,
          "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}  # fmt: skip
_BUILD = re.compile(r"^\s*build: (\w+) \((\d+)\)")
_DEVICES = (
    re.compile(r"\bDevice \d+: ([^,]+),"),
    re.compile(r"\bggml_vulkan: \d+ = (.+?)(?: \([^()]*\))? \|"),
    re.compile(r"\bggml_metal\w*: GPU name:\s+MTL\d+ \((.+)\)\s*$"),
    re.compile(r"\bggml_metal\w*: GPU name:(?!\s*MTL\d)\s+(.+?)\s*$"),
)
"""How the log names the GPUs: CUDA and ROCm, Vulkan, Metal of 2026 and of before.

In between Metal said no more than ``MTL0``, which is no name.
"""


class _Table(NamedTuple):
    """A table that waits for the line below it that names the build."""

    columns: Sequence[str]
    devices: Sequence[str]
    rows: list[tuple[int, Sequence[str]]]


def recognises(text: str) -> bool:
    """Whether a line is the header of llama-bench's table."""
    return any(_is_header(_cells(line)) for line in text.splitlines())


def read_rows(text: str) -> Iterator[Row | Problem]:
    """Every row of every table; build and GPUs are taken from the log around it."""
    tables: list[_Table] = []
    devices: list[str] = []
    above = 0
    for number, line in enumerate(text.splitlines(), start=1):
        cells = _cells(line)
        if build := _BUILD.match(line):
            yield from _finish(tables, {"build_commit": build[1], "build_number": build[2]})
            tables, devices, above = [], [], 0
        elif _is_header(cells):
            tables.append(_Table([_name(cell) for cell in cells], tuple(devices), []))
            above = len(devices)
        elif tables and cells and set(line) - set("|-: "):
            tables[-1].rows.append((number, cells))
        else:
            named = [found[1] for pattern in _DEVICES if (found := pattern.search(line))]
            if named and above:  # another program begins: its GPUs are not in addition
                devices, above = [], 0
            devices += named
    yield from _finish(tables, {})


def _finish(tables: Sequence[_Table], build: dict[str, str]) -> Iterator[Row | Problem]:
    for table in tables:
        for number, cells in table.rows:
            yield _row(f"line {number}", table, cells, build)


def _row(place: str, table: _Table, cells: Sequence[str], build: dict[str, str]) -> Row | Problem:
    if len(cells) != len(table.columns):
        return Problem(place=place, cause=f"{len(cells)} cells, but {len(table.columns)} columns")
    row: dict[str, object] = {**build, **dict(zip(table.columns, cells, strict=True))}
    test = _TEST.fullmatch(str(row.pop("test")))
    if test is None:
        return Problem(place=place, cause=f"test is {cells[table.columns.index('test')]!r}")
    rate = _RATE.fullmatch(str(row.pop("t/s")))
    if rate is None:
        return Problem(place=place, cause=f"t/s is {cells[table.columns.index('t/s')]!r}")
    row |= dict(zip(("n_prompt", "n_gen", "n_depth"), test.groups(), strict=True))
    row |= {"avg_ts": rate[1], "stddev_ts": rate[2]}
    row |= {
        "model_size": _amount(row.pop("size", None)),
        "n_params": _amount(row.pop("params", None)),
    }
    if table.devices and row.get("backends") not in ("CPU", "BLAS"):
        row["gpu_info"] = ", ".join(table.devices)
    return Row(place=place, cells=row)


def _amount(text: object) -> int | None:
    """``3.56 GiB`` in bytes, ``6.74 B`` as a number; None for what is neither."""
    value, _, unit = str(text or "").partition(" ")
    factor = _UNITS.get(unit.strip().upper())
    try:
        return None if factor is None else round(float(value) * factor)
    except (ValueError, OverflowError):
        return None


def _cells(line: str) -> list[str]:
    plain = line.strip()
    if not plain.startswith("|"):
        return []
    return [cell.strip().strip("*`").strip() for cell in plain.strip("|").split("|")]


def _is_header(cells: Sequence[str]) -> bool:
    return {"test", "t/s"} <= set(cells)


def _name(cell: str) -> str:
    return _NAMES.get(cell, cell)
