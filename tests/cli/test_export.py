"""``autotune export`` as a person types it."""

from __future__ import annotations

import json
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from autotune.cli.main import app
from autotune.domain.config import Config
from autotune.domain.errors import DataError, UserError
from autotune.facts.gguf import read_model
from autotune.facts.machine import machine_id, read_machine
from autotune.recommend.export.program import Program
from autotune.store.store import Store
from tests.factories import make_machine
from tests.store import examples

CONFIG = Config(n_ctx=2048, n_ubatch=64, n_threads=3)


def invoke(*words: object) -> Result:
    """The outcome of ``autotune export WORDS``."""
    return CliRunner().invoke(app, ["export", *map(str, words)])


def run(*words: object) -> str:
    """What ``autotune export WORDS`` prints. Raises what it refuses."""
    result = invoke(*words)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A store of its own."""
    return tmp_path / "advice.db"


@pytest.fixture
def model(smollm2_path: Path, db: Path) -> Path:
    """A model that somebody asked about on this machine, and on another."""
    facts, here = read_model(smollm2_path), machine_id(read_machine())
    with Store.open(db, now=lambda: datetime.now(UTC)) as store:
        store.record_model(facts, smollm2_path)
        for name, config in ((here, CONFIG), ("elsewhere", CONFIG.replace(n_threads=9))):
            store.record_machine(name, make_machine())
            prediction = examples.make_prediction(config=config)
            store.record_recommendation(
                examples.make_recommendation(prediction=prediction),
                machine_id=name,
                model_id=facts.model_id,
            )
    return smollm2_path


@pytest.mark.parametrize("program", [*Program])
def test_every_format_is_written(program: Program, model: Path, db: Path) -> None:
    """To standard output, with the file's whole path, whatever the format."""
    text = run(model, "--format", program.value, "--db", db)

    assert str(model) in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_advice_of_this_machine_is_exported(model: Path, db: Path) -> None:
    """Not that of the other, and not the default."""
    document = json.loads(run(model, "--format", "json", "--db", db))

    assert document["config"] == CONFIG.as_dict()
    assert (document["evidence"], document["speedup"]) == ("prediction", None)


def test_a_path_is_exported_from_where_one_stands(
    model: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the export stands elsewhere: a relative path is made whole."""
    monkeypatch.chdir(model.parent)
    line = run(model.name, "--format", "llama-server", "--db", db)

    assert shlex.split(line, comments=True)[:3] == ["llama-server", "-m", str(model)]


def test_a_file_takes_the_export(model: Path, db: Path, tmp_path: Path) -> None:
    """Nothing but the file on standard output; what was there is replaced."""
    file = tmp_path / "tuned.env"
    file.write_text("old" * 9999)
    result = invoke(model, "--format", "env", "--db", db, "--output", file)

    assert (result.exit_code, result.stdout) == (0, "")
    assert str(file) in result.stderr
    assert file.read_text() == run(model, "--format", "env", "--db", db)


@pytest.mark.skipif(os.name != "posix", reason="paths are text elsewhere")
def test_a_name_that_is_no_text_is_exported_as_it_is(model: Path, db: Path, tmp_path: Path) -> None:
    """Bytes in, the same bytes out."""
    path = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    path.symlink_to(model)
    result = invoke(path, "--format", "ollama", "--db", db)
    assert isinstance(result.exception, UserError)
    assert "rename or link the file" in str(result.exception)

    file = tmp_path / "line.sh"
    invoke(path, "--format", "llama-server", "--db", db, "--output", file)
    assert os.fsencode(path) in file.read_bytes()
    assert json.loads(run(path, "--format", "json", "--db", db))["model"] == str(path)


def test_a_model_that_nobody_asked_about_says_how_to_ask(smollm2_path: Path, db: Path) -> None:
    """One line with the command."""
    with pytest.raises(
        UserError, match=r"run autotune tune MODEL \(or autotune recommend"
    ) as error:
        run(smollm2_path, "--format", "ollama", "--db", db)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_said(model: Path, db: Path, tmp_path: Path) -> None:
    """One line that names it."""
    with pytest.raises(UserError, match=r"cannot write .*use another --output"):
        run(model, "--format", "env", "--db", db, "--output", tmp_path / "none" / "x.env")


def test_bad_input_is_refused(tmp_path: Path, db: Path, model: Path) -> None:
    """A format that is none, no format, a file that is no model."""
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(b"noise" * 100)

    assert invoke(model, "--format", "vllm", "--db", db).exit_code == 2
    assert invoke(model, "--db", db).exit_code == 2
    assert isinstance(invoke(noise, "--format", "env", "--db", db).exception, DataError)
