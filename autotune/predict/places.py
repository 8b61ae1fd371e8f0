"""What a place makes of an engine, learned from the other models run there.

A new model on a known machine is not a blank: the machine's other models already told how much of
its rooflines each build reaches. A row lies in several places at once, wide and narrow: the device,
the machine, the flavour of the build; and (to a prompt, at its length) the build, how it and its
flavour compute attention, how flavour and device run models with or without experts. Machines with
the same GPU are one device: a second one is not a blank either.

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
N_AT_LENGTH = 5
"""So many of the places, the last ones, are to a prompt others at each length."""
_PLACE_SD = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""How far places lie apart, in spreads of single cells. (Most likely of the public telemetry's
prompts: all between 0.3 and 1, with or without experts on one device 1.7; a build's attention was
not asked for.)"""
N_PLACES = len(_PLACE_SD)
_FAMILY_SD = 0.6
_FAMILY_AT_LENGTH_SD = 1.0
_MOST_CELLS = 3000
"""Of one device; those with the most rows are kept."""


def place_names(case: Case) -> tuple[str, ...]:
    """Device, machine, flavour; build, attention by build and flavour, experts by flavour, device.

    Backends of one engine share its place on a machine; each has builds of its own.
    """
    engine = f"{engine_of(case.backend).name}/{case.api}"
    device, machine = f"{device_name(case)}/{engine}", f"{case.machine_id}/{engine}"
    build = f"{machine}/{case.backend}/{case.build}"
    flavour = f"{machine}/{case.backend}/{flavour_of(case.build)}"
    fuses = "fused" if case.config.flash_attn != "off" else "plain"
    kind = "experts" if case.model.n_experts else "dense"
    attention = f"{build}/{fuses}", f"{flavour}/{fuses}"
    return device, machine, flavour, build, *attention, f"{flavour}/{kind}", f"{device}/{kind}"


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
    is_told: Array
    """Whether those others were run there at all, 0 or 1; shape as effect."""


@dataclass(frozen=True, slots=True)
class PlaceEffects:
    """Effects of places on log slowdowns."""

    levels: tuple[Level, ...]
    families: dict[str, int]
    spread: float
    """Of a single cell: what the fixed standard deviations are multiples of."""

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
        surprise, n_cells = 0.0, 0
        for device in np.unique(devices):
            rows = np.flatnonzero(devices[first] == device)
            rows = rows[np.argsort(-count[rows], kind="stable")[:_MOST_CELLS]]
            surprise += _add_effects(effects, cells[rows], mean[rows])
            n_cells += len(rows)
        levels = (
            Level(_numbered(of), effect, _told(place, family, effect.shape))
            for of, place, effect in zip(names, numbers, effects, strict=True)
        )
        return cls(tuple(levels), _numbered(kinds), float(np.sqrt(surprise / n_cells)))

    def column(self, places: Strings, families: Strings) -> Array:
        """The sum of the effects of each row's places on its family; shape (n,)."""
        columns = _looked_up(self.families, families)
        total = np.zeros(len(families))
        for i, level in enumerate(self.levels):
            rows = _looked_up(level.names, places[:, i])
            total += np.where(rows >= 0, level.effect[rows, columns], 0.0)
        return total

    def is_told(self, level: int, places: Strings, families: Strings) -> npt.NDArray[np.bool_]:
        """Whether other families were run in each row's place of one width; shape (n,)."""
        rows = _looked_up(self.levels[level].names, places[:, level])
        told = self.levels[level].is_told[rows, _looked_up(self.families, families)]
        return np.asarray((rows >= 0) & (told > 0), dtype=bool)

    def doubt(self, places: Strings, families: Strings) -> Array:
        """Standard deviation of what nobody told of each row's places; shape (n,)."""
        variance = np.zeros(len(families))
        for i, sd in enumerate(_PLACE_SD):
            variance += np.where(self.is_told(i, places, families), 0.0, sd**2)
        return np.asarray(self.spread * np.sqrt(variance))


def _told(place: Ints, family: Ints, shape: tuple[int, ...]) -> Array:
    """Whether, of each place, each family has others that were run there; last, whether any was."""
    ran = np.zeros((shape[0], shape[1] - 1))
    ran[place, family] = 1.0
    n = ran.sum(axis=1, keepdims=True)
    return np.asarray(np.hstack([n - ran, n]) > 0, dtype=float)


def _add_effects(effects: list[Array], cells: Ints, mean: Array) -> float:
    """Estimate the effects of the places of one device, from the means of its cells.

    ``cells`` holds the numbers of places, family and length; shape (n_cells, n_levels + 2). Returns
    the sum of their squares, each in its own standard deviations: their number, were cells to
    spread by 1.
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
    return float(mean @ weight)


def _numbered(names: Strings) -> dict[str, int]:
    return {str(name): number for number, name in enumerate(names)}


def _looked_up(numbers: dict[str, int], names: Strings) -> Ints:
    """The number of each name; −1 of one that is not known."""
    return np.array([numbers.get(str(name), -1) for name in names], dtype=np.intp)
