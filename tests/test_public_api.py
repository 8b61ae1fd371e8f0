"""The public surface: complete, sorted, and cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import autotune

HEAVY = ("sklearn", "pandas", "llama_cpp", "numpy", "sqlalchemy", "rich", "torch", "transformers")
SOURCE = Path(autotune.__file__).read_text()


def test_public_names_are_sorted_and_each_one_imports() -> None:
    """__all__, the homes and what type checkers see are the same list."""
    assert autotune.__all__ == sorted(autotune.__all__)
    assert set(autotune.__all__) == set(autotune._HOMES)
    assert set(autotune.__all__) == checked_names(SOURCE)
    for name in autotune.__all__:
        assert getattr(autotune, name) is not None


def checked_names(source: str) -> set[str]:
    """The names imported under TYPE_CHECKING."""
    guard = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_a_forgotten_name_is_noticed() -> None:
    """A planted fault: a name taken out of the type checker's list is missed."""
    assert set(autotune.__all__) != checked_names(SOURCE.replace("import Store", "import Shop"))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """hasattr works as for any module."""
    assert not hasattr(autotune, "nothing_of_that_name")


def test_importing_the_package_imports_no_heavy_library() -> None:
    """``import autotune`` stays cheap: a fresh interpreter knows none of them afterwards."""
    code = f"import sys, autotune; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nobody_hears_the_log_who_does_not_ask() -> None:
    """Not even warnings reach an application's terminal, also when it listens to other names."""
    code = (
        "import logging, autotune; logging.getLogger('performance').setLevel(logging.DEBUG); "
        "logging.getLogger('autotune.store').warning('unasked')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_version_is_the_one_in_the_project_file() -> None:
    """One version, in two places that agree."""
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'version = "{autotune.__version__}"' in project
