"""A workload: how many tokens go in and how many come out.

The label is llama-bench's: ``pp512+tg128@d4096x2`` is 2 parallel requests, each with 4096 tokens
already in the cache, 512 prompt tokens and 128 generated ones. As in llama-bench's own
``pp512+tg128`` test, decode follows the prompt: it runs at depth ``n_depth + n_prompt``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from autotune.domain.errors import UserError

_LABEL = re.compile(
    r"(?:pp(?P<prompt>\d+))?\+?(?:tg(?P<gen>\d+))?(?:@d(?P<depth>\d+))?(?:[x×](?P<parallel>\d+))?"
)


PRESETS = {
    "chat": "pp256+tg256@d1536",
    "rag": "pp3072+tg256",
    "code": "pp512+tg256@d2048",
    "batch": "pp1024+tg32",
}
"""Workloads by name: a turn in a conversation, a question with passages to read, an edit in an open
file, a document to be classified."""
_SHALLOW = 32
"""So few tokens in the cache slow nothing down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Token counts of one request."""

    n_prompt: int = 512
    """Prompt tokens computed inside the clock (prefill)."""
    n_gen: int = 128
    """Tokens generated after the prompt (decode)."""
    n_depth: int = 0
    """Tokens already in the cache when the request arrives, computed outside the clock."""
    n_parallel: int = 1
    """Requests served together."""

    def __post_init__(self) -> None:
        if min(self.n_prompt, self.n_gen, self.n_depth) < 0 or self.n_parallel < 1:
            raise UserError(f"workload {self.label} is not valid: token counts start at 0")
        if self.n_prompt + self.n_gen == 0:
            raise UserError("a workload needs tokens: write pp512+tg128@d0")

    @property
    def label(self) -> str:
        """llama-bench's spelling, such as ``pp512+tg128@d0``."""
        phases = [f"pp{self.n_prompt}"] * bool(self.n_prompt) + [f"tg{self.n_gen}"] * bool(
            self.n_gen
        )
        suffix = f"x{self.n_parallel}" if self.n_parallel > 1 else ""
        return f"{'+'.join(phases)}@d{self.n_depth}{suffix}"

    @property
    def n_tokens(self) -> int:
        """Cache cells that one request fills."""
        return self.n_depth + self.n_prompt + self.n_gen

    @property
    def decode_depth(self) -> float:
        """Mean number of cached tokens that a decoded token attends to."""
        return self.n_depth + self.n_prompt + self.n_gen / 2

    @property
    def coarse(self) -> Workload:
        """The class that it belongs to: every count is the nearest power of two.

        Requests of ordinary use are never quite alike; those of a class differ by up to √2.
        """
        return Workload(
            n_prompt=_nearest_power(self.n_prompt),
            n_gen=_nearest_power(self.n_gen),
            n_depth=0 if self.n_depth < _SHALLOW else _nearest_power(self.n_depth),
            n_parallel=self.n_parallel,
        )

    def require_context(self, n_ctx: int) -> None:
        """Raises UserError when a context of ``n_ctx`` tokens cannot hold one request."""
        if self.n_tokens > n_ctx:
            raise UserError(
                f"workload {self.label} needs {self.n_tokens} tokens, n_ctx is {n_ctx}: "
                "raise n_ctx or choose a smaller --workload"
            )

    @classmethod
    def parse(cls, text: str) -> Workload:
        """Read a label. Raises UserError for anything that is not one."""
        match = _LABEL.fullmatch(text.strip())
        if match is None or not (match["prompt"] or match["gen"]):
            presets = ", ".join(PRESETS)
            raise UserError(f"{text!r} is not a workload: write pp512+tg128@d0, or {presets}")
        return cls(
            n_prompt=int(match["prompt"] or 0),
            n_gen=int(match["gen"] or 0),
            n_depth=int(match["depth"] or 0),
            n_parallel=int(match["parallel"] or 1),
        )


def _nearest_power(count: int) -> int:
    """1, 2, 4 … on a logarithmic scale; 0 stays 0."""
    return 1 << round(math.log2(count)) if count else 0
