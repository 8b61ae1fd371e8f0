"""``autotune export MODEL``: the advised configuration in the words of another program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import DbOption, ModelArgument, open_store
from autotune.cli.output import messages
from autotune.domain.errors import UserError
from autotune.facts.gguf import read_model
from autotune.facts.machine import machine_id, read_machine
from autotune.recommend.export.program import Program
from autotune.recommend.export.program import export as exported

FormatOption = Annotated[Program, typer.Option("--format", help="The program that will read it.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Write to a file, not to standard output."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", help="The tuned configuration, in another program's words.")(export)


def export(
    model: ModelArgument, program: FormatOption, output: OutputOption = None, db: DbOption = None
) -> None:
    """Write what was advised last for a model on this machine; what a study proved comes first."""
    facts = read_model(model)
    with open_store(db) as store:
        advice = store.find_recommendation(
            machine_id=machine_id(read_machine()), model_id=facts.model_id
        )
    if advice is None:
        raise UserError(
            f"nothing was advised for {model.name} on this machine yet: run autotune tune MODEL "
            "(or autotune recommend MODEL)"
        )
    # Absolute, since whoever reads the export stands in another folder.
    text = exported(program, advice, path=model.absolute(), model=facts)
    _write(os.fsencode(text), output)  # a path may hold what is no text


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        typer.echo(content, nl=False)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}; use another --output") from error
    messages.print(f"written to {output}", markup=False, soft_wrap=True)
