"""Which inference engines are installed, asked once and remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import RLock

from autotune.backends import registry
from autotune.backends.protocol import EngineError
from autotune.domain.errors import UserError
from autotune.facts.gpu import EngineDevice
from autotune.measure.engine import Engine, ask_engine
from autotune.recommend.selection import PRIORITY

INSTALL = {
    "llama-cpp-python": "pip install llama-cpp-python",
    "ctransformers": "pip install 'gguf-autotune[ctransformers]'",
    "transformers": "pip install 'gguf-autotune[transformers]'",
}
"""How each library is got; a program that is missing says so itself."""
_KEEP_S = 300.0


@lru_cache(maxsize=1)
def registered_backends() -> tuple[str, ...]:
    """The backends that this program can use. Installed packages are searched once (8 ms)."""
    return registry.backend_names()


def backend_names() -> tuple[str, ...]:
    """Every backend that this program knows or that the guide names."""
    return tuple(dict.fromkeys((*registered_backends(), *PRIORITY)))


def require_backend(name: str) -> str:
    """The name itself. Raises UserError for one that no backend has."""
    if name not in backend_names():
        raise UserError(f"unknown backend {name!r}: choose one of {', '.join(backend_names())}")
    return name


def not_installed(name: str, reason: str) -> str:
    """Why there is no engine, and what to do to have it."""
    hint = INSTALL.get(name)
    return f"not installed: {reason}; {hint}" if hint else f"not installed: {reason}"


class Engines:
    """The installed engines. Each is asked in a process of its own: about a second, once.

    ``ask`` raises EngineError for an engine that is not there; ``clock`` tells seconds.
    """

    def __init__(
        self,
        *,
        ask: Callable[[str], Engine] = ask_engine,
        clock: Callable[[], float] = time.monotonic,
        keep_s: float = _KEEP_S,
    ) -> None:
        self._ask, self._clock, self._keep_s = ask, clock, keep_s
        self._known: dict[str, tuple[float, Engine | str]] = {}
        self._lock = RLock()

    def find(self, name: str) -> Engine | str:
        """The engine behind a backend; else one line that says why there is none."""
        return self.find_all([name])[name]

    def find_all(self, names: Sequence[str]) -> dict[str, Engine | str]:
        """The engine, or why there is none, of each name; those not known yet are asked at once."""
        with self._lock:
            now = self._clock()
            missing = [name for name in names if not self._is_fresh(name, now)]
            if missing:
                with ThreadPoolExecutor(len(missing)) as threads:
                    answers = list(threads.map(self._answer, missing))
                self._known.update(
                    {name: (now, answer) for name, answer in zip(missing, answers, strict=True)}
                )
            return {name: self._known[name][1] for name in names}

    def installed(self) -> dict[str, Engine]:
        """Every installed engine by the name of its backend."""
        found = self.find_all(backend_names())
        return {name: engine for name, engine in found.items() if isinstance(engine, Engine)}

    def gpus(self) -> tuple[EngineDevice, ...]:
        """The GPUs that any installed engine can use; what two call by one name is one."""
        found = {gpu.name: gpu for engine in self.installed().values() for gpu in engine.gpus}
        return tuple(found.values())

    def forget(self) -> None:
        """Ask again next time."""
        registered_backends.cache_clear()
        with self._lock:
            self._known.clear()

    def _is_fresh(self, name: str, now: float) -> bool:
        return name in self._known and now - self._known[name][0] < self._keep_s

    def _answer(self, name: str) -> Engine | str:
        if name not in registered_backends():
            return f"this program has no backend {name}"
        try:
            return self._ask(name)
        except EngineError as error:
            return str(error)
