"""What one build of an engine does on one machine, learned from the other models run there.

A new model on a known machine is not a blank: the machine's other models already told how much of
its rooflines this build reaches. Machines with the same GPU are one place: a second one is not a
blank either. An effect is the mean residual over model families, each counting
once, shrunk towards that of the wider place; a family never speaks for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.domain.engine import engine_of
from autotune.facts.devices import lookup
from autotune.features.case import Array, Case

Strings = npt.NDArray[np.str_]
DEVICE, MACHINE, BUILD = range(3)
"""Positions of these among the places of a case."""
_PRIOR_FAMILIES = 1.0
"""Families that the wider place counts for."""


def place_names(case: Case) -> tuple[str, str, str, str]:
    """Device with engine, machine, build, and the build's attention kernel: each within the last.

    Backends of one engine share its place on a machine; each has builds of its own.
    """
    engine = f"{engine_of(case.backend).name}/{case.api}"
    machine = f"{case.machine_id}/{engine}"
    build = f"{machine}/{case.backend}/{case.build}"
    attention = f"{build}/{case.config.flash_attn != 'off'}"
    return f"{device_name(case)}/{engine}", machine, build, attention


def device_name(case: Case) -> str:
    """What computes: a GPU by its name, where that tells one; else this machine, and no other.

    Drivers call one GPU by several names; cards that differ are nobody else's machine.
    """
    cards = [] if case.api == "CPU" else case.machine.gpus
    known = {found.name for card in cards if (found := lookup(card.name))}
    is_one = len(known) == 1 and sum(card.device is not None for card in cards) <= 1
    return known.pop() if is_one else case.machine_id


@dataclass(frozen=True, slots=True)
class Level:
    """Mean residual of each family in each place."""

    places: dict[str, int]
    families: dict[str, int]
    mean: Array
    """Shape (n_places, n_families); 0 where the family was not run there."""
    was_run: Array

    @classmethod
    def fit(cls, places: Strings, families: Strings, residual: Array) -> Level:
        """Learn from residuals of shape (n,), of families in places."""
        names, rows = np.unique(places, return_inverse=True)
        kinds, columns = np.unique(families, return_inverse=True)
        total, count = np.zeros((2, len(names), len(kinds)))
        np.add.at(total, (rows, columns), residual)
        np.add.at(count, (rows, columns), 1.0)
        return cls(
            places={str(name): i for i, name in enumerate(names)},
            families={str(kind): i for i, kind in enumerate(kinds)},
            mean=total / np.maximum(count, 1.0),
            was_run=(count > 0).astype(float),
        )

    def effect(self, places: Strings, families: Strings, wider: Array) -> Array:
        """Effects of places on families other than these; shape (n,)."""
        rows = np.array([self.places.get(str(name), -1) for name in places], dtype=int)
        columns = np.array([self.families.get(str(name), -1) for name in families], dtype=int)
        own = np.where(columns >= 0, self.was_run[rows, columns], 0.0)
        count = self.was_run.sum(axis=1)[rows] - own
        total = self.mean.sum(axis=1)[rows] - own * self.mean[rows, columns]
        shrunk = (total + _PRIOR_FAMILIES * wider) / (count + _PRIOR_FAMILIES)
        return np.asarray(np.where(rows >= 0, shrunk, wider))


@dataclass(frozen=True, slots=True)
class PlaceEffects:
    """Effects of places on log slowdowns, each level within the last."""

    levels: tuple[Level, ...]

    @classmethod
    def fit(cls, places: Strings, families: Strings, residual: Array) -> PlaceEffects:
        """Learn from residuals of shape (n,) in places of shape (n, n_levels)."""
        levels = range(places.shape[1])
        return cls(tuple(Level.fit(places[:, i], families, residual) for i in levels))

    def columns(self, places: Strings, families: Strings) -> Array:
        """The effect of each level, wide to narrow; shape (n, n_levels)."""
        effect = np.zeros(len(families))
        found = []
        for i, level in enumerate(self.levels):
            effect = level.effect(places[:, i], families, effect)
            found.append(effect)
        return np.stack(found, axis=1)
