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

    def __post_init__(self) -> None:
        exec(PRELUDE, self.names)

    def type(self, block: Block) -> str:
        """Run a block, ``await`` at its top level included; what it printed."""
        code = compile(
            block.adapted(self.model_path),
            f"guide block {block.number}",
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self._run(code)
        return printed.getvalue()

    def _run(self, code: CodeType) -> None:
        result = eval(code, self.names)
        if isinstance(result, Awaitable):
            asyncio.run(_finished(result))


async def _finished(awaitable: Awaitable[Any]) -> None:
    await awaitable
