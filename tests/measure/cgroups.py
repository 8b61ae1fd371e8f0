"""Control groups for tests that need a real limit; Linux, and the right to make them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_V1 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cgroup(controller: str, **settings: int) -> Iterator[Path]:
    """A group of its own under a version-1 controller; skips where it cannot be made.

    Put a process into it by writing its id to ``cgroup.procs``.
    """
    parent = next(
        (_V1 / controller / own.lstrip("/") for own in _own_groups(controller)), _V1 / controller
    )
    folder = parent / f"autotune-test-{os.getpid()}"
    try:
        folder.mkdir()
        for name, value in settings.items():
            (folder / f"{controller}.{name}").write_text(str(value))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"a {controller} control group cannot be made here: {error.strerror}")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _own_groups(controller: str) -> Iterator[str]:
    """The group of this process under a controller."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                yield path
