"""What a place makes of an engine, learned from the other models run there.

A new model on a known machine is not a blank: the machine's other models already told how much of
its rooflines each build reaches. A row lies in several places at once, wide and narrow
(:mod:`autotune.predict.places`). What a build's attention does to a prompt is felt by the root of
the share of it that is attention: with HIP kernels flash attention costs prompts of 2,048 tokens of
three models 14 % where that is 1.5 %, 28 % where it is 4 %, 66 % where it is 13 %. (Other powers of
it, 0, 1/4, 3/4 and 1, are less likely by 220, 23, 82 and 178 in the logarithm, over 2,134 cells.)

Residuals are the sum of what each place does, of what is peculiar to a family where it ran, and of
the rest, all normal with fixed standard deviations. Places and families are estimated together,
because builds are not run with the same models: one that met slow models only is not a slow build.
A family never speaks for itself. Robinson, "That BLUP is a good thing", Statistical Science 6(1),
1991; what the others say without one block of rows: Rasmussen & Williams, "Gaussian Processes for
Machine Learning", 2006, section 5.4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.domain.config import MOST_THREADS
from autotune.features.case import Array
from autotune.features.columns import COLUMNS
from autotune.predict.places import DEVICE, FLAVOUR, WIDTHS, Width
from autotune.predict.subjects import Bools, Ints, Strings, Subjects

_WIDE_SD = 2.0
"""How far wide places lie apart, in spreads of single cells. (Of one GPU public telemetry knows two
machines: it does not say. By 1 the second one's decode was promised too narrowly.)"""
_NARROW_SD = 1.0
"""And narrow ones."""
_AT_LENGTH_SD = 2.0
"""Narrow ones that are to a prompt others at each length: its kernels differ more than those that
wait for memory. (Likelier than 1 by 173; 3 is as likely.)"""
_FAMILY_SD = 1.0
"""How far a family lies from the others on one interface to a device, in the same unit."""
_FAMILY_AT_LENGTH_SD = 2.0
"""How far beyond that at one length: every interface has kernels that suit some shapes."""
_FAMILY_AND_FLAVOUR_SD = 1.0
"""And with one flavour of the builds, at one length. (Families that lie apart on all interfaces at
once, by 0.6 and at each length by 1, are less likely by 760.)"""
_MOST_CELLS = 3000
"""Of one device; those with the most rows are kept."""
_MOST_OCTAVES = 14
"""Prompts of 8,192 tokens and more are alike."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where rows lie."""

    names: Strings
    """Of the distinct ones; shape (n_distinct, n_widths)."""
    families: Strings
    """Shape (n_distinct,)."""
    length: Ints
    """Numbers the lengths of prompts; shape (n_distinct,)."""
    index: Ints
    """Which of them each row is; shape (n,)."""
    loading: Array
    """How much each row feels of each place, 1 as a rule; shape (n, n_widths)."""
    sd: tuple[float, ...]
    """How far places of each width lie apart, in spreads of single cells."""


def locate(phase: str, x: Array, subjects: Subjects) -> Whereabouts:
    """Where the rows x of a phase lie, of shape (n, n_features)."""
    columns = COLUMNS[phase]
    length, loading = np.zeros(len(x), dtype=np.intp), np.ones((len(x), len(WIDTHS)))
    has_prompt = "prompt" in columns
    if has_prompt:
        octave = np.round(x[:, columns.index("prompt")] + 9)
        length = np.clip(octave, 0, _MOST_OCTAVES - 1).astype(np.intp)
        felt = 2 ** x[:, columns.index("attention_share")]
        loading[:, [width.by_attention for width in WIDTHS]] = felt[:, None]
    threads = _threads(columns, x, subjects)
    loading[:, [width.by_threads for width in WIDTHS]] = (threads > 0)[:, None]
    kind = (subjects.kinds * _MOST_OCTAVES + length) * (MOST_THREADS + 1) + threads
    _, first, index = np.unique(kind, return_index=True, return_inverse=True)
    kinds = subjects.take(first)
    of_length, of_threads = (np.char.add("/", n[first].astype(str)) for n in (length, threads))
    names = [
        np.char.add(of, of_length) if has_prompt and width.at_length
        else np.char.add(of, of_threads) if width.by_threads
        else of
        for of, width in zip(kinds.places.T, WIDTHS, strict=True)
    ]  # fmt: skip
    return Whereabouts(
        names=np.stack(names, axis=1),
        families=kinds.families,
        length=length[first],
        index=index,
        loading=loading,
        sd=tuple(_sd(width, has_prompt=has_prompt) for width in WIDTHS),
    )


def _threads(columns: Sequence[str], x: Array, subjects: Subjects) -> Ints:
    """Threads of the phase on a processor, 0 where a GPU computes; shape (n,)."""
    name = next((name for name in ("threads", "threads_batch") if name in columns), None)
    if name is None:
        return np.zeros(len(x), dtype=np.intp)
    threads = np.round(2 ** x[:, columns.index(name)])
    return np.where(subjects.on_gpu, 0, np.minimum(threads, MOST_THREADS)).astype(np.intp)


def _sd(width: Width, *, has_prompt: bool) -> float:
    if not width.at_length:
        return _WIDE_SD
    return _AT_LENGTH_SD if has_prompt else _NARROW_SD


@dataclass(frozen=True, slots=True)
class Level:
    """Places of one width."""

    names: dict[str, int]
    sd: float
    """How far the places lie apart, in spreads of single cells."""
    effect: Array
    """Of each place on each family, by the others; last by all; (n_places, n_families + 1). In
    standard deviations of places, at a loading of 1."""
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
    def fit(cls, where: Whereabouts, residual: Array, *, devices: Strings) -> PlaceEffects:
        """Learn from residuals of shape (n,) on these devices."""
        kinds, family = np.unique(where.families, return_inverse=True)
        names, numbers = zip(
            *(np.unique(of, return_inverse=True) for of in where.names.T), strict=True
        )
        told = np.stack([*numbers, family, where.length], axis=1)[where.index]
        cells, first, index, count = np.unique(
            told, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        index = index.ravel()
        mean = np.bincount(index, residual) / count
        felt = np.stack([np.bincount(index, of) / count for of in where.loading.T])
        felt *= np.array(where.sd)[:, None]
        effects = [np.zeros((len(of), len(kinds) + 1)) for of in names]
        surprise, n_cells = 0.0, 0
        for device in np.unique(devices):
            rows = np.flatnonzero(devices[first] == device)
            rows = rows[np.argsort(-count[rows], kind="stable")[:_MOST_CELLS]]
            surprise += _add_effects(effects, cells[rows], felt[:, rows], mean[rows])
            n_cells += len(rows)
        levels = (
            Level(_numbered(of), sd, effect, _told(place, family, effect.shape))
            for of, sd, place, effect in zip(names, where.sd, numbers, effects, strict=True)
        )
        return cls(tuple(levels), _numbered(kinds), float(np.sqrt(surprise / n_cells)))

    def total(self, where: Whereabouts) -> Array:
        """The sum of the effects of each row's places on its family; shape (n,)."""
        columns = _looked_up(self.families, where.families)
        total = np.zeros(len(where.index))
        for level, names, loading in zip(self.levels, where.names.T, where.loading.T, strict=True):
            rows = _looked_up(level.names, names)
            effect = np.where(rows >= 0, level.sd * level.effect[rows, columns], 0.0)
            total += effect[where.index] * loading
        return total

    def is_told(self, width: int, names: Strings, families: Strings) -> Bools:
        """Whether other families were run in each of these places of one width; shape (n,)."""
        level = self.levels[width]
        rows = _looked_up(level.names, names)
        told = level.is_told[rows, _looked_up(self.families, families)]
        return np.asarray((rows >= 0) & (told > 0), dtype=bool)

    def doubt(self, where: Whereabouts) -> Array:
        """Standard deviation of what nobody told of each row's places; shape (n,)."""
        variance = np.zeros(len(where.index))
        for width, level in enumerate(self.levels):
            told = self.is_told(width, where.names[:, width], where.families)[where.index]
            variance += np.where(told, 0.0, (level.sd * where.loading[:, width]) ** 2)
        return np.asarray(self.spread * np.sqrt(variance))


def _told(place: Ints, family: Ints, shape: tuple[int, ...]) -> Array:
    """Whether, of each place, each family has others that were run there; last, whether any was."""
    ran = np.zeros((shape[0], shape[1] - 1))
    ran[place, family] = 1.0
    n = ran.sum(axis=1, keepdims=True)
    return np.asarray(np.hstack([n - ran, n]) > 0, dtype=float)


def _add_effects(effects: list[Array], cells: Ints, felt: Array, mean: Array) -> float:
    """Estimate the effects of the places of one device, from the means of its cells.

    ``cells`` holds the numbers of places, family and length; shape (n_cells, n_widths + 2). They
    feel their places by ``felt`` times a standard normal draw; shape (n_widths, n_cells). Returns
    the sum of their squares, each in its own standard deviations: their number, were cells to
    spread by 1.
    """
    *places, family, length = cells.T
    of_device, of_flavour = (_same(places[width]) for width in (DEVICE, FLAVOUR))
    at_length = _same(length)
    peculiar = (
        _FAMILY_SD**2 * of_device
        + _FAMILY_AT_LENGTH_SD**2 * (of_device & at_length)
        + _FAMILY_AND_FLAVOUR_SD**2 * (of_flavour & at_length)
    )
    covariance = np.eye(len(mean)) + _same(family) * peculiar
    for of, place in zip(felt, places, strict=True):
        covariance += of[:, None] * of * _same(place)
    inverse = np.linalg.inv(covariance)
    weight = inverse @ mean
    for left_out in range(effects[0].shape[1]):
        own = np.flatnonzero(family == left_out)
        others = weight
        if len(own):
            block = inverse[np.ix_(own, own)]
            others = weight - inverse[:, own] @ np.linalg.solve(block, weight[own])
            others[own] = 0.0
        for of, place, effect in zip(felt, places, effects, strict=True):
            effect[:, left_out] += np.bincount(place, of * others, minlength=len(effect))
    return float(mean @ weight)


def _same(numbers: Ints) -> Bools:
    """Which pairs agree; shape (n, n)."""
    return np.asarray(numbers[:, None] == numbers)


def _numbered(names: Strings) -> dict[str, int]:
    return {str(name): number for number, name in enumerate(names)}


def _looked_up(numbers: dict[str, int], names: Strings) -> Ints:
    """The number of each name; −1 of one that is not known."""
    return np.array([numbers.get(str(name), -1) for name in names], dtype=np.intp)
