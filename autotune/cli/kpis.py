"""``autotune kpis``: the key figures of ordinary use."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.options import DbOption, JsonOption, open_store, utc_now
from autotune.cli.output import console, plain_table, print_json
from autotune.domain.errors import UserError
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.facts.gguf import read_model
from autotune.store.kpis import Kpi, Scope

_SPAN = re.compile(r"(\d+)([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_HUMAN: dict[str, Callable[[float | None], str]] = {
    "s": human_seconds,
    "bytes": human_bytes,
    "tok/s": human_rate,
}

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="A date, or 12h, 7d, 4w ago.")
]
OfModelOption = Annotated[
    Path | None, typer.Option("--model", metavar="MODEL", help="Only of this GGUF file.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("kpis", help="Key figures of ordinary use.")(kpis)


def kpis(
    model: OfModelOption = None,
    since: SinceOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print how applications fare with the models that they load."""
    scope = Scope(
        model_id=read_model(model).model_id if model else None,
        since=parse_since(since, now=utc_now()) if since else None,
    )
    with open_store(db) as store:
        found = store.kpis(scope)
    figures = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    if as_json:
        print_json({name: dataclasses.asdict(kpi) for name, kpi in figures.items()})
        return
    table = plain_table("figure", "value", "of")
    for kpi in figures.values():
        table.add_row(kpi.meaning, human_kpi(kpi), str(kpi.n) if kpi.n else "–")
    console.print(table)
    if not any(kpi.n for kpi in figures.values()):
        console.print("nothing yet: applications that load a model here are counted", style="dim")


def human_kpi(kpi: Kpi) -> str:
    """Its value with its unit, ``–`` where nothing is known."""
    if kpi.unit in _HUMAN:
        return _HUMAN[kpi.unit](kpi.value)
    return "–" if kpi.value is None else f"{kpi.value:.0%}"


def parse_since(text: str, *, now: datetime) -> datetime:
    """``2026-11-01`` (UTC unless it says otherwise), or so many hours, days or weeks before now.

    Raises UserError for anything else.
    """
    span = _SPAN.fullmatch(text.strip())
    try:
        if span is not None:
            return now - timedelta(hours=int(span[1]) * _HOURS[span[2]])
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):  # no calendar goes back 99999999 days
        raise UserError(f"--since {text!r} is no time: write 2026-11-01, 12h, 7d or 4w") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
