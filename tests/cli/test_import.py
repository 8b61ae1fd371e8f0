"""``autotune import`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from autotune.cli import import_, runs
from autotune.cli.main import main
from autotune.domain.errors import AutotuneError
from tests.store.importers.excerpts import MARKDOWN, decode_row, make_row, write_csv, write_json

app = typer.Typer()
import_.register(app)
runs.register(app)


def run(*words: object) -> str:
    """What the command prints. Raises what it refuses."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def run_json(*words: object) -> Any:
    """The JSON document that the command prints."""
    return json.loads(run(*words, "--json"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two good rows and a bad one."""
    return write_csv(tmp_path / "t.csv", make_row(), make_row(avg_ts="abc"), decode_row())


def test_a_file_is_imported_once(file: Path) -> None:
    """The summary counts what is new, known and malformed, and names what is wrong."""
    first, second = run("import", file), run("import", file)

    assert first.splitlines() == [
        f"{file}: 3 rows read, 2 added, 0 already known, 1 malformed",
        "  line 3: avg_ts is 'abc', not a number",
    ]
    assert "0 added, 2 already known, 1 malformed" in second


def test_the_summary_is_a_document_too(file: Path) -> None:
    """With every problem."""
    assert run_json("import", file) == {
        "file": str(file), "read": 3, "added": 2, "known": 0, "malformed": 1,
        "problems": ["line 3: avg_ts is 'abc', not a number"],
    }  # fmt: skip


def test_only_the_first_problems_are_printed(tmp_path: Path) -> None:
    """Of many; and what no run can be counts as well."""
    rows = [make_row(avg_ts="?")] * 7 + [make_row(n_cpu_moe=3), make_row()]

    lines = run("import", write_csv(tmp_path / "t.csv", *rows)).splitlines()

    assert lines[0].endswith("9 rows read, 1 added, 0 already known, 8 malformed")
    assert len(lines) == 7
    assert lines[-1] == "  and 3 more"


def test_imported_runs_are_listed_and_shown(file: Path) -> None:
    """With who measured them; there is no file."""
    run("import", file)

    assert [listed["purpose"] for listed in run_json("runs")] == ["import", "import"]
    assert "Meta-Llama" in run("runs")
    shown = run_json("show", 1)
    assert (shown["source"], shown["model_path"], shown["elapsed_s"]) == ("t.csv", None, None)
    assert shown["measured"]["prefill_tps"]["median"] == pytest.approx(10000.5)
    assert "measured by t.csv" in run("show", 2)


def test_a_machine_that_the_file_does_not_name_can_be_named(tmp_path: Path) -> None:
    """One name is one machine, whatever each file knows of it."""
    post = tmp_path / "post.md"
    post.write_text(MARKDOWN, encoding="utf-8")
    run("import", post, "--machine", "desk")
    run("import", write_json(tmp_path / "t.json", make_row()), "--machine", "desk")
    run("import", write_json(tmp_path / "u.json", make_row()))

    machines = [listed["machine_id"] for listed in run_json("runs")]
    assert len(machines) == 5
    assert len(set(machines[1:])) == 1
    assert machines[0] != machines[1]
    assert "at an unknown time, measured by post.md" in run("show", 1)


@pytest.mark.parametrize("content", ["hello\n", "", "a,b\n1,2\n"])
def test_what_cannot_be_imported_is_one_line(tmp_path: Path, content: str) -> None:
    """It says what could be; the store is not made for it."""
    file = tmp_path / "t.txt"
    file.write_text(content)

    with pytest.raises(AutotuneError, match="llama-bench JSON, JSONL, CSV") as caught:
        run("import", file)
    assert "\n" not in str(caught.value)
    assert not Path(tmp_path / "home" / "autotune.db").exists()


def test_a_file_without_one_good_row_is_refused(tmp_path: Path) -> None:
    """With the first thing that is wrong."""
    file = write_csv(tmp_path / "t.csv", make_row(avg_ts="abc"))

    with pytest.raises(AutotuneError, match="no row can be used; the first: line 2: avg_ts"):
        run("import", file)


def test_the_program_says_so_in_one_line_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Bad input, like every other."""
    monkeypatch.setattr("sys.argv", ["autotune", "import", str(tmp_path / "none.csv")])

    with pytest.raises(SystemExit) as caught:
        main()

    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cannot be read" in err


def test_a_table_shows_the_newest_runs_and_a_document_all(tmp_path: Path) -> None:
    """A file of fifty tests does not scroll the answer away."""
    rows = [make_row(n_prompt=100 + i, avg_ts=1000 + i) for i in range(50)]
    run("import", write_csv(tmp_path / "many.csv", *rows))
    table = run("runs")

    assert len([line for line in table.splitlines() if "import" in line]) == 40
    assert "older runs are left out: --limit N shows more" in table
    assert len(run_json("runs")) == 50
    assert len(run_json("runs", "--limit", "3")) == 3
    assert "older runs" not in run("runs", "--limit", "3")
