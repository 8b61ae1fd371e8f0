"""A run from its beginning to its end, and what must not be written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import StatementError

from autotune.domain.errors import DataError, UserError
from autotune.domain.prediction import TARGETS
from autotune.domain.run import MEASURE_VERSION, Reason, Run
from autotune.domain.stored import RunState
from autotune.domain.study import StudyState
from autotune.store.recorder import Recorder
from autotune.store.store import Store
from autotune.store.tables import ModelLocationRow, RecommendationRow
from tests.factories import make_generation, make_model, make_probe, make_run, make_trial
from tests.store import examples


def test_a_run_is_there_before_it_is_over(store: Store) -> None:
    """With what was expected of it; the outcome is not known yet."""
    run_id = examples.begin(store, prediction=examples.make_prediction(), planned_bytes=123)

    record = store.load_run(run_id)
    assert record.summary.state is RunState.RUNNING
    assert record.prediction == examples.make_prediction()
    assert (record.planned_bytes, record.source) == (123, "local")
    assert record.measure_version == MEASURE_VERSION
    assert record.run is None


def test_a_prediction_is_one_row_for_each_target(store: Store) -> None:
    """So that SQL can compare it with what came true; success has a probability instead."""
    examples.begin(store, prediction=examples.make_prediction())

    query = text("SELECT target, q50, p_success FROM prediction")
    with store.database.read() as session:
        rows = {target: (q50, p) for target, q50, p in session.execute(query)}
    assert set(rows) == {*TARGETS, "success"}
    assert rows["decode_tps"] == (100.0, None)
    assert rows["success"] == (None, 0.97)


def test_a_run_reports_once(store: Store) -> None:
    """A second report would overwrite a measurement."""
    run_id = examples.record(store)

    with pytest.raises(UserError, match="no open run 1"):
        store.finish_run(run_id, make_run())
    with pytest.raises(UserError, match="no open run 1"):
        store.cancel_run(run_id)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_failure_is_a_row_with_its_reason(store: Store, reason: Reason) -> None:
    """Every reason of the closed set, with nothing measured."""
    bare = Run(
        trial=make_trial(), backend=examples.BACKEND, build=None, elapsed_s=0.1, reason=reason,
        message="one line", started_at=examples.epoch(),
    )  # fmt: skip

    run_id = examples.record(store, bare)

    assert store.load_run(run_id).run == bare
    assert store.list_runs()[0].state is RunState.FAILED


def test_a_cancelled_run_is_closed_without_an_outcome(store: Store) -> None:
    """Somebody pressed Ctrl-C: the row says so, and teaches nothing."""
    run_id = examples.begin(store)

    store.cancel_run(run_id)

    (stored,) = store.list_runs()
    assert (stored.state, stored.reason) == (RunState.FAILED, Reason.CANCELLED)
    assert store.observations() == ()
    with pytest.raises(UserError, match="no open run"):
        store.finish_run(run_id, make_run())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE load_run SET state = 'odd'",
        "UPDATE load_run SET reason = 'bad luck', state = 'failed'",
        "UPDATE load_run SET state = 'failed'",
        "UPDATE load_run SET reason = 'oom'",
        "UPDATE load_run SET purpose = 'fun'",
        "UPDATE load_run SET elapsed_s = -1",
        "UPDATE prediction SET p_success = 1.5 WHERE target = 'success'",
        "UPDATE prediction SET q50 = NULL WHERE target = 'ttft_s'",
    ],
)
def test_the_database_refuses_what_no_domain_value_can_be(store: Store, change: str) -> None:
    """Closed sets and signs are rules of the tables, whoever writes."""
    examples.record(store, prediction=examples.make_prediction())

    with pytest.raises(DataError, match="CHECK"), store.database.write() as session:
        session.execute(text(change))


def test_a_naive_instant_is_refused(store: Store) -> None:
    """It would be read back as another moment."""
    with pytest.raises(StatementError, match="which time zone"):
        examples.record(store, make_run(started_at=datetime(2026, 11, 1)))  # noqa: DTZ001


def test_a_run_may_generate_under_several_workloads(store: Store) -> None:
    """Each generation knows its own; a failed write would leave none."""
    trial = make_trial()
    other = make_trial().workload.__class__(n_prompt=8, n_gen=2)
    generations = (
        make_generation(workload=trial.workload),
        make_generation(workload=other, token_ns=(5, 6), prefill_ns=None, ttft_ns=None),
    )

    run_id = examples.record(store, make_run(trial=trial, generations=generations))

    stored = store.load_run(run_id).run
    assert stored is not None
    assert stored.generations == generations


def test_where_a_model_was_seen_is_kept(store: Store, tmp_path: Path) -> None:
    """Path and time of change, per model; a file that is gone has no time."""
    path = tmp_path / "here.gguf"
    path.write_bytes(b"GGUF")

    store.record_model(make_model(), path)

    with store.database.read() as session:
        rows = {row.path: row for row in session.scalars(select(ModelLocationRow))}
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    assert rows[str(path)].modified_at == changed
    assert rows[str(examples.MODEL_PATH)].modified_at is None


def test_the_latest_probe_counts(store: Store, clock: examples.Clock) -> None:
    """Earlier ones stay, to see a machine change."""
    clock.advance(60)
    later = make_probe(elapsed_s=9.0)
    store.record_probe(examples.MACHINE_ID, later)

    assert store.load_probe(examples.MACHINE_ID) == later
    assert store.load_probe("never probed") is None


def test_a_study_from_start_to_finish(store: Store, clock: examples.Clock) -> None:
    """The question, its runs, how it ended."""
    with pytest.raises(UserError, match="no study 1"):
        store.finish_study(1, StudyState.COMPLETE)
    study_id = examples.start_study(store)
    examples.record(store, study_id=study_id)
    examples.record(store, make_run(reason=Reason.OOM, generations=()), study_id=study_id)
    clock.advance(30)
    store.finish_study(study_id, StudyState.COMPLETE, "found")

    stored = store.load_study(study_id)
    assert stored.study == examples.make_study()
    assert (stored.state, stored.note) == (StudyState.COMPLETE, "found")
    assert (stored.n_runs, stored.n_failed) == (2, 1)
    assert stored.finished_at is not None
    assert (stored.finished_at - stored.started_at).total_seconds() == 30
    assert store.list_studies() == (stored,)
    assert store.list_studies(model_id="another") == ()


def test_a_recommendation_keeps_its_reasons(store: Store) -> None:
    """What was advised, to whom, and what it brought."""
    advice = examples.make_recommendation()

    number = store.record_recommendation(
        advice, machine_id=examples.MACHINE_ID, model_id=examples.MODEL_ID, speedup=1.4
    )

    with store.database.read() as session:
        row = session.get_one(RecommendationRow, number)
        assert row.config_id == advice.config.config_id
        assert row.reasons == '["measured","fits"]'
        assert (row.target, row.confidence, row.speedup) == (advice.target, 0.8, 1.4)


def test_a_process_without_a_birth_is_known_by_its_number() -> None:
    """Where the system does not tell when a process started, its number must do."""
    ours = Recorder.this_process()

    assert not ours.is_gone()
    assert not Recorder(pid=ours.pid, birth=None).is_gone()
    assert Recorder(pid=2**22 + 1, birth=None).is_gone()
    assert Recorder(pid=ours.pid, birth="another boot:1").is_gone()
