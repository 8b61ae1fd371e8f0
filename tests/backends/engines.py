"""Every built-in backend as its contract is held against it, with what it is known not to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from autotune.backends.protocol import Backend
from autotune.backends.registry import get_backend
from autotune.domain.config import Config
from tests.backends.old_models import write_smollm2_of_2023
from tests.backends.programs import environ_with, find_server, write_llamafile

SMALL = Config(n_ctx=512, n_batch=128, n_ubatch=128)


@dataclass
class Engine:
    """A backend, and the processes that it has started."""

    backend: Backend
    pids: list[int] = field(default_factory=list)
    small: Config = SMALL
    """A small context, in types that it computes in."""
    prepare: Callable[[Path, Path], Path] = lambda smollm2, _path: smollm2
    """SmolLM2 as this engine reads it, written to a path where it reads another file."""
    reads_floats: bool = True
    """Whether it reads a file of today with weights of float32."""
    reserves_cache: bool = True
    """Whether the whole cache is there from the start; otherwise it grows."""
    says_buffers: bool = True
    """Whether it tells what it allocates."""
    has_flash_attn: bool = True
    has_chats: bool = True
    """Whether it knows chat templates."""
    merges_bytes: bool = True
    """Whether its tokeniser puts bytes together, so that it reads pictures as such."""
    refuses_cache: str = "requires flash_attn"
    """What it says of a quantised value cache without flash attention."""
    refuses_file: str = "magic"
    """What it says of a file that is no model."""

    def living(self) -> list[int]:
        """Those that still run."""
        return [pid for pid in self.pids if psutil.pid_exists(pid)]


def library(name: str, _folder: Path) -> Engine:
    """An engine in this process."""
    return Engine(get_backend(name, {}))


def program(name: str, folder: Path) -> Engine:
    """An engine in a process of its own."""
    settings: dict[str, Callable[[], tuple[str, Path]]] = {
        "llama-server": lambda: ("AUTOTUNE_LLAMA_SERVER", find_server()),
        "llamafile": lambda: ("AUTOTUNE_LLAMAFILE", write_llamafile(folder / "llamafile")),
    }
    variable, path = settings[name]()
    pids: list[int] = []
    environ = environ_with(**{variable: path})
    return Engine(get_backend(name, environ, announce=pids.append), pids)


def unpacking(name: str, _folder: Path) -> Engine:
    """An engine in this process that computes in one floating type."""
    pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[test]'")
    return Engine(
        get_backend(name, {}),
        small=SMALL.replace(type_k="f32", type_v="f32"),
        reserves_cache=False,
        refuses_cache="has no quantised cache",
    )


def frozen(name: str, _folder: Path) -> Engine:
    """An engine in this process that reads files of 2023."""
    pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[test]'")
    return Engine(
        get_backend(name, {}),
        prepare=write_smollm2_of_2023,
        reads_floats=False,
        says_buffers=False,
        has_flash_attn=False,
        has_chats=False,
        merges_bytes=False,
        refuses_cache="has no type_v=q8_0",
        refuses_file="not a GGUF file",
    )


MAKERS = {
    "llama-cpp-python": library,
    "llama-server": program,
    "llamafile": program,
    "transformers": unpacking,
    "ctransformers": frozen,
}
