"""``autotune db``: the store's schema and its copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import DbOption, JsonOption, default_db, open_store
from autotune.cli.output import console, print_json
from autotune.domain.errors import SchemaError, UserError
from autotune.store import schema
from autotune.store.engine import Database

app = typer.Typer(help="The store: upgrade, check, backup.", no_args_is_help=True)


@app.command("upgrade", help="Bring the store to this program's schema.")
def upgrade(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Create or upgrade the store; an existing one is copied first."""
    with open_store(db):
        pass
    _report(_standing(db), as_json)


@app.command("check", help="Say whether the store fits this program.")
def check(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Compare the store's schema with this program's; changes nothing."""
    standing = _standing(db)
    _report(standing, as_json)
    if standing.state is schema.State.NEWER:
        raise SchemaError(f"{standing.label} needs a newer autotune: upgrade the program")
    if standing.state is not schema.State.CURRENT:
        raise SchemaError(f"{standing.label} is {standing.state}: run autotune db upgrade")


@app.command("backup", help="Copy the store to a file while it is in use.")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store, consistently, even while others write."""
    with _database(db) as database:
        if database.file is None:
            raise UserError(f"{database.label} is not a file: use its server's own backup")
        if not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent}: choose another FILE")
        schema.backup(database.file, file)
    if as_json:
        print_json({"backup": str(file), "bytes": file.stat().st_size})
    else:
        console.print(f"copied to {file}", soft_wrap=True)


def _database(db: str | None) -> Database:
    """The database at ``--db``, which must be there already."""
    database = Database.connect(db or default_db())
    if database.file is not None and not database.file.is_file():
        raise UserError(f"there is no store at {database.file}: autotune db upgrade makes one")
    return database


def _standing(db: str | None) -> schema.Standing:
    with _database(db) as database:
        return schema.standing(database)


def _report(standing: schema.Standing, as_json: bool) -> None:
    if as_json:
        print_json(
            {"db": standing.label, "state": standing.state.value, "revision": standing.revision,
             "head": standing.head}
        )  # fmt: skip
    else:
        revision = standing.revision or "none"
        console.print(f"{standing.label}: {standing.state}, revision {revision}", soft_wrap=True)
