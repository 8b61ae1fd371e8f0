"""The ``autotune`` command: its subcommands, and errors as one line.

Exit status: 0 done, 1 the work failed, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from autotune.cli import (
    bench,
    db,
    demo,
    doctor,
    evaluate,
    export,
    import_,
    inspect,
    kpis,
    predict,
    quality,
    recommend,
    runs,
    tune,
)
from autotune.domain.errors import AutotuneError, WorkFailedError

app = typer.Typer(
    name="autotune",
    help="Measure, predict and tune GGUF language models on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for module in (
    doctor, inspect, bench, tune, recommend, export, predict, quality, evaluate, runs, kpis,
    import_, demo,
):  # fmt: skip
    module.register(app)
app.add_typer(db.app, name="db")


def main() -> None:
    """Run the command line; what went wrong is one line on standard error."""
    try:
        app()
    except AutotuneError as error:
        print(f"autotune: {error}", file=sys.stderr)  # noqa: T201 - the one place that may
        sys.exit(1 if isinstance(error, WorkFailedError) else 2)
