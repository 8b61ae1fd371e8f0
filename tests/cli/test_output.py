"""What commands print can be typed again."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.cli.output import changes_text
from autotune.cli.progress import verdict_line
from autotune.domain.config import Config, parse_changes
from autotune.domain.limits import Limits
from autotune.domain.units import GIB
from autotune.tune.question import Answer
from autotune.tune.verdict import pool
from tests.factories import make_run
from tests.store.examples import make_recommendation


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


def make_answer(peak_bytes: int = GIB // 2, **changes: Any) -> Answer:
    """A winner that beat the default, after five trials."""
    measured = pool([make_run(peak_rss_bytes=peak_bytes)])
    defaults: dict[str, Any] = {
        "study_id": 1, "default": measured, "winner": measured, "is_default": False,
        "speedup": None, "recommendation": make_recommendation(), "n_trials": 5, "elapsed_s": 60.0,
    }  # fmt: skip
    return Answer(**{**defaults, **changes})


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            make_answer(is_default=True),
            "The default is the answer: nothing beat it beyond noise.",
        ),
        (
            make_answer(is_default=True, n_trials=1),
            "The default is the answer: nothing else was tried.",
        ),
        (make_answer(default=None), "The default does not run here."),
        (make_answer(2 * GIB), "The default does not keep --max-memory 1.00 GiB."),
        (make_answer(), ""),
    ],
)
def test_a_verdict_says_no_more_than_was_found(answer: Answer, line: str) -> None:
    """What was never tried did not lose; what breaks a limit is no answer, however fast."""
    assert verdict_line(answer, Limits(memory_bytes=GIB)) == line
