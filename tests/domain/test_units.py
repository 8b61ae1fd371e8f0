"""Units for people, and back."""

from __future__ import annotations

import pytest

from autotune.domain import units
from autotune.domain.errors import UserError


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (512, "512 B"), (2048, "2 KiB"), (98566144, "94 MiB"), (3 * 1024**3, "3.00 GiB")],
)
def test_bytes_are_shortened(value: float | None, text: str) -> None:
    """Binary units, and a dash for the unknown."""
    assert units.human_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"),
        (75, "1m15s"),
        (3700, "1h01m"),
    ],
)
def test_seconds_are_shortened(value: float | None, text: str) -> None:
    """From milliseconds to hours."""
    assert units.human_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (118.4, "118 tok/s"), (9.876, "9.88 tok/s")]
)
def test_rates_have_three_digits(value: float | None, text: str) -> None:
    """No more digits than the noise allows."""
    assert units.human_rate(value) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("500ms", 0.5), ("5m", 300), ("1.5h", 5400)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """Seconds without a unit, else s, m or h."""
    assert units.parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("4096", 4096), ("512M", 512 * 1024**2), ("2GiB", 2 * 1024**3)]
)
def test_sizes_are_read(text: str, n_bytes: int) -> None:
    """Binary units, however they are spelled."""
    assert units.parse_bytes(text) == n_bytes


def test_one_of_a_thing_is_no_plural() -> None:
    """As a person would say it."""
    assert [units.counted(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]


def test_nonsense_is_refused_with_an_example() -> None:
    """Both readers show what they would take."""
    with pytest.raises(UserError, match="write 500ms, 90s or 5m"):
        units.parse_seconds("soon")
    with pytest.raises(UserError, match="write 512M or 2G"):
        units.parse_bytes("much")


@pytest.mark.parametrize("text", ["0", "0.0", "9" * 400])
def test_nothing_and_more_than_everything_are_refused(text: str) -> None:
    """A limit of 0 would be none or none that can be kept; 400 digits are no number."""
    with pytest.raises(UserError, match="is not a duration"):
        units.parse_seconds(text)
    with pytest.raises(UserError, match="is not a size"):
        units.parse_bytes(text)
