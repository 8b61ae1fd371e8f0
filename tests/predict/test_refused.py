"""A real engine that does not know a real model: said once, stored, and expected from then on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.backends.registry import get_backend
from autotune.domain.run import Purpose, Reason
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine
from autotune.measure.runner import LocalRunner
from autotune.predict.predictor import Predictor
from autotune.recommend.subject import register_subject
from autotune.store.store import Store
from autotune.tune.recording import RecordedRunner

BACKEND = "ctransformers"
WORKLOAD = Workload(n_prompt=8, n_gen=4)

pytest.importorskip(BACKEND, reason="not installed: pip install -e '.[test]'")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of the test's own."""
    with Store.open(tmp_path / "runs.db", now=lambda: datetime.now(UTC)) as store:
        yield store


def test_a_real_refusal_is_stored_and_learned(store: Store, smollm2_path: Path) -> None:
    """For every configuration of the model, on that engine alone."""
    machine = read_machine()
    subject = register_subject(
        smollm2_path, read_model(smollm2_path), machine, store, engine_gpus=()
    )
    default = get_backend(BACKEND, {}).default_config(n_ctx=512, machine=machine)
    cases = subject.cases(BACKEND, [default, default.replace(n_threads=7)], WORKLOAD)
    before = Predictor().fit([]).forecast(cases)
    assert min(before.p_success) > 0.5

    runner = RecordedRunner(subject, LocalRunner(BACKEND), store, memory_limit_bytes=None)
    run_id, _ = runner.run(cases[0], before.prediction(0), purpose=Purpose.BENCH)
    stored = store.load_run(run_id).run
    assert stored.reason is Reason.UNSUPPORTED
    assert "its vocabulary has no scores" in stored.message

    predictor = Predictor().fit(store.observations())
    assert max(predictor.forecast(cases).p_success) < 0.5
    elsewhere = subject.cases("llama-cpp-python", [default], WORKLOAD)
    assert predictor.forecast(elsewhere).p_success[0] > 0.5
