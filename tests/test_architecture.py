"""The arrow: rooms import only rooms to their left, and each library has one room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "autotune"
ARROW = ("domain", "facts", "backends", "measure", "store", "features", "predict", "recommend",
         "tune", "serving", "report", "integration", "service", "cli")  # fmt: skip
LIBRARY_ROOMS = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "pandas": {"store", "features"},
    "sklearn": {"predict"},
    "llama_cpp": {"backends"},
    "torch": {"backends"},
    "transformers": {"backends"},
    "ctransformers": {"backends"},
    "pynvml": {"facts"},
    "typer": {"cli"},
    "rich": {"cli"},
    "platformdirs": {"integration"},
}
MAX_LINES = 400


def imports_of(source: str) -> Iterator[str]:
    """Every imported module name in a source text, nested imports included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level


def problems(path: Path, source: str) -> Iterator[str]:
    """What is wrong with one file of the package."""
    parts = path.relative_to(PACKAGE).parts
    room = parts[0] if len(parts) > 1 else "cli"  # __init__ and __main__ see everything
    if room not in ARROW:
        yield f"{path.name} is in {room}, which is not a room"
        return
    if source.count("\n") > MAX_LINES:
        yield f"{path.name} has more than {MAX_LINES} lines: split it by reader"
    if path.stem in {"util", "utils", "helpers", "common", "misc"}:
        yield f"{path.name} says nothing about what is in it"
    for name in imports_of(source):
        yield from _import_problems(name, room)


def _import_problems(name: str, room: str) -> Iterator[str]:
    top, _, rest = name.partition(".")
    if name == "autotune" or top == "":
        yield f"{room} imports {name or 'a relative name'}: name the module"
    elif top == "autotune":
        target = rest.split(".")[0]
        if target in ARROW and ARROW.index(target) > ARROW.index(room):
            yield f"{room} imports {target}, which is to its right"
    elif top in LIBRARY_ROOMS and room not in LIBRARY_ROOMS[top]:
        yield f"{room} imports {top}, which belongs to {', '.join(LIBRARY_ROOMS[top])}"
    elif room == "domain" and top not in _standard_library():
        yield f"domain imports {top}: the standard library is enough there"


def _standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_keeps_to_the_arrow(path: Path) -> None:
    """A file imports leftwards, uses its room's libraries, and is short enough to read."""
    assert list(problems(path, path.read_text())) == []


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("measure", "from autotune.store.store import Store", "to its right"),
        ("store", "import autotune", "name the module"),
        ("features", "from sklearn.linear_model import Ridge", "belongs to predict"),
        ("domain", "import numpy", "standard library"),
        ("facts", "def f():\n    import llama_cpp", "belongs to backends"),
        ("tune", "x = 1\n" * 401, "more than 400 lines"),
        ("helpers", "x = 1", "not a room"),
    ],
)
def test_the_guard_catches_a_planted_fault(room: str, source: str, complaint: str) -> None:
    """Each rule complains when it is broken."""
    assert any(complaint in line for line in problems(PACKAGE / room / "planted.py", source))
