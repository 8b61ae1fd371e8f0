"""What a place makes of an engine, learned from the other models run there.

A new model on a known machine is not a blank: the machine's other models already told how much of
its rooflines each build reaches. A row lies in several places at once, wide and narrow: the device,
the machine, the flavour of the build; and (to a prompt, at its length) the build, how its flavour
computes attention, how flavour and device run models with or without experts. Machines with the
same GPU are one device: a second one is not a blank either.

Residuals are the sum of what each place does, of what is peculiar to a family on that device, and
of the rest, all normal with fixed standard deviations. Places and families are estimated together,
because builds are not run with the same models: one that met slow models only is not a slow build.
A family never speaks for itself. Robinson, "That BLUP is a good thing", Statistical Science 6(1),
1991; what the others say without one block of rows: Rasmussen & Williams, "Gaussian Processes for
Machine Learning", 2006, section 5.4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.domain.engine import engine_of
from autotune.facts.devices import lookup
from autotune.features.case import Array, Case

Strings = npt.NDArray[np.str_]
Ints = npt.NDArray[np.intp]
DEVICE, MACHINE, _, BUILD = range(4)
"""Positions of these among the places of a case."""
N_AT_LENGTH = 4
"""So many of the places, the last ones, are to a prompt others at each length."""
_PLACE_SD = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""How far places lie apart, in spreads of single cells. (Most likely of the public telemetry's
prompts: all between 0.3 and 1, with or without experts on one device 1.7.)"""
N_PLACES = len(_PLACE_SD)
_FAMILY_SD = 0.6
_FAMILY_AT_LENGTH_SD = 1.0
_MOST_CELLS = 3000
"""Of one device; those with the most rows are kept."""


def place_names(case: Case) -> tuple[str, ...]:
    """Device, machine, flavour; build, attention and experts by flavour, experts by device.

    Backends of one engine share its place on a machine; each has builds of its own.
    """
    engine = f"{engine_of(case.backend).name}/{case.api}"
    device, machine = f"{device_name(case)}/{engine}", f"{case.machine_id}/{engine}"
    build = f"{machine}/{case.backend}/{case.build}"
    flavour = f"{machine}/{case.backend}/{flavour_of(case.build)}"
    fuses = "fused" if case.config.flash_attn != "off" else "plain"
    kind = "experts" if case.model.n_experts else "dense"
    at_length = (build, f"{flavour}/{fuses}", f"{flavour}/{kind}", f"{device}/{kind}")
    return device, machine, flavour, *at_length


def flavour_of(build: str) -> str:
    """A build without the number before it: ``6077 llama.cpp-hip`` is a ``llama.cpp-hip``.

    The next number of a flavour is much like the last.
    """
    number, _, rest = build.partition(" ")
    return rest if number.isdecimal() else build


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
    """Places of one width."""

    names: dict[str, int]
    effect: Array
    """Of each place on each family, by the others; last by all; (n_places, n_families + 1)."""


@dataclass(frozen=True, slots=True)
class PlaceEffects:
    """Effects of places on log slowdowns."""

    levels: tuple[Level, ...]
    families: dict[str, int]

    @classmethod
    def fit(
        cls, places: Strings, families: Strings, residual: Array, *, devices: Strings, length: Ints
    ) -> PlaceEffects:
        """Learn from residuals of shape (n,) in places of shape (n, n_levels).

        ``length`` numbers the lengths at which a family is peculiar in other ways.
        """
        kinds, family = np.unique(families, return_inverse=True)
        names, numbers = zip(*(np.unique(of, return_inverse=True) for of in places.T), strict=True)
        told = np.stack([*numbers, family, length], axis=1)
        cells, first, index, count = np.unique(
            told, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        mean = np.bincount(index.ravel(), residual) / count
        effects = [np.zeros((len(of), len(kinds) + 1)) for of in names]
        for device in np.unique(devices):
            rows = np.flatnonzero(devices[first] == device)
            rows = rows[np.argsort(-count[rows], kind="stable")[:_MOST_CELLS]]
            _add_effects(effects, cells[rows], mean[rows])
        levels = zip(names, effects, strict=True)
        return cls(tuple(Level(_numbered(of), effect) for of, effect in levels), _numbered(kinds))

    def column(self, places: Strings, families: Strings) -> Array:
        """The sum of the effects of each row's places on its family; shape (n,)."""
        columns = _looked_up(self.families, families)
        total = np.zeros(len(families))
        for i, level in enumerate(self.levels):
            rows = _looked_up(level.names, places[:, i])
            total += np.where(rows >= 0, level.effect[rows, columns], 0.0)
        return total


def _add_effects(effects: list[Array], cells: Ints, mean: Array) -> None:
    """Estimate the effects of the places of one device, from the means of its cells.

    ``cells`` holds the numbers of places, family and length; shape (n_cells, n_levels + 2).
    """
    *places, family, length = cells.T
    same_family = family[:, None] == family
    peculiar = _FAMILY_SD**2 + _FAMILY_AT_LENGTH_SD**2 * (length[:, None] == length)
    covariance = np.eye(len(mean)) + same_family * peculiar
    for sd, place in zip(_PLACE_SD, places, strict=True):
        covariance += sd**2 * (place[:, None] == place)
    inverse = np.linalg.inv(covariance)
    weight = inverse @ mean
    for left_out in range(effects[0].shape[1]):
        own = np.flatnonzero(family == left_out)
        others = weight
        if len(own):
            block = inverse[np.ix_(own, own)]
            others = weight - inverse[:, own] @ np.linalg.solve(block, weight[own])
            others[own] = 0.0
        for sd, place, effect in zip(_PLACE_SD, places, effects, strict=True):
            effect[:, left_out] += sd**2 * np.bincount(place, others, minlength=len(effect))


def _numbered(names: Strings) -> dict[str, int]:
    return {str(name): number for number, name in enumerate(names)}


def _looked_up(numbers: dict[str, int], names: Strings) -> Ints:
    """The number of each name; −1 of one that is not known."""
    return np.array([numbers.get(str(name), -1) for name in names], dtype=np.intp)
