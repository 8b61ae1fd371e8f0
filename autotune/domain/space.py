"""A search space: the values worth trying for each knob, and which points are legal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autotune.domain.config import Config
from autotune.domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One knob and its candidate values; the first is the plainest."""

    knob: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The product of its parameters around a base, without illegal points and duplicates."""

    base: Config
    """Knobs that are not searched keep their value here."""
    parameters: tuple[Parameter, ...]

    def configs(self) -> tuple[Config, ...]:
        """Every legal configuration once, the base first."""
        return tuple(dict.fromkeys((self.base, *self._legal())))

    def _legal(self) -> Iterator[Config]:
        names = [parameter.knob for parameter in self.parameters]
        for values in itertools.product(*(parameter.values for parameter in self.parameters)):
            try:
                yield self._config(dict(zip(names, values, strict=True)))
            except ConfigError:
                continue

    def _config(self, changes: dict[str, Any]) -> Config:
        """The logical batch follows the physical one; it has no effect of its own below it."""
        n_ubatch = changes.get("n_ubatch", self.base.n_ubatch)
        n_batch = min(max(self.base.n_batch, n_ubatch), self.base.n_ctx)
        return self.base.replace(n_batch=n_batch, **changes)
