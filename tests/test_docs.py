"""Documents that cannot lie: the README against the program."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from autotune.cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))
ROOMS = sorted(
    path.name for path in (ROOT / "autotune").iterdir() if (path / "__init__.py").is_file()
)


def commands(group: typer.Typer, prefix: str = "") -> set[str]:
    """Every command that the program has, subcommands by their full name."""
    names = {f"{prefix}{command.name}" for command in group.registered_commands}
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        names |= commands(inner.typer_instance, f"{inner.name} ")
    return names


def test_every_command_is_documented() -> None:
    """A command that the README does not name does not exist for a newcomer."""
    documented = set(re.findall(r"`((?:db )?[a-z]+)[^`]*`", README))

    assert commands(app) <= documented


def test_every_room_is_in_the_table() -> None:
    """The table of rooms is the package."""
    table = (ROOT / "docs" / "rooms.md").read_text()

    assert sorted(re.findall(r"^\| `(\w+)/` \|", table, flags=re.MULTILINE)) == ROOMS


def test_every_page_is_reached_from_the_readme() -> None:
    """Nobody lists a folder to find documentation, and no link leads nowhere."""
    linked = re.findall(r"\]\((docs/[^)]+)\)", README)

    assert sorted(set(linked)) == [f"docs/{page.name}" for page in PAGES]


def test_the_readme_is_short() -> None:
    """At most 120 lines: it is an entrance, not a manual."""
    assert README.count("\n") <= 120


def test_the_changelog_knows_what_is_unreleased() -> None:
    """Work is written down where users look."""
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
