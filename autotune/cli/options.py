"""Options that several commands share, and where things are by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from autotune.domain.config import Config, parse_changes
from autotune.domain.errors import UserError
from autotune.domain.prediction import Hardware, Target
from autotune.domain.workload import Workload
from autotune.store.store import Store

DEFAULT_BACKEND = "llama-cpp-python"
DEFAULT_WORKLOAD = "pp512+tg128@d0"

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file.")]
DbOption = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        envvar="AUTOTUNE_DB",
        help="The store: a SQLite file or a database URL. Default: a file in your data folder.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KNOB=VALUE", help="Set a knob; may be repeated."),
]
WorkloadOption = Annotated[
    str, typer.Option("--workload", metavar="W", help="Tokens in and out, as llama-bench names it.")
]
TargetOption = Annotated[Target, typer.Option("--target", help="What the answer is for.")]
HardwareOption = Annotated[Hardware, typer.Option("--hardware", help="Where it may run.")]
ContextOption = Annotated[
    int | None,
    typer.Option("--n-ctx", metavar="N", min=1, help="Context size; by default the target's."),
]


@contextmanager
def open_store(db: str | None) -> Iterator[Store]:
    """The store at ``--db``, else in the user's data folder; closed afterwards."""
    with Store.open(db or default_db(), now=lambda: datetime.now(UTC)) as store:
        yield store


def default_db() -> str:
    """The SQLite file in the platform's user data folder."""
    return str(Path(platformdirs.user_data_dir("autotune", appauthor=False)) / "autotune.db")


def parse_config(changes: list[str] | None, default: Config) -> Config:
    """The default configuration with the ``--set`` options applied. Raises ConfigError."""
    return parse_changes(changes or [], default)


def parse_workload(text: str) -> Workload:
    """The ``--workload`` option. Raises UserError, also for what cannot be measured yet."""
    workload = Workload.parse(text)
    if workload.n_parallel > 1:
        raise UserError(f"{text}: only one request at a time can be measured; leave out the x")
    return workload
