"""A search space: the values worth trying for each knob, and which points are legal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autotune.domain.config import Config
from autotune.domain.errors import ConfigError

GPU_KNOBS = ("offload_kqv", "split_mode", "main_gpu", "tensor_split")
"""Those that say where layers lie and what goes with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One knob and its candidate values; the first is the plainest."""

    knob: str
    values: tuple[Any, ...]

    @property
    def options(self) -> tuple[Mapping[str, Any], ...]:
        """What each value sets."""
        return tuple({self.knob: value} for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Knobs that only make sense together, and their candidate settings."""

    options: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The product of its parameters around a base, without illegal points and duplicates."""

    base: Config
    """Knobs that are not searched keep their value here."""
    parameters: tuple[Parameter | Bundle, ...]

    def configs(self) -> tuple[Config, ...]:
        """Every legal configuration once, the base first."""
        return tuple(dict.fromkeys((self.base, *self._legal())))

    def _legal(self) -> Iterator[Config]:
        for chosen in itertools.product(*(parameter.options for parameter in self.parameters)):
            try:
                yield self._config({knob: v for option in chosen for knob, v in option.items()})
            except ConfigError:
                continue

    def _config(self, changes: dict[str, Any]) -> Config:
        """The logical batch follows the physical one: it has no effect of its own below it.

        Without a layer on a GPU, what is said of layers there has no effect. A GPU may still be
        lent large batches (``op_offload``).
        """
        if not changes.get("n_gpu_layers", self.base.n_gpu_layers):
            changes = {knob: v for knob, v in changes.items() if knob not in GPU_KNOBS}
        n_ubatch = changes.get("n_ubatch", self.base.n_ubatch)
        n_batch = min(max(self.base.n_batch, n_ubatch), self.base.n_ctx)
        return self.base.replace(n_batch=n_batch, **changes)
