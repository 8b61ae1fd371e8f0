"""A benchmark of ordinary requests: what a user of the loaded model sees, prompt by prompt.

It measures the application's own path (text in, text out, sampling), not the engine's limits:
those are ``autotune bench``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.domain import stats
from autotune.domain.arguments import require_whole
from autotune.domain.errors import WorkFailedError
from autotune.domain.request import TextRequest
from autotune.domain.run import Generation
from autotune.domain.units import human_seconds
from autotune.serving.endings import is_fatal
from autotune.serving.loaded_model import Answer

MAX_TOKENS = 48
PROMPTS = (
    "Name three colours.",
    "Explain in a few sentences how a bicycle stays upright while somebody rides it.",
    "Summarise the following notes in one sentence. "
    + "The meeting began at nine and dealt with the budget of the coming year. " * 12,
)
"""A question, a request for an explanation, and a text to work on: about 5, 20 and 200 tokens."""
_MOST_ITERATIONS = 10_000
_SLOW_FIRST_TOKEN_S = 2.0
_SLOW_DECODE_TPS = 10.0
"""Slower than people read (about 5 words a second)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """What came of one prompt."""

    prompt: str
    generations: tuple[Generation, ...]
    n_failed: int

    @property
    def decode_tps(self) -> float | None:
        """Tokens generated per second, median."""
        return _median([generation.decode_tps for generation in self.generations])

    @property
    def ttft_s(self) -> float | None:
        """Until the first token, median seconds."""
        return _median([generation.ttft_s for generation in self.generations])

    @property
    def response_s(self) -> float | None:
        """The whole answer, median seconds."""
        return _median([response_s(generation) for generation in self.generations])


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What came of all prompts."""

    num_iterations: int
    prompts: tuple[PromptResult, ...]

    def median(self, name: str) -> float | None:
        """The median over the prompts of one of their figures."""
        return _median([getattr(prompt, name) for prompt in self.prompts])

    @property
    def success_rate(self) -> float:
        """Share of the requests that were answered, 0 to 1."""
        n_ok = sum(len(prompt.generations) for prompt in self.prompts)
        return n_ok / (n_ok + sum(prompt.n_failed for prompt in self.prompts))


def benchmark(answer: Callable[[TextRequest], Answer], *, num_iterations: int) -> Benchmark:
    """Every prompt ``num_iterations`` times, after one answer that is not counted.

    The prompts take turns, so that no one is answered from the cache of the one before. A request
    that the engine refuses counts as failed. Raises UserError for fewer than one iteration;
    WorkFailedError where the engine dies, or answers not even the first.
    """
    require_whole("num_iterations", num_iterations, low=1, high=_MOST_ITERATIONS)
    requests = [TextRequest(prompt=p, max_tokens=MAX_TOKENS, temperature=0.0) for p in PROMPTS]
    answer(requests[0])
    found: dict[str, list[Generation]] = {prompt: [] for prompt in PROMPTS}
    failed = dict.fromkeys(PROMPTS, 0)
    for _ in range(num_iterations):
        for request in requests:
            try:
                generation = answer(request).generation
            except WorkFailedError as error:
                if is_fatal(error):
                    raise
                generation = None
            if generation is None:
                failed[request.prompt] += 1
            else:
                found[request.prompt].append(generation)
    return Benchmark(
        num_iterations=num_iterations,
        prompts=tuple(
            PromptResult(prompt=p, generations=tuple(found[p]), n_failed=failed[p]) for p in PROMPTS
        ),
    )


def describe(result: Benchmark) -> dict[str, Any]:
    """The benchmark in the guide's words, JSON-ready."""
    return {
        "num_iterations": result.num_iterations,
        "average_metrics": {
            **_metrics(result.median("decode_tps"), result.median("response_s")),
            "first_token_latency": result.median("ttft_s"),
            "success_rate": result.success_rate,
        },
        "prompts": [
            {
                "prompt": prompt.prompt,
                **_metrics(prompt.decode_tps, prompt.response_s),
                "first_token_latency": prompt.ttft_s,
                "n_failed": prompt.n_failed,
            }
            for prompt in result.prompts
        ],
    }


def weaknesses(result: Benchmark) -> list[str]:
    """What a user would complain about, each with its number."""
    lines = []
    tps, ttft_s = result.median("decode_tps"), result.median("ttft_s")
    if tps is not None and tps < _SLOW_DECODE_TPS:
        lines.append(f"{tps:.1f} tokens/s is slower than people read: try a smaller quantization")
    if ttft_s is not None and ttft_s > _SLOW_FIRST_TOKEN_S:
        lines.append(f"the first token takes {human_seconds(ttft_s)}: shorten the prompts")
    if result.success_rate < 1:
        lines.append(f"{1 - result.success_rate:.0%} of the requests failed: autotune runs")
    return lines


def response_s(generation: Generation) -> float:
    """Seconds from the request to its last token."""
    return (generation.ttft_s or 0.0) + (generation.decode_ns or 0) / 1e9


def _metrics(tps: float | None, seconds: float | None) -> dict[str, float | None]:
    return {"overall_tokens_per_sec": tps, "overall_response_time": seconds}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stats.median(known) if known else None
