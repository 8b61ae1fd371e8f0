"""The model that this process speaks of where nobody says which: loaded last, or advised last.

An application of the guide has one model at a time. ``create_backend``, ``get_memory_usage``,
``measure_inference_speed`` and a ``BatchProcessor`` that was given no model mean that one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from autotune.domain.errors import UserError
from autotune.domain.request import TextCompletion, TextRequest
from autotune.integration.configs import BackendConfig
from autotune.integration.engine import ModelBackend
from autotune.integration.engines import require_backend
from autotune.integration.workplace import Workplace
from autotune.serving.crew import Serve
from autotune.serving.request_queue import RequestQueue

_SHORT_ANSWER = TextRequest(prompt="Once upon a time", max_tokens=32, temperature=0.0)
_lock = threading.RLock()
"""Held to read or to change what happened last."""
_loading = threading.Lock()
"""Held while a model is loaded for a queue: one is enough."""


class _Current:
    """What happened last; nothing yet."""

    def __init__(self) -> None:
        self.queues: set[RequestQueue] = set()
        """They are served by the current model."""

    workplace: Workplace | None = None
    advised: tuple[str, tuple[BackendConfig, ...]] | None = None
    """Model file and configurations of the latest recommendation, the best first."""
    backend: weakref.ref[ModelBackend] | None = None
    served: ModelBackend | None = None
    """A model that was loaded for queues alone, and is ours to unload."""


_current = _Current()


def note_advice(workplace: Workplace, model_path: str, configs: tuple[BackendConfig, ...]) -> None:
    """An optimizer has recommended these, the best first."""
    with _lock:
        _current.workplace, _current.advised = workplace, (model_path, configs)


def note_load(backend: ModelBackend) -> None:
    """A backend has loaded a model: the one that was loaded for a queue is not needed any more."""
    with _lock:
        served, _current.served = _current.served, None
        _current.backend = weakref.ref(backend)
    if served is not None and served is not backend:
        served.unload_model()


def latest_backend() -> ModelBackend | None:
    """The backend that loaded a model last and still holds it; None without one."""
    backend = _current.backend() if _current.backend else None
    return backend if backend is not None and backend.is_loaded else None


def create_backend(name: str, config: BackendConfig | None = None) -> ModelBackend:
    """A backend by its name, in a configuration such as ``recommendation.recommended_config``.

    What it loads and generates is written into the store of the latest optimizer, else into the
    default one. Raises UserError for an unknown backend, or a configuration of another one.
    """
    require_backend(name)
    config = config or BackendConfig(name=name)
    if config.name != name:
        raise UserError(f"the configuration is {config.name}'s, not {name}'s: name one of them")
    with _lock:
        if _current.workplace is None:
            _current.workplace = Workplace.open()
        workplace = _current.workplace
    return ModelBackend(config, workplace=workplace, on_load=note_load)


def get_memory_usage() -> int:
    """Most resident memory of the model that was loaded last, in MiB; 0 without one."""
    backend = latest_backend()
    return backend.memory_mb if backend else 0


def measure_inference_speed() -> float:
    """Tokens per second of the model that was loaded last, by one short answer; 0.0 without one."""
    backend = latest_backend()
    generation = backend.answer(_SHORT_ANSWER).generation if backend else None
    return (generation.decode_tps if generation else None) or 0.0


def find_serve(queue: RequestQueue) -> Serve | None:
    """How a queue without a model of its own is served; None where nothing was ever chosen.

    It says by :func:`give_back` when it is so no more.
    """
    if not (latest_backend() or _current.advised):
        return None
    with _lock:
        _current.queues.add(queue)
    return serve


def give_back(queue: RequestQueue) -> bool:
    """The current model serves a queue no more; whether it did.

    One that was loaded for queues alone is unloaded with the last of them.
    """
    with _lock:
        was_served = queue in _current.queues
        _current.queues.discard(queue)
        served = None
        if not _current.queues:
            served, _current.served = _current.served, None
    if served is not None:
        served.unload_model()
    return was_served


def serve(request: TextRequest, on_text: Callable[[str], bool]) -> TextCompletion:
    """Answer with the model that was loaded last, else with the one that was advised last.

    Raises UserError where there is neither, or the advised one cannot be loaded.
    """
    backend = _loaded()
    try:
        return backend.serve(request, on_text)
    except UserError:
        if backend.is_loaded:
            raise
    return _loaded().serve(request, on_text)  # an application has loaded another one meanwhile


def _loaded() -> ModelBackend:
    with _loading:
        backend = latest_backend()
        if backend is not None:
            return backend
        with _lock:
            advised = _current.advised
        if advised is None:
            raise UserError("no model was loaded or recommended: call get_optimal_backend first")
        model_path, configs = advised
        for config in configs:
            backend = create_backend(config.name, config)
            result = backend.load_model(model_path)
            if result.success:
                _keep_served(backend)
                return backend
        raise UserError(f"{result.error_message}; load another model")


def _keep_served(backend: ModelBackend) -> None:
    """It stays loaded for the next request, unless another model was loaded after it, or the
    queues were stopped meanwhile."""
    with _lock:
        if latest_backend() is backend and _current.queues:
            _current.served = backend
