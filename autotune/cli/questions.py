"""From options to a question: what ``tune`` and ``recommend`` have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from autotune.backends.registry import backend_names, get_backend
from autotune.cli.options import DEFAULT_BACKEND
from autotune.domain.limits import Limits
from autotune.domain.prediction import Hardware, Target
from autotune.domain.study import Study
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.gpu import EngineDevice
from autotune.facts.machine import read_machine, read_state
from autotune.recommend.candidates import choose_n_ctx, search_space
from autotune.recommend.subject import register_subject
from autotune.store.store import Store
from autotune.tune.question import Question, question_id


def backend_of(runner: str) -> str:
    """The backend whose default is what a newcomer to a runner gets."""
    return runner if runner in backend_names() else DEFAULT_BACKEND


def frame_question(
    model_path: Path,
    store: Store,
    *,
    target: Target,
    hardware: Hardware,
    workload: Workload,
    n_ctx: int | None,
    limits: Limits = Limits(),
    lossy: Sequence[str] = (),
    max_trials: int = 0,
    time_limit_s: float = 0.0,
    runner: str = DEFAULT_BACKEND,
    engine_gpus: Sequence[EngineDevice] | None = None,
) -> Question:
    """A study of this model on this machine, with its candidates. Raises UserError.

    ``runner`` names what measures; it may stand in for the backend whose default is compared.
    """
    model, machine = read_model(model_path), read_machine()
    if n_ctx is None:
        n_ctx = choose_n_ctx(target, model, workload)
    workload.require_context(n_ctx)
    backend = get_backend(backend_of(runner), os.environ)
    default = backend.default_config(n_ctx=n_ctx, machine=machine)
    subject = register_subject(model_path, model, machine, store, engine_gpus=engine_gpus)
    configs = search_space(
        model,
        subject.machine,
        default=default,
        workload=workload,
        hardware=hardware,
        lossy=lossy,
    ).configs()
    return Question(
        study=Study(
            backend=runner,
            target=target,
            hardware=hardware,
            workload=workload,
            default=default,
            max_trials=max_trials,
            time_limit_s=time_limit_s,
            question_id=question_id(configs, limits),
        ),
        subject=subject,
        cases=subject.cases(runner, configs, workload),
        available_bytes=read_state().ram_available_bytes,
        limits=limits,
    )
