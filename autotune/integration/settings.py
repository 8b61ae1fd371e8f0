"""Between the guide's ``BackendConfig`` and the knobs of a :class:`Config`."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.backends.registry import BACKEND_NAMES, get_backend
from autotune.domain.config import KNOBS, Config
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.integration.configs import BackendConfig
from autotune.integration.hardware import usable_cores
from autotune.integration.sizing import gpu_layers
from autotune.recommend.subject import Subject

_STAND_IN = "llama-cpp-python"
"""Whose defaults a backend has that this program only knows by name."""
_NAMED = ("n_gpu_layers", "n_ctx", "n_batch", "n_threads")
"""Knobs that have a field of their own in a BackendConfig."""


def sensible_config(
    backend: str, machine: MachineFacts, *, n_ctx: int, environ: Mapping[str, str]
) -> Config:
    """A backend's own default for this context, with one thread for each usable core."""
    name = backend if backend in BACKEND_NAMES else _STAND_IN
    default = get_backend(name, environ).default_config(n_ctx=n_ctx, machine=machine)
    cores = usable_cores(machine)
    return default.replace(n_threads=cores, n_threads_batch=cores)


def backend_config(backend: str, config: Config, model: ModelFacts) -> BackendConfig:
    """A configuration in the guide's words; knobs that it has no word for are ``custom_args``."""
    all_layers = config.n_gpu_layers > model.n_layers
    plain = Config().as_dict()
    changed = {
        knob: value
        for knob, value in config.as_dict().items()
        if knob not in _NAMED and value != plain[knob]
    }
    return BackendConfig(
        name=backend,
        gpu_enabled=config.n_gpu_layers != 0,
        gpu_layers=-1 if all_layers else config.n_gpu_layers,
        context_size=config.n_ctx,
        batch_size=config.n_batch,
        threads=config.n_threads,
        custom_args={"n_threads_batch": config.n_threads_batch, **changed},
    )


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
        return knobs_of(settings, base)
    free_bytes = sum(gpu.free_bytes or 0 for gpu in subject.machine.gpus if gpu.device)
    layers = gpu_layers(subject, backend, base, vram_bytes=free_bytes) if free_bytes else 0
    return base.replace(n_gpu_layers=subject.model.n_layers + 1 if layers < 0 else layers)


def knobs_of(settings: BackendConfig, base: Config) -> Config:
    """The knobs that a BackendConfig sets, over a base. Raises ConfigError.

    Of ``custom_args`` only what is a knob counts; the rest is about sampling.
    """
    told = {name: value for name, value in settings.custom_args.items() if name in KNOBS}
    n_ctx = settings.context_size
    n_batch = min(settings.batch_size, n_ctx)
    threads = settings.threads if settings.threads > 0 else base.n_threads
    changes = {
        "n_ctx": n_ctx,
        "n_batch": n_batch,
        "n_ubatch": min(base.n_ubatch, n_batch),
        "n_threads": threads,
        "n_threads_batch": threads,
        "n_gpu_layers": settings.gpu_layers if settings.gpu_enabled else 0,
        **told,
    }
    return Config.from_dict({**base.as_dict(), **changes})
