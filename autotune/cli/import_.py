"""``autotune import FILE``: somebody else's telemetry into the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import DbOption, JsonOption, open_store
from autotune.cli.output import console, print_json
from autotune.domain.errors import DataError

_SHOWN = 5
"""Problems that are named one by one."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", help="Somebody else's measurements into the store.")(import_file)


def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Output of llama-bench, any format.")
    ],
    machine: Annotated[
        str | None,
        typer.Option("--machine", metavar="NAME", help="Where it was measured, if FILE is silent."),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a file's tests as runs that teach; importing it again adds nothing.

    Raises DataError for a file without one test that can be used.
    """
    from autotune.store.importers.files import read_file

    told = read_file(file, machine=machine)
    if not told.tests:
        raise _useless(file, told.problems)
    with open_store(db) as store:
        result = store.import_tests(told.tests)
    problems = (*told.problems, *result.problems)
    if not result.n_added and not result.n_known:
        raise _useless(file, problems)
    if as_json:
        print_json(
            {"file": str(file), "read": len(told.tests) + len(told.problems),
             "added": result.n_added, "known": result.n_known, "malformed": len(problems),
             "problems": list(problems)}
        )  # fmt: skip
        return
    console.print(
        f"{file}: {len(told.tests) + len(told.problems)} rows read, {result.n_added} added, "
        f"{result.n_known} already known, {len(problems)} malformed",
        soft_wrap=True,
    )
    for problem in problems[:_SHOWN]:
        console.print(f"  {problem}", soft_wrap=True, markup=False)
    if len(problems) > _SHOWN:
        console.print(f"  and {len(problems) - _SHOWN} more")


def _useless(file: Path, problems: Sequence[str]) -> DataError:
    return DataError(f"{file}: no row can be used; the first: {problems[0]}")
