"""Reports are whole files or none, and a result of a load can be read in every way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autotune.domain.errors import UserError
from autotune.integration.loading import LoadingResult
from autotune.integration.report import write_report


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    """Values that JSON does not know become text; nothing lies beside it."""
    path = tmp_path / "report.json"
    path.write_text("old")
    report = {"model": Path("models/größe.gguf"), "rate": 1.5, "none": None}

    assert write_report(path, report) == path
    assert json.loads(path.read_text("utf-8")) == {**report, "model": "models/größe.gguf"}
    assert [file for file in tmp_path.iterdir() if file.name != "home"] == [path]


def test_the_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back is absolute."""
    monkeypatch.chdir(tmp_path)
    assert write_report(Path("report.json"), {}) == tmp_path / "report.json"


def test_a_name_that_is_no_text_is_written(tmp_path: Path) -> None:
    """Files may have any bytes in their names."""
    name = os.fsdecode(b"model-\xff.gguf")
    path = write_report(tmp_path / "report.json", {"path": name})
    assert json.loads(path.read_text("utf-8")) == {"path": name}


@pytest.mark.parametrize("place", ["missing/report.json", "folder", "a\0b"])
def test_where_it_cannot_be_written_nothing_is_left(tmp_path: Path, place: str) -> None:
    """One line that says what to do."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="choose a folder that can be written"):
        write_report(tmp_path / place, {})
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["folder"]


def test_what_cannot_be_moved_leaves_the_report_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing beside it."""
    path = write_report(tmp_path / "report.json", {"n": 1})

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_report(path, {"n": 2})
    assert json.loads(path.read_text("utf-8")) == {"n": 1}
    assert [file.name for file in tmp_path.iterdir() if file.name != "home"] == ["report.json"]


def test_a_result_is_read_by_attribute_or_by_key() -> None:
    """It is a mapping, and JSON knows it."""
    result = LoadingResult(success=True, backend_used="x", load_time=5.0, tried={"y": "missing"})
    assert result["load_time"] == result.load_time == 5.0
    assert dict(result)["tried"] == {"y": "missing"}
    assert json.loads(json.dumps(result.to_dict()))["success"] is True
    assert result.get("speed") is None
    with pytest.raises(KeyError, match="speed"):
        result["speed"]


def test_a_failure_names_backend_and_reason() -> None:
    """And nothing was used."""
    result = LoadingResult.failure("x", UserError("no such file: name another"))
    assert (result.success, result.backend_used) == (False, "x")
    assert result.error_message == "no such file: name another"
    assert (result.load_time, result.memory_usage) == (0, 0)
