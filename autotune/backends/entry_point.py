"""Backends that installed packages add, by entry points of the group ``autotune.backends``.

An entry point names what makes the backend: ``make(environ, announce=…)``. Nothing of a package
is imported before its backend is asked for, and what is wrong with one is said by that one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NoReturn

from autotune.backends.protocol import Backend, EngineError, Session
from autotune.domain.config import Config
from autotune.domain.machine import Build, MachineFacts
from autotune.domain.run import Reason
from autotune.facts.gpu import EngineDevice

GROUP = "autotune.backends"


def added_backends() -> dict[str, EntryPoint]:
    """The entry points of installed packages by name, sorted; of two with one name the first."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point)
    return dict(sorted(found.items()))


def make_backend(
    point: EntryPoint, environ: Mapping[str, str], *, announce: Callable[[int], None]
) -> Backend:
    """The backend that an entry point makes; where it cannot, one that says why."""
    try:
        made: object = point.load()(environ, announce=announce)
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        return UnusableBackend(point, f"{type(error).__name__}: {error}")
    if not isinstance(made, Backend):
        return UnusableBackend(point, f"{point.value} makes a {type(made).__name__}, no Backend")
    if made.name != point.name:
        return UnusableBackend(point, f"it calls itself {made.name!r}")
    return made


class UnusableBackend:
    """Stands for a backend that cannot be made: whatever is asked of it raises EngineError."""

    def __init__(self, point: EntryPoint, problem: str) -> None:
        self.name = point.name
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        self._message = (
            f"the backend {point.name!r} of the package {package} cannot be used ({problem}): "
            "repair the package or uninstall it"
        )

    def _fail(self) -> NoReturn:
        raise EngineError(Reason.UNSUPPORTED, self._message)

    def build(self) -> Build:
        """Raises EngineError."""
        self._fail()

    def gpus(self) -> tuple[EngineDevice, ...]:
        """Raises EngineError."""
        self._fail()

    def default_config(self, *, n_ctx: int, machine: MachineFacts) -> Config:  # noqa: ARG002
        """Raises EngineError."""
        self._fail()

    def load(self, model_path: Path, config: Config) -> Session:  # noqa: ARG002
        """Raises EngineError."""
        self._fail()

    def log_excerpt(self) -> str:
        """Nothing: it has no log."""
        return ""
