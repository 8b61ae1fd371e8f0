"""Measure, predict and tune GGUF language models on your own machine.

    facts → backends → measure → store → features → predict → recommend / tune → cli

The public names below are imported when first used, so that ``import autotune`` costs nothing.
Log records go to ``logging.getLogger("autotune")``; nobody hears them who does not ask.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.domain.config import Config
    from autotune.domain.errors import AutotuneError, DataError, UserError, WorkFailedError
    from autotune.domain.model import ModelFacts
    from autotune.domain.prediction import Prediction, Recommendation
    from autotune.domain.workload import Workload
    from autotune.facts.gguf import read_model
    from autotune.predict.predictor import Predictor
    from autotune.store.store import Store

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "AutotuneError": "autotune.domain.errors",
    "Config": "autotune.domain.config",
    "DataError": "autotune.domain.errors",
    "ModelFacts": "autotune.domain.model",
    "Prediction": "autotune.domain.prediction",
    "Predictor": "autotune.predict.predictor",
    "Recommendation": "autotune.domain.prediction",
    "Store": "autotune.store.store",
    "UserError": "autotune.domain.errors",
    "WorkFailedError": "autotune.domain.errors",
    "Workload": "autotune.domain.workload",
    "read_model": "autotune.facts.gguf",
}

__all__ = [
    "AutotuneError",
    "Config",
    "DataError",
    "ModelFacts",
    "Prediction",
    "Predictor",
    "Recommendation",
    "Store",
    "UserError",
    "WorkFailedError",
    "Workload",
    "read_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
