"""Options that several commands share, and where things are by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from autotune.backends.registry import BUILT_IN
from autotune.domain.config import Config, parse_changes
from autotune.domain.errors import UserError
from autotune.domain.limits import Limits
from autotune.domain.prediction import Hardware, Target
from autotune.domain.units import parse_bytes, parse_seconds
from autotune.domain.workload import PRESETS, Workload
from autotune.integration.address import default_db as address_of
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
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help=f"What runs it: {', '.join(BUILT_IN)}, or another that doctor lists.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KNOB=VALUE", help="Set a knob; may be repeated."),
]
WorkloadOption = Annotated[
    str,
    typer.Option(
        "--workload",
        metavar="W",
        help=f"As llama-bench names it, or {', '.join(PRESETS)}.",
    ),
]
MemoryOption = Annotated[
    str | None, typer.Option("--max-memory", metavar="SIZE", help="Most memory, such as 2G.")
]
LatencyOption = Annotated[
    str | None,
    typer.Option("--max-ttft", metavar="TIME", help="Longest time to first token, such as 0.5s."),
]
LossyOption = Annotated[
    bool,
    typer.Option(
        "--allow-lossy/--keep-quality", help="Whether a quantised KV cache may be the answer."
    ),
]
LOSSY_TYPES = ("q8_0",)
"""Cache types that ``--allow-lossy`` adds: half the memory for 0.004 (SmolLM2) to 0.007 (gemma-3)
nats per token. A quarter of it costs ten times as much: nobody gets that without having asked."""
FRONT_TYPES = ("q8_0", "q4_0")
"""Those among which ``--pareto`` shows what they trade."""
TargetOption = Annotated[Target, typer.Option("--target", help="What the answer is for.")]
HardwareOption = Annotated[Hardware, typer.Option("--hardware", help="Where it may run.")]
ContextOption = Annotated[
    int | None,
    typer.Option("--n-ctx", metavar="N", min=1, help="Context size; by default the target's."),
]


@contextmanager
def open_store(db: str | None) -> Iterator[Store]:
    """The store at ``--db``, else in the user's data folder; closed afterwards."""
    with Store.open(db or default_db(), now=utc_now) as store:
        yield store


def utc_now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


def default_db() -> str:
    """The SQLite file in the platform's user data folder."""
    return address_of({})


def parse_config(changes: list[str] | None, default: Config) -> Config:
    """The default configuration with the ``--set`` options applied. Raises ConfigError."""
    return parse_changes(changes or [], default)


def parse_limits(max_memory: str | None, max_ttft: str | None) -> Limits:
    """The ``--max-…`` options. Raises UserError."""
    return Limits(
        memory_bytes=None if max_memory is None else parse_bytes(max_memory),
        ttft_s=None if max_ttft is None else parse_seconds(max_ttft),
    )


def parse_workload(text: str) -> Workload:
    """The ``--workload`` option: a preset's name or a label. Raises UserError for anything else,
    also for what cannot be measured yet."""
    workload = Workload.parse(PRESETS.get(text, text))
    if workload.n_parallel > 1:
        raise UserError(f"{text}: only one request at a time can be measured; leave out the x")
    return workload
