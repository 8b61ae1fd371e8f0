"""Measure, predict and tune GGUF language models on your own machine.

    facts → backends → measure → store → features → predict → recommend / tune → serving
          → integration → cli

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
    from autotune.integration.batch import BatchProcessor
    from autotune.integration.cache import ModelPerformanceCache
    from autotune.integration.configs import BackendConfig, GenerationConfig
    from autotune.integration.hardware import HardwareDetector
    from autotune.integration.manager import PerformanceIntegratedBackendManager
    from autotune.integration.optimizer import PerformanceOptimizer
    from autotune.predict.predictor import Predictor
    from autotune.store.store import Store

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "AutotuneError": "autotune.domain.errors",
    "BackendConfig": "autotune.integration.configs",
    "BatchProcessor": "autotune.integration.batch",
    "Config": "autotune.domain.config",
    "DataError": "autotune.domain.errors",
    "GenerationConfig": "autotune.integration.configs",
    "HardwareDetector": "autotune.integration.hardware",
    "ModelFacts": "autotune.domain.model",
    "ModelPerformanceCache": "autotune.integration.cache",
    "PerformanceIntegratedBackendManager": "autotune.integration.manager",
    "PerformanceOptimizer": "autotune.integration.optimizer",
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
    "BackendConfig",
    "BatchProcessor",
    "Config",
    "DataError",
    "GenerationConfig",
    "HardwareDetector",
    "ModelFacts",
    "ModelPerformanceCache",
    "PerformanceIntegratedBackendManager",
    "PerformanceOptimizer",
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
