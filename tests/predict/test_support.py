"""What an engine refused is expected to be refused again; a success says otherwise."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.backends.registry import get_backend
from autotune.domain.run import Purpose, Reason
from autotune.domain.study import Observation
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine
from autotune.features.case import Case
from autotune.measure.runner import LocalRunner
from autotune.predict.predictor import Predictor
from autotune.predict.support import Support
from autotune.recommend.subject import Subject, register_subject
from autotune.store.store import Store
from autotune.tune.recording import RecordedRunner
from tests.simulation import make_cases, scaled_model, simulate

CASE = make_cases()[0]
SISTER = dataclasses.replace(CASE, model=scaled_model("sister", 300))


def ceiling(case: Case, *runs: tuple[Case, Reason | None]) -> float:
    """The most that is expected of a case after some runs."""
    observations = [
        dataclasses.replace(simulate([asked])[0], reason=reason, build=asked.build)
        for asked, reason in runs
    ]
    taught = [(o, told) for o in observations if (told := Case.of(o)) is not None]
    (found,) = Support.of(taught).ceilings([case])
    return float(found)


def test_a_refusal_counts_for_every_configuration_of_the_model() -> None:
    """Of that engine; another may load it."""
    other_knobs = dataclasses.replace(CASE, config=CASE.config.replace(n_threads=7))
    other_engine = dataclasses.replace(CASE, backend="another")

    assert ceiling(CASE) == 1.0
    assert ceiling(other_knobs, (CASE, Reason.UNSUPPORTED)) < 0.05
    assert ceiling(other_engine, (CASE, Reason.UNSUPPORTED)) == 1.0
    assert ceiling(CASE, (CASE, Reason.CRASH), (CASE, Reason.CONSTRAINT)) == 1.0


def test_the_latest_word_counts_and_a_new_build_is_asked_again() -> None:
    """An upgrade may know what the old one did not."""
    old, new = (dataclasses.replace(CASE, build=build) for build in ("1", "2"))

    assert ceiling(CASE, (CASE, Reason.UNSUPPORTED), (CASE, None)) == 1.0
    assert ceiling(CASE, (CASE, None), (CASE, Reason.UNSUPPORTED)) < 0.05
    assert ceiling(old, (old, Reason.UNSUPPORTED)) < 0.05
    assert ceiling(new, (old, Reason.UNSUPPORTED)) == 1.0


def test_other_models_of_the_architecture_are_presumed() -> None:
    """A third after one refusal, a half where another one loads; what loaded loads."""
    elsewhere = dataclasses.replace(
        SISTER, model=dataclasses.replace(SISTER.model, architecture="another")
    )
    third = dataclasses.replace(CASE, model=scaled_model("third", 500))

    assert ceiling(SISTER, (CASE, Reason.UNSUPPORTED)) == pytest.approx(1 / 3)
    assert ceiling(third, (CASE, Reason.UNSUPPORTED), (SISTER, None)) == pytest.approx(1 / 2)
    assert ceiling(SISTER, (CASE, Reason.UNSUPPORTED), (SISTER, None)) == 1.0
    assert ceiling(elsewhere, (CASE, Reason.UNSUPPORTED)) == 1.0


def test_what_strangers_tables_call_unsupported_is_not_ours() -> None:
    """Theirs was another build on another machine."""
    (observation,) = simulate([CASE])
    refused = dataclasses.replace(observation, reason=Reason.UNSUPPORTED)

    def chance(*observations: Observation) -> float:
        return float(Predictor().fit(observations).forecast([CASE]).p_success[0])

    assert chance(refused) < 0.05
    assert chance(dataclasses.replace(refused, purpose=Purpose.IMPORT)) > 0.05


@pytest.fixture
def subject(smollm2_path: Path, tmp_path: Path) -> tuple[Subject, Store]:
    """SmolLM2 on this machine, in a store of its own."""
    store = Store.open(str(tmp_path / "runs.db"), now=lambda: datetime.now(UTC))
    facts, machine = read_model(smollm2_path), read_machine()
    return register_subject(smollm2_path, facts, machine, store, engine_gpus=()), store


def test_a_real_refusal_is_stored_and_learned(subject: tuple[Subject, Store]) -> None:
    """ctransformers does not know SmolLM2: one run says so, and none is recommended again."""
    pytest.importorskip("ctransformers", reason="not installed: pip install -e '.[test]'")
    about, store = subject
    workload = Workload(n_prompt=8, n_gen=4)
    default = get_backend("ctransformers", {}).default_config(n_ctx=512, machine=about.machine)
    cases = about.cases("ctransformers", [default, default.replace(n_threads=1)], workload)
    before = Predictor().fit([]).forecast(cases)
    assert min(before.p_success) > 0.5

    runner = RecordedRunner(about, LocalRunner("ctransformers"), store, memory_limit_bytes=None)
    run_id, _ = runner.run(cases[0], before.prediction(0), purpose=Purpose.BENCH)
    stored = store.load_run(run_id).run
    assert stored.reason is Reason.UNSUPPORTED
    assert "its vocabulary has no scores" in stored.message

    predictor = Predictor().fit(store.observations())
    assert max(predictor.forecast(cases).p_success) < 0.05
    (ours,) = about.cases("llama-cpp-python", [default], workload)
    assert predictor.forecast([ours]).p_success[0] > 0.5
