"""The API that applications were promised."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.integration.batch import BatchProcessor
    from autotune.integration.cache import ModelPerformanceCache
    from autotune.integration.configs import BackendConfig, GenerationConfig
    from autotune.integration.current import (
        create_backend,
        get_memory_usage,
        measure_inference_speed,
    )
    from autotune.integration.engine import ModelBackend
    from autotune.integration.hardware import HardwareDetector
    from autotune.integration.manager import PerformanceIntegratedBackendManager
    from autotune.integration.optimizer import PerformanceOptimizer

_HOMES = {
    "BackendConfig": "configs",
    "BatchProcessor": "batch",
    "GenerationConfig": "configs",
    "HardwareDetector": "hardware",
    "ModelBackend": "engine",
    "ModelPerformanceCache": "cache",
    "PerformanceIntegratedBackendManager": "manager",
    "PerformanceOptimizer": "optimizer",
    "create_backend": "current",
    "get_memory_usage": "current",
    "measure_inference_speed": "current",
}

__all__ = [
    "BackendConfig",
    "BatchProcessor",
    "GenerationConfig",
    "HardwareDetector",
    "ModelBackend",
    "ModelPerformanceCache",
    "PerformanceIntegratedBackendManager",
    "PerformanceOptimizer",
    "create_backend",
    "get_memory_usage",
    "measure_inference_speed",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune.integration' has no attribute {name!r}")
    return getattr(importlib.import_module(f"autotune.integration.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
