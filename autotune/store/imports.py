"""Somebody else's tests as runs: rows that teach beside our own and name where they come from.

A test is told by what it says, not by the file that it lies in: the same file twice, or the same
test as JSON and as CSV, is one run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from autotune.domain.conditions import Contamination
from autotune.domain.errors import DataError, UserError
from autotune.domain.imported import ImportedTest
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.run import DevicePeak, Generation, Purpose, Run, Trial
from autotune.domain.stored import RunState
from autotune.domain.study import Observation
from autotune.facts.imported import (
    complete_tests,
    described_machine,
    imported_machine_id,
    joined_machine,
    machine_name,
    observe_test,
)
from autotune.store.engine import Database
from autotune.store.recorder import Recorder
from autotune.store.tables import (
    Base,
    BuildRow,
    ConfigRow,
    LoadRunRow,
    MachineRow,
    ModelRow,
    WorkloadRow,
)
from autotune.store.translate.facts import (
    build_row,
    config_row,
    machine_facts,
    machine_row,
    model_row,
    workload_row,
)
from autotune.store.translate.history import fill_outcome

MEASURE_VERSION = 0
"""The measuring procedure of somebody else: no number of ours."""

_NOT_SAID = ("source", "place", "samples_tps", "n_reps", "is_hearsay")
"""Differs between the formats of one test, or between names of one file."""
_UNSAID: Mapping[str, tuple[object, ...]] = {"op_offload": (None, True)}
"""Columns of later versions, at their defaults: what was imported before is still the same test."""


class Imported(NamedTuple):
    """What came of an import."""

    n_added: int
    n_known: int
    """Tests that were there already, or that the file says twice."""
    problems: tuple[str, ...]
    """A line for each test that no run can be: where it stands, and why."""


def import_tests(database: Database, tests: Iterable[ImportedTest], *, now: datetime) -> Imported:
    """Add the tests that are not there yet, with their machines, models and builds."""
    said = tuple(tests)
    keys = [import_key(test) for test in said]
    complete = complete_tests(said)
    with database.write() as session:
        known = known_keys(session)
        new = {key: test for key, test in zip(keys, complete, strict=True) if key not in known}
        writer = _Writer(session, _machines(session, new.values(), now), now=now)
        with session.no_autoflush:
            found = [writer.add(key, test) for key, test in new.items()]
        session.flush()
    problems = tuple(problem for problem in found if problem is not None)
    return Imported(len(new) - len(problems), len(said) - len(new), problems)


def import_key(test: ImportedTest) -> str:
    """32 hexadecimal digits that are the same for a test that says the same."""
    said = {
        name: value
        for name, value in _plain(test).items()
        if name not in _NOT_SAID and value not in _UNSAID.get(name, ())
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _plain(test: ImportedTest) -> dict[str, object]:
    """Every field, JSON-ready."""
    at = test.measured_at
    return dataclasses.asdict(test) | {"measured_at": None if at is None else at.isoformat()}


def known_keys(session: Session) -> set[str]:
    """The keys of all tests that were imported."""
    query = select(LoadRunRow.import_key).where(LoadRunRow.import_key.is_not(None))
    return {key for key in session.scalars(query) if key is not None}


def _machines(
    session: Session, tests: Iterable[ImportedTest], now: datetime
) -> dict[str, MachineFacts]:
    """Machines by name, as recorded: what is known already, and what these tests tell of them."""
    by_name: dict[str, list[ImportedTest]] = defaultdict(list)
    for test in tests:
        by_name[machine_name(test)].append(test)
    machines = {}
    for name, found in by_name.items():
        facts, machine_id = described_machine(found), imported_machine_id(name)
        row = session.get(MachineRow, machine_id)
        machines[name] = facts if row is None else joined_machine(machine_facts(row), facts)
        session.merge(machine_row(machine_id, machines[name], seen_at=now))
    session.flush()
    return machines


Row = TypeVar("Row", bound=Base)


class _Writer:
    """Adds runs to one session; what they share is written once."""

    def __init__(
        self, session: Session, machines: dict[str, MachineFacts], *, now: datetime
    ) -> None:
        self._session, self._machines, self._now = session, machines, now
        self._shared: dict[tuple[type[Base], str], Base] = {}
        self._recorder = Recorder.this_process()

    def add(self, key: str, test: ImportedTest) -> str | None:
        """Add the run of a test; what is wrong with it where no run can be made of it."""
        name = machine_name(test)
        try:
            seen = observe_test(test, number=0, machine=self._machines[name])
        except (DataError, UserError) as error:
            return f"{test.place or test.model or test.model_type}: {error}"
        self._session.add(self._row(key, test, seen))
        return None

    def _row(self, key: str, test: ImportedTest, seen: Observation) -> LoadRunRow:
        assert seen.workload is not None  # every test has one
        model, config, workload = seen.model, seen.config, seen.workload
        build = imported_build(test)
        row = LoadRunRow(
            machine_id=seen.machine_id,
            model=self._one(ModelRow, model.model_id, partial(model_row, model)),
            backend=seen.backend,
            build=self._one(BuildRow, repr(build), partial(build_row, build)),
            config=self._one(ConfigRow, config.config_id, partial(config_row, config)),
            workload=self._one(WorkloadRow, workload.label, partial(workload_row, workload)),
            purpose=Purpose.IMPORT,
            n_reps=test.n_reps or 1,
            max_reps=test.n_reps or 1,
            sampling_s=0.0,
            timeout_s=0.0,
            source=test.source,
            measure_version=MEASURE_VERSION,
            import_key=key,
            import_json=json.dumps(_plain(test), sort_keys=True),
            started_at=seen.started_at,
            state=RunState.RUNNING,
            recorder_pid=self._recorder.pid,
            recorder_birth=self._recorder.birth,
        )
        fill_outcome(row, _run(test, seen))
        # Nobody says how long it took, nor what else ran beside it.
        row.elapsed_s = None
        hearsay = Contamination.REPORTED if test.is_hearsay else None
        row.contamination = row.load_contamination = hearsay
        for generation in row.generations:
            generation.contamination = hearsay
        return row

    def _one(self, kind: type[Row], key: str, make: Callable[[], Row]) -> Row:
        """The row of that key in the session, a new one if there is none yet."""
        if (kind, key) not in self._shared:
            self._shared[kind, key] = self._session.merge(make())
        found = self._shared[kind, key]
        assert isinstance(found, kind)
        return found


def imported_build(test: ImportedTest) -> Build:
    """The engine that ran a test, with a device of what it computed on."""
    gpu = () if test.api in (None, "CPU") else (f"{test.api}0",)
    return Build(backend=test.backend, version=test.build or "", devices=("CPU", *gpu))


def _run(test: ImportedTest, seen: Observation) -> Run:
    """The outcome of a test, as one of our own runs would have it."""
    assert seen.workload is not None  # every test has one
    peak = () if test.peak_vram_bytes is None else (test.peak_vram_bytes,)
    return Run(
        trial=Trial(
            model_path=Path(seen.model.name), config=seen.config, workload=seen.workload, n_reps=1
        ),
        backend=seen.backend,
        build=None,
        started_at=seen.started_at,
        elapsed_s=0.0,
        reason=seen.reason,
        message=f"failed, says {test.source}" if seen.reason else "",
        load=seen.load,
        peak_vram=tuple(DevicePeak(device=f"{seen.api}0", n_bytes=n) for n in peak),
        generations=tuple(_generations(test, seen)),
    )


def _generations(test: ImportedTest, seen: Observation) -> Sequence[Generation]:
    """One for each repetition that is told; none for a rate that belongs to no phase."""
    rate = seen.prefill_tps or seen.decode_tps
    if rate is None or seen.workload is None:
        return ()
    n_tokens = test.n_prompt + test.n_gen
    times = [round(n_tokens * 1e9 / tps) for tps in test.samples_tps or (rate,)]
    is_prefill = seen.prefill_tps is not None
    return [
        Generation(
            workload=seen.workload,
            repetition=repetition,
            prefill_ns=ns if is_prefill else None,
            decode_ns=None if is_prefill else ns,
        )
        for repetition, ns in enumerate(times)
    ]
