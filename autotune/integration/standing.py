"""Which installed backend has proven itself on this machine, whatever the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.domain import stats
from autotune.measure.engine import Engine
from autotune.recommend.selection import priority
from autotune.store.usage import Usage

_READS = {"ctransformers": 0, "transformers": 1}
"""Before any run: ctransformers reads GGUF files of 2023, transformers multiplies their memory by
unpacking the weights, engines built on llama.cpp run them as they are (2)."""
_RELIABLE_RATIO = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What speaks for a backend; better ones compare greater in the order of these fields."""

    name: str
    is_reliable: bool
    n_fastest: int
    """Models that it ran faster than every other backend."""
    uses_gpu: bool
    n_succeeded: int
    n_used: int

    @property
    def key(self) -> tuple[object, ...]:
        """Sorts the best one first."""
        proven = (self.is_reliable, self.n_fastest, self.uses_gpu, self.n_succeeded)
        return (*(-value for value in proven), -_READS.get(self.name, 2), priority(self.name))

    @property
    def reasons(self) -> tuple[str, ...]:
        """A line for each thing that is known."""
        if not self.n_used:
            return (f"{self.name} is installed; nothing was run on this machine yet",)
        lines = [f"{self.name}: {self.n_succeeded} of {self.n_used} runs here succeeded"]
        if self.n_fastest:
            lines.append(f"{self.name}: fastest of the backends with {self.n_fastest} models")
        if self.uses_gpu:
            lines.append(f"{self.name}: uses a GPU")
        return tuple(lines)


def rank_backends(engines: Mapping[str, Engine], usages: Sequence[Usage]) -> list[Standing]:
    """The installed backends, best first: by reliability, speed, GPU and use, in this order."""
    wins = _fastest(usages)
    found = []
    for name, engine in engines.items():
        ratios = [u.success_ratio for u in usages if u.backend == name]
        known = [ratio for ratio in ratios if ratio is not None]
        found.append(
            Standing(
                name=name,
                is_reliable=not known or sum(known) >= _RELIABLE_RATIO * len(known),
                n_fastest=wins.get(name, 0),
                uses_gpu=bool(engine.gpus),
                n_succeeded=sum(ratio >= _RELIABLE_RATIO for ratio in known),
                n_used=len(known),
            )
        )
    return sorted(found, key=lambda standing: standing.key)


def _fastest(usages: Sequence[Usage]) -> dict[str, int]:
    """Number of models that each backend ran fastest, of those that several backends ran."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for usage in usages:
        if usage.reason is None and usage.decode_tps:
            rates[usage.model_id][usage.backend].append(usage.decode_tps)
    wins: dict[str, int] = defaultdict(int)
    for by_backend in rates.values():
        if len(by_backend) > 1:
            wins[max(by_backend, key=lambda name: stats.median(by_backend[name]))] += 1
    return wins
