"""``autotune evaluate`` as a person types it: which runs it judges on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from autotune.cli import evaluate, import_
from tests.store.importers.excerpts import decode_row, make_row, write_csv, write_json

app = typer.Typer()
evaluate.register(app)
import_.register(app)
CPU = {"backends": "CPU", "gpu_info": "", "n_gpu_layers": 0}
"""Without a GPU there is no prior, which takes its time."""
ROWS = [make_row(n_prompt=64 * i, avg_ts=1000 + i, n_ubatch=64 * i, **CPU) for i in range(1, 7)]


def run(*words: object) -> Any:
    """(JSON document, standard error) of a command."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    return json.loads(result.stdout), result.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Six tests of prompts."""
    return write_csv(tmp_path / "t.csv", *ROWS)


def test_a_test_counts_once_however_often_it_is_told(tmp_path: Path, file: Path) -> None:
    """In a copy, in another format, and in the store: repeats of nothing would look exact."""
    copy = write_json(tmp_path / "copy.json", *ROWS, decode_row(**CPU))
    store = tmp_path / "a.db"
    run("import", file, "--db", store)

    twice, _ = run("evaluate", "--replay", file, "--replay", file, "--replay", copy)
    beside, _ = run("evaluate", "--db", store, "--replay", copy)

    assert (twice["n_runs"], beside["n_runs"]) == (7, 7)


def test_a_run_that_cannot_be_is_named_by_its_place(file: Path) -> None:
    """Where it stands in the file, as the import says."""
    file = write_csv(file, make_row(avg_ts="abc", **CPU), *ROWS, make_row(n_cpu_moe=3, **CPU))

    found, err = run("evaluate", "--replay", file)

    assert found["n_runs"] == 6
    assert "2 rows left out, the first: line 2: avg_ts" in err
    _, err = run("evaluate", "--replay", write_csv(file, *ROWS, make_row(n_cpu_moe=3, **CPU)))
    assert "1 rows left out, the first: line 8: n_cpu_moe=3" in err


def test_what_names_no_machine_is_not_run_on_that_of_another_file(tmp_path: Path) -> None:
    """Two pastes of two machines: what one did is no repeat of what the other did."""
    nameless = {**CPU, "cpu_info": ""}
    rows = [make_row(n_prompt=64 * i, avg_ts=1000 + i, **nameless) for i in range(1, 7)]
    slower = [{**row, "avg_ts": row["avg_ts"] / 2} for row in rows]
    files = write_csv(tmp_path / "a.csv", *rows), write_csv(tmp_path / "b.csv", *slower)

    found, _ = run("evaluate", "--replay", files[0], "--replay", files[1])

    assert found["targets"]["prefill_tps"]["splits"]["leave_one_machine_out"]["n"] == 12
