"""A request of ordinary use: a prompt of text goes in, text comes out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from autotune.domain.errors import UserError

MOST_DRAFT = 64
"""Longer guesses are hardly ever right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """What to generate, and how to choose among the likely words.

    The sampling defaults are llama.cpp's (``common_params_sampling`` in ``common/common.h``). What
    is no character in prompt and stop texts, half a surrogate pair, is replaced by U+FFFD: no
    engine reads it.
    """

    prompt: str
    max_tokens: int = 256
    """Most tokens to generate."""
    temperature: float = 0.8
    """0 takes the likeliest token, always."""
    top_k: int = 40
    """Among so many of the likeliest; 0 for all."""
    top_p: float = 0.95
    """Among the likeliest that have this probability together; 1 for all."""
    min_p: float = 0.05
    """Among those at least so likely, relative to the likeliest; 0 for all."""
    repeat_penalty: float = 1.0
    """Divides the logits of tokens among the latest 64; 1 for none."""
    seed: int | None = None
    """The same seed gives the same text on the same engine; None for another each time."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    chat: bool = False
    """Whether the prompt is what a user says, to be put into the model's chat template."""
    n_draft: int = 0
    """Most tokens to guess at once from what was said before (prompt lookup), by engines that can:
    faster where the answer repeats its prompt, and as likely as without. 0 guesses nothing."""

    def __post_init__(self) -> None:
        for what, is_valid, wanted in (
            ("prompt", bool(self.prompt), "text"),
            ("max_tokens", self.max_tokens >= 1, "a whole number above 0"),
            ("temperature", 0 <= self.temperature <= 100, "0 to 100"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("repeat_penalty", 0 < self.repeat_penalty <= 100, "above 0, 1 for none"),
            ("stop", all(self.stop), "texts that are not empty"),
            ("n_draft", 0 <= self.n_draft <= MOST_DRAFT, f"0 (none) to {MOST_DRAFT}"),
        ):
            if not is_valid:
                raise UserError(f"{what}={getattr(self, what)!r} is not valid: give {wanted}")
        object.__setattr__(self, "prompt", _readable(self.prompt))
        object.__setattr__(self, "stop", tuple(map(_readable, self.stop)))


def _readable(text: str) -> str:
    """The text in whole characters; halves that belong together become one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Finish(enum.StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """The model ended it, or one of the stop texts came."""
    LENGTH = "length"
    """``max_tokens`` were generated, or the context is full."""
    CANCELLED = "cancelled"
    """Whoever asked wanted no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCompletion:
    """An answer, and how long it took; times in nanoseconds, by the wall."""

    text: str
    finish: Finish
    n_prompt: int
    """Prompt tokens that were computed."""
    n_cached: int
    """Prompt tokens that were in the cache from earlier requests."""
    prefill_ns: int
    """The prompt computed."""
    ttft_ns: int
    """Until the first token was there."""
    token_ns: tuple[int, ...]
    """Each token after the first, its sampling included; shape (n_tokens − 1,)."""
    n_tokens: int
    """Tokens generated; one that ends the text is not counted."""
    n_drafted: int = 0
    """Tokens that were guessed."""
    n_accepted: int = 0
    """Those of them that came true, and were computed together."""
