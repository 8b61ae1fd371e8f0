"""Guesses of what comes next, taken from what was said before: prompt lookup.

Where a text repeats itself or its prompt, as summaries, edits and code do, what followed the latest
tokens the last time follows them again. Guesses are computed in one batch with the token before
them, and checked against what the model says in their place, so the answer stays what it was.
A. Saxena, "Prompt Lookup Decoding", 2023 (github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

_SIZES = (3, 2)
"""Latest tokens that must have been seen together before, most telling first."""
_MEMORY = 0.9
"""What each step leaves of the weight of those before it."""
_PRIOR_RIGHT, _PRIOR_WRONG = 1.5, 0.5
"""Guesses that are imagined before the first, so that one is tried."""
_HOST_COST, _GPU_COST = 0.5, 0.05
"""Of one guess more in a batch, in steps of one token. Two small models on two cores: 0.33 to 0.6
(of a large one, which waits for its memory, less); a GPU has arithmetic to spare."""


class PromptLookup:
    """Finds what followed the latest tokens when they were last seen."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """A token was said, or belongs to the prompt."""
        at = len(self._tokens)
        for size in _SIZES:
            if at >= size:
                self._followed[tuple(self._tokens[at - size :])] = at
        self._tokens.append(token)

    def guess(self, n_most: int) -> list[int]:
        """What may follow, at most so many tokens; empty where nothing speaks for any."""
        found = (self._followed.get(tuple(self._tokens[-size:])) for size in _SIZES)
        at = next((place for place in found if place is not None), len(self._tokens))
        # What repeats in less than a guess's length repeats on.
        return list(islice(cycle(self._tokens[at:]), max(n_most, 0)))


def guess_cost(*, is_on_gpu: bool) -> float:
    """What one guess more costs, in steps of one token, if all layers are on GPUs or not."""
    return _GPU_COST if is_on_gpu else _HOST_COST


class DraftLength:
    """How many guesses pay, by how often they were right.

    With a share p of right guesses and a cost c of each, k of them yield (1 − p^(k+1)) / (1 − p)
    tokens in 1 + c·k steps of time (Leviathan, Kalman, Matias: "Fast inference from transformers
    via speculative decoding", ICML 2023, with batches that are not free). No clock decides, so that
    the same seed gives the same text.
    """

    def __init__(self, n_most: int, *, cost: float) -> None:
        self._lengths = np.arange(n_most + 1)
        self._steps = 1 + cost * self._lengths
        self._right, self._wrong = _PRIOR_RIGHT, _PRIOR_WRONG

    @property
    def best(self) -> int:
        """Guesses that promise the most tokens in the time; 0 where none pay."""
        p = self._right / (self._right + self._wrong)
        return int(np.argmax(np.cumsum(p**self._lengths) / self._steps))

    def judge(self, n_guessed: int, n_right: int) -> None:
        """So many of the guesses came true; 0 of 0 brings the time nearer to try again."""
        self._right = _MEMORY * self._right + (1 - _MEMORY) * _PRIOR_RIGHT + n_right
        self._wrong = _MEMORY * self._wrong + (1 - _MEMORY) * _PRIOR_WRONG + (n_right < n_guessed)
