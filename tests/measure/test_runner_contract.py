"""What every runner promises, held against each of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.domain.config import Config
from autotune.domain.run import Reason, Trial
from autotune.domain.workload import Workload
from autotune.measure.llama_bench import LlamaBenchRunner
from autotune.measure.replay import ReplayRunner
from autotune.measure.runner import LocalRunner, Runner
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from tests.backends.programs import find_server
from tests.factories import make_model, make_run

CONFIG = Config(n_ctx=512, n_batch=256, n_ubatch=256)
WORKLOAD = Workload(n_prompt=32, n_gen=4)


def local(_model: Path, _trial: Trial) -> Runner:
    """The real engine."""
    return LocalRunner("llama-cpp-python")


def server(_model: Path, _trial: Trial) -> Runner:
    """The real engine in a program of its own."""
    return LocalRunner("llama-server")


def simulated(_model: Path, _trial: Trial) -> Runner:
    """A machine made of formulas."""
    return SimulatedRunner(make_model(), SimulatedMachine())


def replay(_model: Path, trial: Trial) -> Runner:
    """One recorded run of the trial."""
    return ReplayRunner("recorded", [make_run(trial=trial)])


def llama_bench(_model: Path, _trial: Trial) -> Runner:
    """llama.cpp's own program."""
    program = shutil.which("llama-bench") or shutil.which(".native/bin/llama-bench")
    if program is None:
        pytest.skip("llama-bench is not here: make native builds it")
    return LlamaBenchRunner(Path(program))


Make = Callable[[Path, Trial], Runner]


@pytest.fixture(
    params=[local, server, simulated, replay, llama_bench], ids=lambda make: make.__name__
)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Each runner's maker."""
    if request.param is server:
        monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", str(find_server()))
    maker: Make = request.param
    return maker


@pytest.fixture
def trial(smollm2_path: Path) -> Trial:
    """A short request on the real model."""
    return Trial(model_path=smollm2_path, config=CONFIG, workload=WORKLOAD, timeout_s=120)


def test_a_run_answers_its_trial(make: Make, trial: Trial) -> None:
    """The record names the trial, the runner's backend and the build, and is timed."""
    runner = make(trial.model_path, trial)
    run = runner.run(trial)

    assert run.trial == trial
    assert run.backend == runner.backend
    assert run.build is not None
    assert run.elapsed_s > 0
    assert run.started_at.tzinfo is not None


def test_a_successful_run_has_at_least_the_repetitions_asked_for(make: Make, trial: Trial) -> None:
    """Numbered from 0, with both phases, summarised."""
    run = make(trial.model_path, trial).run(trial)

    assert run.ok, run.message
    assert len(run.generations) >= trial.n_reps
    assert [g.repetition for g in run.generations] == list(range(len(run.generations)))
    assert run.measurement is not None
    assert run.measurement.prefill_tps is not None
    assert run.measurement.decode_tps is not None
    assert run.measurement.peak_memory_bytes


def test_listeners_hear_what_is_being_done(make: Make, trial: Trial) -> None:
    """At least one word before the run is over."""
    heard: list[str] = []
    make(trial.model_path, trial).run(trial, notify=heard.append)

    assert heard


def test_a_memory_limit_is_a_failure_with_its_reason(make: Make, trial: Trial) -> None:
    """Out of memory is a row, never an exception."""
    limited = dataclasses.replace(trial, memory_limit_bytes=1024)
    runner = make(trial.model_path, trial)
    if isinstance(runner, ReplayRunner):
        pytest.skip("what was recorded is not limited afterwards")
    run = runner.run(limited)

    assert run.reason is Reason.OOM
    assert run.message
    assert run.measurement is None


def test_what_cannot_be_loaded_is_a_failure(make: Make, trial: Trial, tmp_path: Path) -> None:
    """A file that is no model: load error on real engines."""
    runner = make(trial.model_path, trial)
    if isinstance(runner, SimulatedRunner | ReplayRunner):
        pytest.skip("no file is read")
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"noise" * 100)
    run = runner.run(dataclasses.replace(trial, model_path=path))

    assert run.reason is Reason.LOAD_ERROR
    assert run.log_excerpt


def test_a_replay_draws_from_the_recordings_with_its_seed() -> None:
    """Equal seeds draw equal recordings, and every recording is drawn at last."""
    trial = make_run().trial
    runs = [make_run(elapsed_s=float(second)) for second in (1, 2, 3)]

    def drawn(seed: int) -> list[float]:
        runner = ReplayRunner("recorded", runs, seed=seed)
        return [runner.run(trial).elapsed_s for _ in range(20)]

    assert drawn(1) == drawn(1)
    assert set(drawn(2)) == {1.0, 2.0, 3.0}


def test_a_replay_refuses_what_was_never_recorded() -> None:
    """A constraint, so that a search learns to leave it alone."""
    run = make_run()
    other = dataclasses.replace(run.trial, config=run.trial.config.replace(n_threads=7))

    assert ReplayRunner("recorded", [run]).run(other).reason is Reason.CONSTRAINT
