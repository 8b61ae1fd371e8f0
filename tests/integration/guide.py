"""The guide's blocks, made to run here: only import lines and the model's path are changed."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from autotune.integration import (
    BatchProcessor,
    PerformanceIntegratedBackendManager,
    PerformanceOptimizer,
)

_GUIDE = Path(__file__).parent / "guide.md"
_BLOCK = re.compile(
    r"^## (?P<heading>.*?)\n\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_THEIR_IMPORT = re.compile(r"^( *)from app\.core\.\w+ import", re.MULTILINE)
_THEIR_PATHS = re.compile(r'"(?:path/to/(?:your/)?)?model\.gguf"')
_ELLIPSIS = "optimizer.get_optimal_backend(...)"

PRELUDE = """
import time
from pathlib import Path
from autotune.integration import (
    HardwareDetector, PerformanceIntegratedBackendManager, PerformanceOptimizer,
    create_backend, get_memory_usage, measure_inference_speed,
)
"""
"""Import lines that the guide leaves to its reader."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the guide."""

    number: int
    heading: str
    code: str

    def adapted(self, model_path: Path) -> str:
        """The block with our package's import lines and a real model's path."""
        path = repr(str(model_path))
        code = _THEIR_IMPORT.sub(r"\1from autotune.integration import", self.code)
        code = code.replace(_ELLIPSIS, f"optimizer.get_optimal_backend({path})")
        return _THEIR_PATHS.sub(lambda _: path, code)


def read_blocks() -> tuple[Block, ...]:
    """Every block, in the guide's order."""
    found = enumerate(_BLOCK.finditer(_GUIDE.read_text(encoding="utf-8")))
    return tuple(Block(number, match["heading"], match["code"]) for number, match in found)


@dataclass
class Reader:
    """Somebody who types the guide from top to bottom into one interpreter."""

    model_path: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "guide"})
    printed: list[str] = field(default_factory=list)
    """What each block printed."""
    _opened: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        exec(PRELUDE, self.names)

    def type(self, block: Block) -> None:
        """Run a block, ``await`` at its top level included."""
        code = compile(
            block.adapted(self.model_path),
            f"guide block {block.number}",
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._run(code)
        self.printed.append(printed.getvalue())
        self._opened |= {id(value): value for value in self.names.values() if _is_open(value)}

    def flush(self) -> None:
        """Have everything written that was reported until now."""
        for thing in self._opened.values():
            optimizer = getattr(thing, "performance_optimizer", thing)
            if isinstance(optimizer, PerformanceOptimizer):
                optimizer.workplace.telemetry.flush()

    def close(self) -> None:
        """End what the guide leaves running."""
        for thing in self._opened.values():
            getattr(thing, "close", getattr(thing, "stop", None))()

    def _run(self, code: CodeType) -> None:
        result = eval(code, self.names)
        if isinstance(result, Awaitable):
            asyncio.run(_finished(result))


def _is_open(value: object) -> bool:
    kinds = (PerformanceIntegratedBackendManager, PerformanceOptimizer, BatchProcessor)
    return isinstance(value, kinds)


async def _finished(awaitable: Awaitable[Any]) -> None:
    await awaitable
