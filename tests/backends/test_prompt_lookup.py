"""Guesses from what was said before."""

from __future__ import annotations

from autotune.backends.prompt_lookup import DraftLength, PromptLookup, guess_cost


def test_what_followed_the_last_time_is_guessed() -> None:
    """The latest occurrence counts."""
    lookup = PromptLookup([1, 2, 3, 4, 9, 1, 2, 3, 7, 8, 1, 2])

    assert lookup.guess(4) == [3, 7, 8, 1]
    assert lookup.guess(2) == [3, 7]
    assert lookup.guess(0) == []


def test_three_tokens_tell_more_than_two() -> None:
    """Two tokens were followed by 6 last; three, earlier, by 5."""
    lookup = PromptLookup([7, 1, 2, 5, 9, 1, 2, 6, 7, 1, 2])

    assert lookup.guess(1) == [5]


def test_a_repetition_is_guessed_on() -> None:
    """Beyond its last occurrence, as often as there is room."""
    assert PromptLookup([5, 1, 2, 1, 2]).guess(4) == [1, 2, 1, 2]


def test_nothing_seen_twice_is_no_guess() -> None:
    """Nor is nothing at all."""
    assert PromptLookup([1, 2, 3, 4, 5]).guess(8) == []
    assert PromptLookup([]).guess(8) == []


def told(*, n_right: int, cost: float) -> int:
    """The best length after many guesses of 4, so many of them right."""
    length = DraftLength(16, cost=cost)
    for _ in range(30):
        length.judge(4, n_right)
    return length.best


def test_a_guess_is_as_long_as_it_pays() -> None:
    """Cheap and right: as long as may be. Dear, or hardly ever right: none."""
    assert told(n_right=4, cost=0.05) == 16
    assert told(n_right=4, cost=0.5) > 8
    assert told(n_right=1, cost=0.6) == 0
    assert told(n_right=0, cost=0.5) == 0
    assert 0 < told(n_right=2, cost=0.2) < 8


def test_at_first_a_guess_is_tried_and_after_failures_again() -> None:
    """What was learned fades while nothing is guessed."""
    length = DraftLength(8, cost=0.5)
    first = length.best
    for _ in range(30):
        length.judge(4, 0)
    n_silent = 0
    while not length.best:
        length.judge(0, 0)
        n_silent += 1

    assert first > 0
    assert 5 < n_silent < 100


def test_the_best_length_is_that_of_the_formula() -> None:
    """p = ¾ and c = 0.3: 1.35, 1.45, 1.44 and 1.39 tokens a step for 1, 2, 3 and 4 guesses."""
    yields = [sum(0.75**i for i in range(k + 1)) / (1 + 0.3 * k) for k in range(9)]

    assert DraftLength(8, cost=0.3).best == yields.index(max(yields)) == 2


def test_what_stays_on_the_host_makes_guesses_dear() -> None:
    """A GPU has arithmetic to spare: there, more guesses pay."""
    host, gpu = (DraftLength(16, cost=guess_cost(is_on_gpu=is_on_gpu)) for is_on_gpu in (0, 1))

    assert 0 < host.best < gpu.best
