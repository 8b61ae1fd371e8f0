"""Between the guide's ``BackendConfig`` and the knobs of a :class:`Config`."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.backends.registry import get_backend
from autotune.domain.config import Config
from autotune.domain.engine import EngineTraits, engine_of
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.integration.configs import BackendConfig
from autotune.integration.engines import registered_backends
from autotune.integration.hardware import usable_cores
from autotune.integration.sizing import gpu_layers
from autotune.recommend.subject import Subject

_STAND_IN = "llama-cpp-python"
"""Whose defaults a backend has that this program only knows by name."""


def sensible_config(
    backend: str, machine: MachineFacts, *, n_ctx: int, environ: Mapping[str, str]
) -> Config:
    """A backend's own default for this context, with one thread for each usable core."""
    name = backend if backend in registered_backends() else _STAND_IN
    default = get_backend(name, environ).default_config(n_ctx=n_ctx, machine=machine)
    cores = usable_cores(machine)
    return default.replace(n_threads=cores, n_threads_batch=cores)


def backend_config(backend: str, config: Config, model: ModelFacts) -> BackendConfig:
    """A configuration in the guide's words; all layers on the GPU are −1."""
    return BackendConfig.from_config(backend, _named(config, model))


def chosen_knobs(
    subject: Subject,
    backend: str,
    settings: BackendConfig | None,
    n_ctx: int,
    *,
    environ: Mapping[str, str],
) -> Config:
    """What a BackendConfig sets; without one the default, on the GPUs as far as it fits."""
    base = sensible_config(backend, subject.machine, n_ctx=n_ctx, environ=environ)
    if settings is not None:
        config = settings.to_config(subject.model, subject.machine, base)
        return _placed(_named(config, subject.model), engine_of(backend))
    free_bytes = sum(gpu.free_bytes or 0 for gpu in subject.machine.gpus if gpu.device)
    layers = gpu_layers(subject, backend, base, vram_bytes=free_bytes) if free_bytes else 0
    return base.replace(n_gpu_layers=layers)


def _named(config: Config, model: ModelFacts) -> Config:
    """The configuration with one word for all layers on the GPU: −1."""
    return config.replace(n_gpu_layers=-1) if config.n_gpu_layers > model.n_layers else config


def _placed(config: Config, engine: EngineTraits) -> Config:
    """The configuration with its layers where the engine can have them."""
    if engine.knobs is not None and "n_gpu_layers" not in engine.knobs:
        return config.replace(n_gpu_layers=0)
    is_split = engine.places_all_layers and config.n_gpu_layers
    return config.replace(n_gpu_layers=-1) if is_split else config
