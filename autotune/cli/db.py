"""``autotune db``: the store's schema and its copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import DbOption, JsonOption, default_db
from autotune.cli.output import console, print_json
from autotune.domain.errors import SchemaError
from autotune.store.store import Store, StoreStatus

app = typer.Typer(help="The store: upgrade, check, backup.", no_args_is_help=True)


@app.command("upgrade", help="Bring the store to this program's schema.")
def upgrade(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Create or upgrade the store; an existing one is copied first."""
    Store.open(db or default_db()).close()
    _report(Store.status(db or default_db()), as_json)


@app.command("check", help="Say whether the store fits this program.")
def check(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Compare the store's schema with this program's; changes nothing."""
    status = Store.status(db or default_db())
    _report(status, as_json)
    if not status.is_current:
        raise SchemaError(f"{status.label} is {status.state}: autotune db upgrade mends it")


@app.command("backup", help="Copy the store to a file while it is in use.")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store, consistently, even while others write."""
    store = Store.open(db or default_db())
    try:
        store.backup(file)
    finally:
        store.close()
    if as_json:
        print_json({"backup": str(file), "bytes": file.stat().st_size})
    else:
        console.print(f"copied to {file}")


def _report(status: StoreStatus, as_json: bool) -> None:
    if as_json:
        print_json(
            {"db": status.label, "state": status.state, "revision": status.revision,
             "head": status.head}
        )  # fmt: skip
    else:
        console.print(f"{status.label}: {status.state}, revision {status.revision or 'none'}")
