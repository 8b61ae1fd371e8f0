"""What goes in comes out: domain → row → domain."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.domain.config import KNOBS, Config
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Prediction
from autotune.domain.run import Run
from autotune.store.codec import from_json, to_json
from autotune.store.store import Store
from autotune.store.tables import ConfigRow
from autotune.store.tables.base import Instant
from tests.factories import make_build, make_machine, make_model, make_run, make_trial
from tests.store import examples, strategies

many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(config=strategies.configs())
def test_a_configuration_survives(shared_store: Store, config: Config) -> None:
    """Every knob comes back, and every knob is a column that SQL can ask for."""
    run_id = examples.begin(shared_store, make_trial(config=config))

    assert shared_store.load_run(run_id).trial.config == config
    with shared_store.database.read() as session:
        row = session.get_one(ConfigRow, config.config_id)
        for knob in set(KNOBS) - {"tensor_split"}:
            assert getattr(row, knob) == getattr(config, knob)


@many
@given(facts=strategies.machines())
def test_a_machine_survives(shared_store: Store, facts: MachineFacts) -> None:
    """Unknown facts stay unknown, GPUs and instruction sets keep their order."""
    shared_store.record_machine("another", facts)

    assert shared_store.load_machine("another") == facts


@many
@given(model=strategies.models())
def test_a_model_survives(shared_store: Store, model: ModelFacts) -> None:
    """Whatever its name and tensors, and also when it replaces an earlier reading."""
    shared_store.record_model(model, Path("somewhere.gguf"))

    assert shared_store.load_model(model.model_id) == model


@many
@given(run=strategies.runs(), prediction=st.none() | strategies.predictions())
def test_a_run_survives(shared_store: Store, run: Run, prediction: Prediction | None) -> None:
    """Its trial, outcome, buffers, raw times, and what was expected of it."""
    if prediction:
        prediction = _of_trial(prediction, run)
    run_id = examples.begin(
        shared_store, run.trial, backend=run.backend, prediction=prediction, planned_bytes=12
    )
    shared_store.finish_run(run_id, run)

    record = shared_store.load_run(run_id)
    assert record.run == run
    assert record.trial == run.trial
    assert record.prediction == prediction
    assert record.planned_bytes == 12


def _of_trial(prediction: Prediction, run: Run) -> Prediction:
    return replace(prediction, config=run.trial.config, workload=run.trial.workload)


@many
@given(build=strategies.any_value(Build))
def test_a_build_survives_as_text(build: Build) -> None:
    """Canonical JSON is exact, and the same for equal values."""
    assert from_json(Build, to_json(build)) == build


def test_text_that_no_database_encodes_is_kept_readable(store: Store) -> None:
    """A file name that is not UTF-8 and an engine's odd bytes lose no run."""
    trial = make_trial(model_path=Path("odd\udcff.gguf"))
    examples.record(store, make_run(trial=trial, log_excerpt="bad \udc80 byte"))

    run_id = examples.record(store, make_run(trial=trial, log_excerpt="again"))

    assert store.load_run(run_id - 1).run is not None
    assert store.load_run(run_id).trial.model_path == Path("odd\\udcff.gguf")


def test_an_instant_needs_a_time_zone() -> None:
    """A naive datetime is a caller's bug, not a guess."""
    with pytest.raises(ValueError, match="which time zone"):
        Instant().process_bind_param(datetime(2026, 11, 1), None)  # type: ignore[arg-type] # noqa: DTZ001


def test_an_older_value_takes_defaults_and_a_newer_one_is_read() -> None:
    """Fields that were not there yet, or are not known here, do no harm."""
    assert from_json(Build, '{"backend":"b","version":"1"}') == Build(backend="b", version="1")
    assert from_json(Build, '{"backend":"b","version":"1","colour":3}').version == "1"


def test_recording_the_same_twice_changes_nothing(store: Store) -> None:
    """Equal facts share a row; changed facts replace it."""
    for _ in range(2):
        store.record_machine(examples.MACHINE_ID, make_machine())
        store.record_model(make_model(), examples.MODEL_PATH)
        examples.record(store, make_run(build=make_build()))
    smaller = make_model(tensors=make_model().tensors[:1])
    store.record_model(smaller, examples.MODEL_PATH)

    assert store.load_model(examples.MODEL_ID) == smaller
    with store.database.read() as session:
        counts = {
            table: session.connection().exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
            for table in ("machine", "model", "model_tensor", "model_location", "build", "config")
        }
    assert counts == {"machine": 1, "model": 1, "model_tensor": 1, "model_location": 2, "build": 1,
                      "config": 1}  # fmt: skip
