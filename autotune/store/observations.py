"""Stored runs as a predictor learns from them: many at once, in a handful of queries."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from autotune.domain.machine import Build, DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.run import MEASURE_VERSION, Purpose, Reason
from autotune.domain.stored import RunState
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.store.codec import from_json
from autotune.store.rates import Rates, read_rates
from autotune.store.tables import (
    BuildRow,
    ConfigRow,
    GenerationRow,
    LoadRunRow,
    MachineRow,
    ModelLocationRow,
    ModelRow,
    ProbeRow,
)
from autotune.store.translate.facts import (
    config_value,
    disk_probe,
    machine_facts,
    model_facts,
    probe_value,
)
from autotune.store.translate.history import load_time

UNTOLD = [reason for reason in Reason if not reason.is_label]
"""Reasons that say nothing of the configuration."""
TEACHES = and_(
    or_(
        LoadRunRow.import_key.is_not(None),
        and_(LoadRunRow.measure_version == MEASURE_VERSION, LoadRunRow.elapsed_s.is_not(None)),
    ),
    LoadRunRow.discarded_at.is_(None),
    or_(
        LoadRunRow.reason.is_(None),
        LoadRunRow.reason.not_in(UNTOLD),
        and_(LoadRunRow.purpose == Purpose.USER, LoadRunRow.model_s.is_not(None)),
    ),
)
"""Measured by today's procedure or by somebody else, and told something of the configuration.

A model in use teaches from its load on, also when its application was ended later.
"""

_RUN = (
    LoadRunRow.run_id,
    LoadRunRow.machine_id,
    LoadRunRow.model_id,
    LoadRunRow.model_path,
    LoadRunRow.backend,
    LoadRunRow.workload_id,
    LoadRunRow.purpose,
    LoadRunRow.started_at,
    LoadRunRow.state,
    LoadRunRow.reason,
    LoadRunRow.model_s,
    LoadRunRow.context_s,
    LoadRunRow.first_eval_s,
    LoadRunRow.cached_ratio,
    LoadRunRow.peak_anon_bytes,
    LoadRunRow.peak_file_bytes,
    LoadRunRow.peak_rss_bytes,
    LoadRunRow.peak_vram_bytes,
    LoadRunRow.foreign_cpu_ratio,
    LoadRunRow.cpu_celsius_max,
    LoadRunRow.on_ac,
    LoadRunRow.contamination,
    LoadRunRow.load_contamination,
    LoadRunRow.generations.any(GenerationRow.n_drafted > 0).label("has_guesses"),
    ConfigRow.canonical_json,
    BuildRow.facts_json.label("build_json"),
)


def read_observations(
    session: Session, *conditions: ColumnElement[bool]
) -> tuple[Observation, ...]:
    """One observation for each run, oldest first (one per workload, where a run has several)."""
    rates = read_rates(session, select(LoadRunRow.run_id).where(*conditions))
    shared = _Shared(session)
    query = (
        select(*_RUN)
        .join(LoadRunRow.config)
        .outerjoin(LoadRunRow.build)
        .where(*conditions)
        .order_by(LoadRunRow.run_id)
    )
    return tuple(
        observation
        for run in session.execute(query)
        for observation in _observations(run, rates.get(run.run_id, {}), shared)
    )


def latest_probe(session: Session, machine_id: str) -> Probe | None:
    """The machine's last probe; None for one that was never probed."""
    query = (
        select(ProbeRow)
        .where(ProbeRow.machine_id == machine_id)
        .order_by(ProbeRow.measured_at.desc(), ProbeRow.probe_id.desc())
        .limit(1)
    )
    row = session.scalar(query)
    return None if row is None else probe_value(row)


class _Shared:
    """What many observations refer to: one instance each, made when first asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.config = functools.cache(config_value)
        self.workload = functools.cache(Workload.parse)
        self.build = functools.cache(lambda text: from_json(Build, text) if text else None)
        self.machine = functools.cache(self._machine)
        self.model = functools.cache(self._model)
        self.disk = functools.cache(self._disk)

    def _machine(self, machine_id: str) -> tuple[MachineFacts, Probe | None]:
        row = self._session.get_one(MachineRow, machine_id)
        return machine_facts(row), latest_probe(self._session, machine_id)

    def _model(self, model_id: str) -> ModelFacts:
        return model_facts(self._session.get_one(ModelRow, model_id))

    def _disk(self, model_id: str, path: str | None) -> DiskProbe | None:
        if path is None:
            return None
        return disk_probe(self._session.get_one(ModelLocationRow, (model_id, path)))


def _observations(
    run: Row[*tuple[Any, ...]], rates: dict[str, Rates], shared: _Shared
) -> Iterator[Observation]:
    machine, probe = shared.machine(run.machine_id)
    build = shared.build(run.build_json)
    workloads = {label: shared.workload(label) for label in rates or {run.workload_id: Rates()}}
    largest = max(workloads, key=lambda label: workloads[label].n_tokens)
    for label, workload in workloads.items():
        rate = rates.get(label, Rates())
        whole = _whole(run, rates) if label == largest else {"counts": False}
        yield Observation(
            run_id=run.run_id,
            machine_id=run.machine_id,
            machine=machine,
            probe=probe,
            model=shared.model(run.model_id),
            disk=shared.disk(run.model_id, run.model_path),
            backend=run.backend,
            build=build.label if build else "",
            api=build.api if build else "CPU",
            config=shared.config(run.canonical_json),
            workload=workload,
            purpose=run.purpose,
            started_at=run.started_at,
            reason=_reason(run),
            cached_ratio=run.cached_ratio,
            prefill_tps=rate.prefill_tps,
            decode_tps=rate.decode_tps,
            ttft_s=rate.ttft_s,
            foreign_cpu_ratio=run.foreign_cpu_ratio,
            cpu_celsius_max=run.cpu_celsius_max,
            on_ac=run.on_ac,
            contaminated=_is_contaminated(run, rate),
            load_contaminated=bool(run.load_contamination),
            **whole,
        )


def _whole(run: Row[*tuple[Any, ...]], rates: dict[str, Rates]) -> dict[str, Any]:
    """What is told once of a run, however many workloads it had.

    How much memory ordinary use takes is known when it is over, and only if there was any. Where
    tokens were guessed, each guess took a row of logits that no plan knows of.
    """
    load = load_time(run.model_s, run.context_s, run.first_eval_s)
    is_open = run.state is not RunState.COMPLETE
    if run.purpose is Purpose.USER and (is_open or not rates or run.has_guesses):
        return {"load": load}
    peaks = ("peak_anon_bytes", "peak_file_bytes", "peak_rss_bytes", "peak_vram_bytes")
    return {"load": load} | {name: getattr(run, name) for name in peaks}


def _reason(run: Row[*tuple[Any, ...]]) -> Reason | None:
    """Why it failed. A model in use that was stopped, or whose application was, did not."""
    if run.purpose is Purpose.USER and run.reason in UNTOLD:
        return None
    reason: Reason | None = run.reason
    return reason


def _is_contaminated(run: Row[*tuple[Any, ...]], rate: Rates) -> bool:
    """A measured run is judged as a whole, ordinary use by what is alike in it."""
    if run.purpose is Purpose.USER:
        return bool(rate.n) and not rate.n_clean
    return bool(run.contamination)
