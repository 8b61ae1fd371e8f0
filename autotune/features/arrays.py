"""Cases as columns: every knob and fact of many cases at once.

What belongs to a model or to a machine is computed once for each and spread over its cases, so that
2,000 candidates of one model cost little more than one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.domain.config import KV_BYTES_PER_ELEMENT
from autotune.domain.engine import engine_of
from autotune.features.case import Array, Case
from autotune.features.ceilings import find_ceilings

_KNOBS = attrgetter(
    *("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "use_mmap", "offload_kqv"),
    *("n_gpu_layers", "op_offload", "n_parallel"),
)
_TOKENS = attrgetter("n_prompt", "n_gen", "n_depth", "decode_depth")


class CaseArrays:
    """Columns of a list of cases; every array has shape (n_cases,)."""

    def __init__(self, cases: Sequence[Case]) -> None:
        configs = [case.config for case in cases]
        knobs = np.array([_KNOBS(config) for config in configs], dtype=float).reshape(-1, 10)
        self.n_ctx, self.n_batch, self.n_ubatch, self.n_threads, self.n_threads_batch = knobs.T[:5]
        self.use_mmap, self.offload_kqv, gpu_layers, self.op_offload, self.n_parallel = knobs.T[5:]
        self.flash_attn = np.array([config.flash_attn != "off" for config in configs], dtype=float)
        self.bytes_k = np.array([KV_BYTES_PER_ELEMENT[c.type_k] for c in configs], dtype=float)
        self.bytes_v = np.array([KV_BYTES_PER_ELEMENT[c.type_v] for c in configs], dtype=float)
        tokens = np.array([_TOKENS(case.workload) for case in cases], dtype=float).reshape(-1, 4)
        self.n_prompt, self.n_gen, self.n_depth, self.decode_depth = tokens.T
        self.cached = np.array([_or(case.cached_ratio, 1.0) for case in cases], dtype=float)
        models = _Spread(list(cases), key=_held_key)
        # What is read and multiplied is the model as its engine holds it.
        held = [case.held for case in models.distinct]
        self.unpacked_bytes = models.spread([
            model.weight_bytes if model is not case.model else 0.0
            for model, case in zip(held, models.distinct, strict=True)
        ])  # fmt: skip
        models.distinct = held
        self._models = models
        self._places = _Spread(list(cases), key=lambda c: (id(c.machine), id(c.probe), c.api))
        self._files = _Spread(list(cases), key=lambda c: (id(c.model), id(c.disk)))
        self.ceilings = [find_ceilings(c.machine, c.probe, c.api) for c in self._places.distinct]
        self.gpu_read = self._places.spread([c.gpu_read for c in self.ceilings])
        self.gpu_flops = self._places.spread([c.gpu_flops for c in self.ceilings])
        self.is_known = self._places.spread([c.is_known for c in self.ceilings])
        self.link = self._places.spread([c.link for c in self.ceilings])
        everything = self.of_model(lambda m: m.n_layers) + 1
        layers = np.where(gpu_layers < 0, everything, np.minimum(gpu_layers, everything))
        self.gpu_layers = np.where(self.gpu_read > 0, layers, 0.0)

    def __len__(self) -> int:
        return len(self.n_ctx)

    @property
    def decode_knobs(self) -> Array:
        """All that decode depends on but the depth; equal rows are one curve over depth.

        Shape (n_cases, 10).
        """
        return np.column_stack(
            [self.n_threads, self.gpu_layers, self.offload_kqv, self.flash_attn, self.bytes_k,
             self.bytes_v, self.n_prompt, self.n_gen, self._models.index, self._places.index]
        )  # fmt: skip

    def at_depth(self, rows: npt.NDArray[np.intp], n_depth: Array) -> CaseArrays:
        """Some of the cases with other numbers of cached tokens; ``rows``, ``n_depth``: (n,)."""
        taken = copy.copy(self)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                setattr(taken, name, column[rows])
            elif isinstance(column, _Spread):
                setattr(taken, name, column.take(rows))
        taken.decode_depth = taken.decode_depth - taken.n_depth + n_depth
        taken.n_depth = n_depth
        return taken

    def of_model(self, value: Callable[[Any], float]) -> Array:
        """A number of each case's model, computed once per model."""
        return self._models.spread([value(model) for model in self._models.distinct])

    def of_file(self, value: Callable[[Case], float]) -> Array:
        """A number of each case's model where it lies."""
        return self._files.spread([value(case) for case in self._files.distinct])

    def of_place(self, value: Callable[[Case], float]) -> Array:
        """A number of each case's machine and what its engine computes with."""
        return self._places.spread([value(case) for case in self._places.distinct])

    def read_rate(self, n_threads: Array) -> Array:
        """Bytes per second of each case's host memory with so many threads."""
        return self._at_threads(n_threads, [c.read_rate for c in self.ceilings])

    def flops(self, n_threads: Array) -> Array:
        """Floating-point operations per second of each case's host."""
        return self._at_threads(n_threads, [c.flops for c in self.ceilings])

    def _at_threads(self, n_threads: Array, rates: Sequence[Callable[[Array], Array]]) -> Array:
        found = np.empty(len(self))
        for number, rate in enumerate(rates):
            rows = self._places.index == number
            found[rows] = rate(n_threads[rows])
        return found


def _held_key(case: Case) -> Hashable:
    """What decides how an engine holds a model."""
    kind = case.config.type_k if engine_of(case.backend).unpacks else None
    return id(case.model), kind


class _Spread:
    """The distinct ones of a list, and which of them each entry is."""

    def __init__(self, values: Sequence[Any], *, key: Callable[[Any], Hashable]) -> None:
        numbers: dict[Hashable, int] = {}
        self.distinct: list[Any] = []
        index = []
        for value in values:
            number = numbers.setdefault(key(value), len(numbers))
            if number == len(self.distinct):
                self.distinct.append(value)
            index.append(number)
        self.index = np.array(index, dtype=int)

    def take(self, rows: npt.NDArray[np.intp]) -> _Spread:
        """Some of the entries."""
        taken = copy.copy(self)
        taken.index = self.index[rows]
        return taken

    def spread(self, values: Sequence[float]) -> Array:
        """One value per distinct one, for every entry."""
        if not len(self.index):
            return np.empty(0)
        return np.asarray(np.array(values, dtype=float)[self.index])


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
