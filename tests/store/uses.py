"""Loads and generations of an application, as tests of telemetry report them."""

from __future__ import annotations

from typing import Any

from autotune.domain.run import Generation, Purpose, Run
from autotune.domain.workload import Workload
from autotune.store.telemetry import Telemetry, Ticket
from tests.factories import make_generation, make_run, make_trial
from tests.store import examples

QUICK_S = 0.01
"""For how long generations are gathered here."""


def use_run(**changes: Any) -> Run:
    """A model that an application loaded."""
    trial = make_trial(model_path=examples.MODEL_PATH, purpose=Purpose.USER)
    return make_run(**{"trial": trial, "generations": (), "elapsed_s": 0.25, **changes})


def answer(n_gen: int = 20, **changes: Any) -> Generation:
    """64 prompt tokens at 640 a second, and a text of 100 tokens a second."""
    workload = Workload(n_prompt=changes.pop("n_prompt", 64), n_gen=n_gen)
    return make_generation(
        **{"workload": workload, "token_ns": (10_000_000,) * n_gen, **changes}
    )  # fmt: skip


def load(telemetry: Telemetry, run: Run | None = None, **options: Any) -> Ticket:
    """Report a load of the example model on the example machine."""
    where = {"machine_id": examples.MACHINE_ID, "model_id": examples.MODEL_ID}
    return telemetry.loaded(run or use_run(), **{**where, **options})
