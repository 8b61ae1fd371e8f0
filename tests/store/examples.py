"""A machine, a model and runs of it, recorded."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from autotune.domain.prediction import (
    Evidence,
    Hardware,
    Interval,
    Prediction,
    Recommendation,
    Target,
)
from autotune.domain.quality import QualityCost, reference_of
from autotune.domain.run import Run, Trial
from autotune.domain.study import Study
from autotune.store.store import Store
from tests.factories import (
    STARTED_AT,
    make_build,
    make_machine,
    make_model,
    make_probe,
    make_run,
    make_trial,
)

MACHINE_ID = "feedfacefeedface"
MODEL_ID = make_model().model_id
MODEL_PATH = Path("models/tiny.gguf")
BACKEND = "llama-cpp-python"


class Clock:
    """A clock that stands still until it is told to advance."""

    def __init__(self) -> None:
        self.at = STARTED_AT

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def epoch() -> datetime:
    """A clock that stands still."""
    return STARTED_AT


def record_facts(store: Store) -> None:
    """The machine with its probe, and the model."""
    store.record_machine(MACHINE_ID, make_machine())
    store.record_probe(MACHINE_ID, make_probe())
    store.record_model(make_model(), MODEL_PATH)


def begin(store: Store, trial: Trial | None = None, **options: Any) -> int:
    """Open a run of the example model on the example machine."""
    return store.begin_run(
        trial or make_trial(model_path=MODEL_PATH),
        **{"machine_id": MACHINE_ID, "model_id": MODEL_ID, "backend": BACKEND, **options},
    )


def record(store: Store, run: Run | None = None, **options: Any) -> int:
    """Open a run and close it with that outcome."""
    run = run or make_run()
    run_id = begin(store, run.trial, **options)
    store.finish_run(run_id, run)
    return run_id


def start_study(store: Store, study: Study | None = None) -> int:
    """Open a study of the example model."""
    return store.start_study(study or make_study(), machine_id=MACHINE_ID, model_id=MODEL_ID)


def record_quality(store: Store, cost: QualityCost | None = None, **options: Any) -> int:
    """Keep what a q8_0 cache costs the example model."""
    config = make_trial().config.replace(flash_attn="on", type_k="q8_0", type_v="q8_0")
    defaults: dict[str, Any] = {
        "machine_id": MACHINE_ID,
        "model_id": MODEL_ID,
        "build": make_build(),
        "config": config,
        "reference": reference_of(config),
        "text": "Once upon a time",
    }
    return store.record_quality(cost or make_quality(), **{**defaults, **options})


def make_quality(**changes: Any) -> QualityCost:
    """A small cost."""
    defaults = {"kl_mean": 0.004, "kl_p99": 0.016, "top1_agreement": 0.97, "n_tokens": 800}
    return QualityCost(**{**defaults, **changes})


def make_study(**changes: Any) -> Study:
    """Which configuration is fastest for the default trial's workload?"""
    trial = make_trial()
    defaults: dict[str, Any] = {
        "backend": BACKEND,
        "target": Target.SPEED,
        "hardware": Hardware.CPU,
        "workload": trial.workload,
        "default": trial.config,
        "max_trials": 20,
        "time_limit_s": 300.0,
        "seed": 7,
    }
    return Study(**{**defaults, **changes})


def make_prediction(**changes: Any) -> Prediction:
    """Of the default trial: 100 tokens per second, more or less."""
    trial = make_trial()
    defaults: dict[str, Any] = {
        "config": trial.config,
        "workload": trial.workload,
        "load_s": Interval(q05=0.1, q50=0.2, q95=0.4),
        "peak_memory_bytes": Interval(q05=9e7, q50=1e8, q95=1.1e8),
        "prefill_tps": Interval(q05=500.0, q50=600.0, q95=700.0),
        "decode_tps": Interval(q05=80.0, q50=100.0, q95=120.0),
        "ttft_s": Interval(q05=0.05, q50=0.1, q95=0.2),
        "p_success": 0.97,
        "evidence": Evidence.PHYSICS,
        "n_runs": 0,
    }
    return Prediction(**{**defaults, **changes})


def make_recommendation(**changes: Any) -> Recommendation:
    """The default trial's configuration, for speed."""
    prediction = make_prediction()
    defaults: dict[str, Any] = {
        "backend": BACKEND,
        "target": Target.SPEED,
        "workload": prediction.workload,
        "prediction": prediction,
        "confidence": 0.8,
        "reasons": ("measured", "fits"),
    }
    return Recommendation(**{**defaults, **changes})
