"""Rates of stored runs: medians over the generations that are alike.

A measured run has a handful of generations, all of one workload or a few. A run of ordinary use has
any number of them, of all sizes: they are grouped by :attr:`Workload.coarse`, the newest count, and
those too short to tell a rate do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from sqlalchemy import Row, Select, func, or_, select
from sqlalchemy.orm import Session

from autotune.domain import stats
from autotune.domain.run import Purpose
from autotune.domain.workload import Workload
from autotune.store.tables import GenerationRow, LoadRunRow

NEWEST = 128
"""Generations of a run of ordinary use that count."""
MOST_CLASSES = 8
"""Workloads of a run of ordinary use that count: those with the most generations."""
LEAST_PROMPT = 32
"""Prompt tokens below which the engine's start-up is most of the time."""
LEAST_GEN = 16
"""Generated tokens below which a rate is chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Medians over the generations of one run under one workload: over the clean ones, if any."""

    prefill_tps: float | None = None
    decode_tps: float | None = None
    ttft_s: float | None = None
    n: int = 0
    n_clean: int = 0


def read_rates(session: Session, runs: Select[int]) -> dict[int, dict[str, Rates]]:
    """Rates of the selected run numbers: run → workload → rates.

    Of ordinary use the workloads are coarse, the commonest first.
    """
    query = (
        select(
            GenerationRow.run_id,
            GenerationRow.workload_id,
            GenerationRow.prefill_tps,
            GenerationRow.decode_tps,
            GenerationRow.ttft_s,
            GenerationRow.contamination,
            GenerationRow.n_drafted,
            LoadRunRow.purpose,
        )
        .join(LoadRunRow, LoadRunRow.run_id == GenerationRow.run_id)
        .where(
            GenerationRow.run_id.in_(runs),
            or_(LoadRunRow.purpose != Purpose.USER, GenerationRow.generation_id.in_(_newest(runs))),
        )
        .order_by(GenerationRow.run_id, GenerationRow.workload_id)
    )
    rates: dict[int, dict[str, Rates]] = defaultdict(dict)
    for run_id, rows in groupby(session.execute(query), lambda row: row.run_id):
        found = list(rows)
        is_use = found[0].purpose is Purpose.USER
        rates[run_id] = _rates_of_use(found) if is_use else _rates(found)
    return rates


def _newest(runs: Select[int]) -> Select[int]:
    """The numbers of each run's newest generations, of the runs of ordinary use."""
    place = func.row_number().over(
        partition_by=GenerationRow.run_id, order_by=GenerationRow.generation_id.desc()
    )
    placed = (
        select(GenerationRow.generation_id, place.label("place"))
        .join(LoadRunRow, LoadRunRow.run_id == GenerationRow.run_id)
        .where(GenerationRow.run_id.in_(runs), LoadRunRow.purpose == Purpose.USER)
        .subquery()
    )
    return select(placed.c.generation_id).where(placed.c.place <= NEWEST)


def _rates(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[str, Rates]:
    """Of one measured run, whose rows come by workload."""
    rates = {}
    for workload_id, alike in groupby(rows, lambda row: row.workload_id):
        told = [(row.prefill_tps, row.decode_tps, row.ttft_s, row.contamination) for row in alike]
        rates[workload_id] = _medians(told)
    return rates


def _rates_of_use(rows: Iterable[Row[*tuple[Any, ...]]]) -> dict[str, Rates]:
    """Of one run of ordinary use: what is long enough, by coarse workload."""
    classes: dict[str, list[_Told]] = defaultdict(list)
    for row in rows:
        workload = _parsed(row.workload_id)
        told = _long_enough(workload, row)
        if told is not None:
            classes[workload.coarse.label].append(told)
    common = sorted(classes.items(), key=lambda item: len(item[1]), reverse=True)
    return {label: _medians(told) for label, told in common[:MOST_CLASSES]}


_Told = tuple[float | None, float | None, float | None, str | None]
"""(prefill_tps, decode_tps, ttft_s, contamination)"""


def _long_enough(workload: Workload, row: Row[*tuple[Any, ...]]) -> _Told | None:
    """The rates of a generation that its length lets tell; None where there is none.

    Where tokens were guessed, their rate is that of the text, and says nothing of the engine.
    """
    reads = workload.n_prompt >= LEAST_PROMPT
    writes = workload.n_gen >= LEAST_GEN and not row.n_drafted
    if not (reads or writes):
        return None
    return (
        row.prefill_tps if reads else None,
        row.decode_tps if writes else None,
        row.ttft_s if reads else None,
        row.contamination,
    )


_parsed = lru_cache(maxsize=2**15)(Workload.parse)


def _medians(told: Sequence[_Told]) -> Rates:
    clean = [rates for rates in told if not rates[3]]
    prefill, decode, ttft, _ = zip(*(clean or told), strict=True)
    return Rates(
        prefill_tps=_median(prefill),
        decode_tps=_median(decode),
        ttft_s=_median(ttft),
        n=len(told),
        n_clean=len(clean),
    )


def _median(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return stats.median(known) if known else None
