"""Key figures of ordinary use, each computed from the rows by one query.

They are about runs of purpose ``user`` and about recommendations, for a machine, a model and a time
if those are named. What was taken back does not count; contaminated generations do: slow or not,
somebody waited for them. Every query gives one row, (value, number of rows behind it), and runs on
SQLite and on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    SQLColumnExpression,
    and_,
    case,
    cast,
    func,
    or_,
    select,
)

from autotune.domain.run import Purpose
from autotune.store.engine import Database
from autotune.store.observations import UNTOLD
from autotune.store.rates import LEAST_GEN
from autotune.store.tables import GenerationRow, LoadRunRow, ModelRow, RecommendationRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What figures are about; None is everything."""

    machine_id: str | None = None
    model_id: str | None = None
    since: datetime | None = None
    """Aware. Loads from then on, generations that ended and advice that was given since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One figure."""

    value: float | None
    """None where nothing is known, never 0."""
    unit: str
    """``s``, ``bytes``, ``tok/s`` or ``ratio``."""
    n: int
    """How many loads, generations, recommendations or models it is of."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """All figures; :data:`QUERIES` has the query of each."""

    load_s: Kpi
    load_success_ratio: Kpi
    load_memory_bytes: Kpi
    decode_tps: Kpi
    ttft_s: Kpi
    response_s: Kpi
    gpu_utilisation_ratio: Kpi
    memory_efficiency_ratio: Kpi
    backend_switch_ratio: Kpi
    confidence_ratio: Kpi
    followed_ratio: Kpi
    improvement_ratio: Kpi
    cache_hit_ratio: Kpi


Query = Select[*tuple[Any, ...]]
_gen, _run, _advice = GenerationRow, LoadRunRow, RecommendationRow
_LOADED = or_(_run.model_s.is_not(None), _run.reason.is_(None))
"""A load that succeeded, whatever came of the model later."""


def read_kpis(database: Database, scope: Scope) -> Kpis:
    """The figures of one moment of the database. Raises DataError or UserError where it refuses."""
    found: dict[str, Kpi] = {}
    with database.read() as session:
        for name, (unit, meaning, query) in QUERIES.items():
            value, n = session.execute(query(scope)).one()
            known = None if value is None else float(value)
            found[name] = Kpi(value=known, unit=unit, n=n or 0, meaning=meaning)
    return Kpis(**found)


def _load_s(scope: Scope) -> Query:
    """Model, context and first evaluation of each load that succeeded."""
    load_s = _run.model_s + _run.context_s + _run.first_eval_s
    return _median(select(load_s.label("value")).where(*_loads(scope)))


def _load_success(scope: Scope) -> Query:
    """A load that somebody stopped is none. One that generated and crashed later succeeded."""
    told = and_(_run.elapsed_s.is_not(None), or_(_LOADED, _run.reason.not_in(UNTOLD)))
    return _share(_LOADED).where(told, *_loads(scope))


def _load_memory(scope: Scope) -> Query:
    """The peak until a load that succeeded was done, not that of the whole run."""
    peaks = select(_run.load_peak_bytes.label("value"))
    return _median(peaks.where(_LOADED, *_loads(scope)))


def _decode_tps(scope: Scope) -> Query:
    """Sums, so that short answers count as short."""
    rate = _total(_gen.n_gen) * 1e9 / _total(_gen.decode_ns)
    query = select(rate, func.count(_gen.generation_id)).join(_run, _run.run_id == _gen.run_id)
    return query.where(_gen.decode_ns > 0, *_generations(scope))


def _ttft_s(scope: Scope) -> Query:
    """Prompt and first token, in each generation."""
    return _median(_of_generations(_gen.ttft_s, scope))


def _response_s(scope: Scope) -> Query:
    """Prompt and all tokens of each generation."""
    ns = func.coalesce(_gen.prefill_ns, 0) + func.coalesce(_gen.decode_ns, 0)
    timed = or_(_gen.prefill_ns.is_not(None), _gen.decode_ns.is_not(None))
    return _median(_of_generations(cast(ns, Double) / 1e9, scope).where(timed))


def _gpu_utilisation(scope: Scope) -> Query:
    """Over the generations in which a driver told."""
    ratio = _gen.gpu_utilisation_ratio
    query = select(func.avg(ratio), func.count(ratio)).join(_run, _run.run_id == _gen.run_id)
    return query.where(*_generations(scope))


def _memory_efficiency(scope: Scope) -> Query:
    """Bytes of the model's tensors over the peak, in memory and on GPUs, of each model in use."""
    peak = _run.peak_rss_bytes + func.coalesce(_run.peak_vram_bytes, 0)
    ratio = cast(ModelRow.weight_bytes, Double) / peak
    query = select(ratio.label("value")).join_from(
        _run, ModelRow, ModelRow.model_id == _run.model_id
    )
    return _median(query.where(_LOADED, _run.peak_rss_bytes > 0, *_loads(scope)))


def _backend_switches(scope: Scope) -> Query:
    """The loads of a machine in their order, failed ones among them, each beside the one before."""
    before = func.lag(_run.backend).over(
        partition_by=_run.machine_id, order_by=(_run.started_at, _run.run_id)
    )
    loads = select(_run.backend, before.label("before")).where(*_loads(scope)).subquery()
    return _share(loads.c.backend != loads.c.before).where(loads.c.before.is_not(None))


def _confidence(scope: Scope) -> Query:
    """What each recommendation said of itself."""
    query = select(func.avg(_advice.confidence), func.count(_advice.confidence))
    return query.where(*_advised(scope))


def _followed(scope: Scope) -> Query:
    """Loads that had advice at hand: whether they were of its backend and configuration."""
    same = and_(_run.backend == _advice.backend, _run.config_id == _advice.config_id)
    advised = _share(same).join_from(
        _run, _advice, _run.recommendation_id == _advice.recommendation_id
    )
    return advised.where(*_loads(scope))


def _improvement(scope: Scope) -> Query:
    """Of each model on each machine: decode speed in the later half of its loads over the earlier.

    Generations too short to tell a rate are left out, and those with guesses: their rate is that of
    the text.
    """
    subject = (_run.machine_id, _run.model_id)
    tokens, ns = _total(_gen.n_gen), _total(_gen.decode_ns)
    order = (_run.started_at, _run.run_id)
    half = func.ntile(2).over(partition_by=subject, order_by=order)
    halves = (
        select(*subject, tokens.label("tokens"), ns.label("ns"), half.label("half"))
        .join(_gen, _gen.run_id == _run.run_id)
        .where(_gen.decode_ns > 0, _gen.n_gen >= LEAST_GEN, func.coalesce(_gen.n_drafted, 0) == 0)
        .where(*_generations(scope))
        .group_by(*subject, *order)
        .subquery()
    ).c

    def rate(number: int) -> ColumnElement[Any]:
        of_half = {name: case((halves.half == number, halves[name])) for name in ("tokens", "ns")}
        return func.sum(of_half["tokens"]) / func.sum(of_half["ns"])

    gain = select((rate(2) / rate(1)).label("value"))
    return _median(gain.group_by(halves.machine_id, halves.model_id))


def _cache_hits(scope: Scope) -> Query:
    """Recommendations that a predictor made, by whether the stored one had nothing to learn."""
    return _share(_advice.cached).where(_advice.cached.is_not(None), *_advised(scope))


QUERIES: Mapping[str, tuple[str, str, Callable[[Scope], Query]]] = {
    "load_s": ("s", "time to load a model, median", _load_s),
    "load_success_ratio": ("ratio", "loads that succeeded", _load_success),
    "load_memory_bytes": ("bytes", "memory while a model is loaded, median", _load_memory),
    "decode_tps": ("tok/s", "tokens generated per second of generating them", _decode_tps),
    "ttft_s": ("s", "time to the first token, median", _ttft_s),
    "response_s": ("s", "time of a whole answer, median", _response_s),
    "gpu_utilisation_ratio": ("ratio", "how busy the GPUs in use are, mean", _gpu_utilisation),
    "memory_efficiency_ratio": ("ratio", "weights over peak memory, median", _memory_efficiency),
    "backend_switch_ratio": ("ratio", "loads by another backend than before", _backend_switches),
    "confidence_ratio": ("ratio", "confidence of recommendations, mean", _confidence),
    "followed_ratio": ("ratio", "advised loads that followed the advice", _followed),
    "improvement_ratio": ("ratio", "later speed over earlier, median", _improvement),
    "cache_hit_ratio": ("ratio", "recommendations without anything to learn", _cache_hits),
}
"""Unit, meaning and query of each figure."""


def _median(values: Select[*tuple[Any, ...]]) -> Query:
    """Of the column ``value``, where it is known: the middle one, or the mean of the middle two."""
    found = values.subquery()
    value = cast(found.c.value, Double)
    ranked = (
        select(
            value.label("value"),
            func.row_number().over(order_by=value).label("place"),
            func.count().over().label("n"),
        )
        .where(value.is_not(None))
        .subquery()
    ).c
    middle = or_(ranked.place == (ranked.n + 1) // 2, ranked.place == (ranked.n + 2) // 2)
    return select(func.avg(ranked.value), func.max(ranked.n)).where(middle)


def _share(condition: Any) -> Query:
    """Share of the rows for which it holds."""
    return select(func.avg(case((condition, 1.0), else_=0.0)), func.count())


def _total(column: Any) -> ColumnElement[float]:
    """A sum that divides as a number with a fraction."""
    return cast(func.sum(column), Double)


def _of_generations(value: SQLColumnExpression[Any], scope: Scope) -> Query:
    told: Query = select(value.label("value")).join(_run, _run.run_id == _gen.run_id)
    return told.where(*_generations(scope))


def _loads(scope: Scope) -> list[ColumnElement[bool]]:
    """Loads of ordinary use in the scope."""
    return [*_used(scope), *_since(_run.started_at, scope)]


def _generations(scope: Scope) -> list[ColumnElement[bool]]:
    """Generations of ordinary use in the scope, whenever their model was loaded."""
    return [*_used(scope), *_since(func.coalesce(_gen.ended_at, _run.started_at), scope)]


def _advised(scope: Scope) -> list[ColumnElement[bool]]:
    """Recommendations in the scope."""
    return [*_about(_advice, scope), *_since(_advice.made_at, scope)]


def _used(scope: Scope) -> list[ColumnElement[bool]]:
    return [
        _run.purpose == Purpose.USER,
        _run.discarded_at.is_(None),
        *_about(_run, scope),
    ]


def _about(row: type[LoadRunRow | RecommendationRow], scope: Scope) -> list[ColumnElement[bool]]:
    wanted = {row.machine_id: scope.machine_id, row.model_id: scope.model_id}
    return [column == value for column, value in wanted.items() if value is not None]


def _since(moment: SQLColumnExpression[Any], scope: Scope) -> list[ColumnElement[bool]]:
    return [] if scope.since is None else [moment >= scope.since]
