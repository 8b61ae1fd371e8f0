"""A simulated laboratory: subject, store and runner whose truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.machine import Probe
from autotune.domain.model import ModelFacts, TensorSum
from autotune.domain.prediction import Hardware, Target
from autotune.domain.run import Run
from autotune.domain.study import Observation, Study
from autotune.domain.workload import Workload
from autotune.features.case import Case
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from autotune.recommend.candidates import search_space
from autotune.recommend.subject import Subject
from autotune.store.store import Store
from autotune.tune.question import Question, question_id
from tests.factories import make_machine, make_model, make_trial

WORKLOAD = Workload(n_prompt=512, n_gen=128)
TRUTH = SimulatedMachine()
PROBE = Probe(
    n_threads=(1, 2, 4),
    read_bytes_per_s=(11e9, 20e9, 20e9),
    read_spread_ratio=(0.01,) * 3,
    flops_per_s=(50e9, 100e9, 200e9),
    flops_spread_ratio=(0.01,) * 3,
    elapsed_s=1.0,
)
MACHINE = make_machine(n_logical=4, n_physical=4, n_usable=4)
DEFAULT = Config(n_ctx=4096, n_threads=2, n_threads_batch=4)


def scaled_model(name: str, mega_params: float) -> ModelFacts:
    """A dense Q4_1 model of so many million parameters."""
    n_elements = int(mega_params * 1e6)
    body = TensorSum(
        group="ffn", type="Q4_1", n_tensors=100, n_elements=n_elements, n_bytes=n_elements * 5 // 8
    )
    embedding = TensorSum(
        group="embedding", type="Q8_0", n_tensors=1, n_elements=8_000_000, n_bytes=8_500_000
    )
    file_bytes = body.n_bytes + embedding.n_bytes + 100_000
    return make_model(
        model_id=name, name=name, n_vocab=32_000, file_bytes=file_bytes, tensors=(embedding, body)
    )


SMALL = scaled_model("small", 100)


def make_subject(model: ModelFacts = SMALL) -> Subject:
    """A model on the simulated machine."""
    return Subject(
        model_path=Path(f"{model.name}.gguf"),
        model=model,
        machine_id="m",
        machine=MACHINE,
        probe=PROBE,
    )


def make_cases(model: ModelFacts = SMALL, default: Config = DEFAULT) -> tuple[Case, ...]:
    """Every candidate of the model."""
    space = search_space(model, MACHINE, default=default, workload=WORKLOAD, hardware=Hardware.AUTO)
    return make_subject(model).cases("simulated", space.configs(), WORKLOAD)


def make_question(
    store: Store,
    *,
    default: Config = DEFAULT,
    limits: Limits | None = None,
    n_cases: int | None = None,
    **changes: object,
) -> Question:
    """A study of the small model, everything registered."""
    subject = make_subject()
    store.record_machine("m", MACHINE)
    store.record_probe("m", PROBE)
    store.record_model(subject.model, subject.model_path)
    cases, limits = make_cases(default=default)[:n_cases], limits or Limits()
    settings: dict[str, object] = {"max_trials": 12, "time_limit_s": 600.0, **changes}
    study = Study(
        backend="simulated",
        target=Target.BALANCED,
        hardware=Hardware.AUTO,
        workload=WORKLOAD,
        default=default,
        question_id=question_id([case.config for case in cases], limits),
        **settings,  # type: ignore[arg-type]
    )
    return Question(
        study=study,
        subject=subject,
        cases=cases,
        available_bytes=TRUTH.ram_bytes,
        limits=limits,
    )


def observe(case: Case, run: Run, run_id: int) -> Observation:
    """What a run teaches, without a store between."""
    measured = run.measurement
    return Observation(
        run_id=run_id,
        machine_id=case.machine_id,
        machine=case.machine,
        probe=case.probe,
        model=case.model,
        backend=run.backend,
        build="1",
        config=case.config,
        workload=case.workload,
        purpose=run.trial.purpose,
        started_at=run.started_at,
        reason=run.reason,
        load=run.load,
        cached_ratio=run.cached_ratio,
        peak_rss_bytes=run.peak_rss_bytes,
        prefill_tps=measured.prefill_tps.median if measured and measured.prefill_tps else None,
        decode_tps=measured.decode_tps.median if measured and measured.decode_tps else None,
    )


def simulate(
    cases: Sequence[Case], *, machine: SimulatedMachine = TRUTH, seed: int = 0
) -> tuple[Observation, ...]:
    """One observation of each case, of any number of models."""
    runners: dict[str, SimulatedRunner] = {}
    numbers = itertools.count(1)
    observations = []
    for case in cases:
        runner = runners.setdefault(
            case.model.model_id, SimulatedRunner(case.model, machine, seed=seed + len(runners))
        )
        trial = make_trial(config=case.config, workload=case.workload)
        observations.append(observe(case, runner.run(trial), next(numbers)))
    return tuple(observations)
