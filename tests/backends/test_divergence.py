"""The divergence of two distributions, held against its definition."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.backends.divergence import divergence

Row = npt.NDArray[np.float32]


def row(*logits: float) -> Row:
    return np.array(logits, dtype=np.float32)


def by_definition(reference: Row, candidate: Row) -> float:
    """Σ p·ln(p/q), word by word, with exact sums."""

    def probabilities(logits: Row) -> list[float]:
        weights = [math.exp(float(logit) - float(logits.max())) for logit in logits]
        return [weight / math.fsum(weights) for weight in weights]

    pairs = zip(probabilities(reference), probabilities(candidate), strict=True)
    return math.fsum(p * math.log(p / q) for p, q in pairs)


@given(st.lists(st.tuples(*[st.floats(-30, 30, width=32)] * 2), min_size=2, max_size=20))
def test_it_is_what_the_definition_says(logits: list[tuple[float, float]]) -> None:
    """To float64's precision, and never negative."""
    reference, candidate = (row(*column) for column in zip(*logits, strict=True))
    nats = divergence(reference, candidate)

    assert nats >= 0
    assert nats == pytest.approx(by_definition(reference, candidate), rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50))
def test_nothing_lies_between_a_distribution_and_itself(logits: list[float]) -> None:
    """Also for logits whose exponentials no float holds."""
    assert divergence(row(*logits), row(*logits)) == 0


def test_a_shift_of_all_logits_changes_nothing() -> None:
    """Distributions are compared, not logits."""
    assert divergence(row(1, 2, 4), row(101, 102, 104)) == 0


def test_a_hand_made_pair() -> None:
    """P = (3/4, 1/4), Q = (1/2, 1/2); the other way round it is another figure."""
    p, q = row(math.log(3), 0), row(0, 0)

    assert divergence(p, q) == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-6)
    assert divergence(q, p) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_ruled_out_words_and_broken_logits() -> None:
    """A word that P rules out adds nothing; one that only Q rules out cannot be made good."""
    minus = -math.inf

    assert divergence(row(0, 1, minus), row(0, 1, minus)) == 0
    assert divergence(row(0, 1, minus), row(0, 1, -50)) == pytest.approx(0, abs=1e-15)
    assert divergence(row(0, 1, 2), row(0, 1, minus)) == math.inf
    assert math.isnan(divergence(row(0, 1), row(0, math.nan)))
