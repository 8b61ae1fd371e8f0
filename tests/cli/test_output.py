"""What commands print can be typed again."""

from __future__ import annotations

import pytest

from autotune.cli.output import changes_text
from autotune.domain.config import Config, parse_changes


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"tensor_split": (3.0, 1.0)}, "tensor_split=3/1"),
        (
            {"tensor_split": (0.75, 0.25), "use_mmap": False},
            "use_mmap=false tensor_split=0.75/0.25",
        ),
        ({}, "default"),
    ],
)
def test_changes_are_what_set_takes(knobs: dict[str, object], text: str) -> None:
    """Shares of several GPUs too."""
    config, default = Config(**knobs), Config()  # type: ignore[arg-type]

    assert changes_text(config, default) == text
    if knobs:
        assert parse_changes(text.split(), default) == config
