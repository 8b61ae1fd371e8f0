"""Peak memory: what is known before the run, and a small learned remainder.

Known to the byte are weights, caches and the scratch memory that the request touches
(:mod:`autotune.facts.plan`, :mod:`autotune.facts.touched`). Left are the process itself, the
tokeniser's tables, and what machine and model add: a Bayesian linear regression around typical
values, in which each machine and each family that was run has an offset, wherever it was run, and
every other one the doubt about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from autotune.domain.config import KV_BYTES_PER_ELEMENT
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.units import MIB
from autotune.facts.compute_buffer import Attention
from autotune.facts.dequantised import READ_BYTES_PER_WORD
from autotune.facts.placement import CPU
from autotune.facts.plan import MemoryPlanner
from autotune.facts.touched import TouchedMemory
from autotune.facts.vram import vram_ratio
from autotune.facts.weights import repacked_types
from autotune.features.case import Array, Case
from autotune.predict.rows import family_name
from autotune.predict.typical import PROCESS_MIB, PROCESS_SD_MIB

_TYPICAL = np.array([PROCESS_MIB, 7.2, 1.0])
"""MiB of interpreter and libraries; bytes of tables per byte of the file's header, of which the
vocabulary is nearly all; resident bytes per byte of scratch memory.

18 vocabularies of llama.cpp and those of two models add 2.6 MiB and 7.2 bytes per byte of header,
give or take 4 MiB (one with a trie adds 19 bytes); context and sampler of those two 3 to 5 MiB."""
_DOUBT = np.array([PROCESS_SD_MIB, 0.5, 0.1])
"""Standard deviations of these over all machines and models."""
_MACHINE_MIB, _DRIVER_MIB = 3.0, 200.0
"""Standard deviations of what a machine adds: MiB of libraries; of a GPU's driver and runtime.
(Three processors lie 0.8, 3.9 and 4.8 MiB apart, with both families that were run on them.)"""
_FAMILY_MIB, _FAMILY_TABLES = 2.0, 1.5
"""Standard deviations of what a family adds: MiB; bytes per header byte."""
_NOISE_RATIO = 0.01
"""Unit of the residuals, as a share of the peak."""
_PRIOR_MISFIT = 5.0
"""Standard deviation of a residual before any was seen, in that unit. It counts as one row."""

_SAMPLER_BYTES_PER_WORD = 12
"""The sampler's candidates: word, logit and probability (llama_token_data)."""

_MOST_PLANS = 20_000
"""Plans of one model on one machine that are remembered: 400 bytes each."""
_memory_knobs = attrgetter(
    *("n_ctx", "n_batch", "n_ubatch", "n_parallel", "flash_attn", "type_k", "type_v", "swa_full"),
    *("use_mmap", "offload_kqv", "op_offload", "layer_split"),
)


class MemoryRegressor:
    """Peak resident bytes of a case.

    ``process_mib`` is (typical, doubt about it) of the engine's process: interpreter and libraries.
    """

    def __init__(self, *, process_mib: tuple[float, float] = (_TYPICAL[0], _DOUBT[0])) -> None:
        self._typical = np.array([process_mib[0], *_TYPICAL[1:]])
        self._doubt = np.array([process_mib[1], *_DOUBT[1:]])

    def fit(self, cases: Sequence[Case], peak_bytes: Array) -> MemoryRegressor:
        """Learn the remainder from measured peaks of shape (n_cases,), in bytes."""
        names = dict.fromkeys(name for case in cases for name in (_machine(case), _family(case)))
        self.columns_ = {name: i for i, name in enumerate(names)}
        known, x = _parts(cases)
        unit = _NOISE_RATIO * peak_bytes / MIB
        a = self._scaled(cases, x) / unit[:, None]
        y = ((peak_bytes - known) / MIB - x @ self._typical) / unit
        self.covariance_ = np.linalg.inv(a.T @ a + np.eye(a.shape[1]))
        self.weights_ = self.covariance_ @ a.T @ y
        # A negative share would make more scratch memory cost less.
        self.weights_[2] = max(self.weights_[2], -self._typical[2] / self._doubt[2])
        self.misfit_ = (np.sum((y - a @ self.weights_) ** 2) + _PRIOR_MISFIT**2) / (len(y) + 1)
        return self

    def predict(self, cases: Sequence[Case]) -> tuple[Array, Array]:
        """(peak bytes, standard deviation as a share of it), each of shape (n_cases,)."""
        known, x = _parts(cases)
        a = self._scaled(cases, x)
        peak = known + np.maximum(x @ self._typical + a @ self.weights_, 0) * MIB
        a /= (_NOISE_RATIO * peak / MIB)[:, None]
        doubt = np.sum(a @ self.covariance_ * a, axis=1)
        return peak, _NOISE_RATIO * np.sqrt(doubt + self.misfit_)

    def _scaled(self, cases: Sequence[Case], x: Array) -> Array:
        """Columns in MiB that weigh a standard deviation each; (n, 3 + machines and families + 2).

        The last two are for those that were never run: nothing is learned of them, all doubt stays.
        """
        n_known = len(self.columns_)
        own = np.zeros((len(cases), n_known + 2))
        told: dict[object, tuple[int, float, int, float]] = {}
        for row, case in enumerate(cases):
            key = (id(case.model), id(case.machine), case.machine_id, case.backend)
            if key not in told:
                driver = _DRIVER_MIB * _has_gpu(case.machine)
                told[key] = (
                    self.columns_.get(_machine(case), n_known),
                    float(np.hypot(_MACHINE_MIB, driver)),
                    self.columns_.get(_family(case), n_known + 1),
                    float(np.hypot(_FAMILY_MIB, _FAMILY_TABLES * x[row, 1])),
                )
            machine, machine_sd, family, family_sd = told[key]
            own[row, machine], own[row, family] = machine_sd, family_sd
        return np.hstack([x * self._doubt, own])


def _parts(cases: Sequence[Case]) -> tuple[Array, Array]:
    """(bytes known exactly, shape (n,); 1, MiB of header, MiB of scratch memory, shape (n, 3))."""
    plans: dict[object, _Plans] = {}
    table = np.empty((len(cases), 4))
    for index, case in enumerate(cases):
        if case.held is not case.model:
            table[index] = _unpacked(case)
            continue
        key = (id(case.model), id(case.machine))
        if key not in plans:
            plans[key] = _plans(case.model, case.machine)
        table[index] = plans[key].parts(case)
    return table[:, 0], table[:, 1:]


def vram_ratios(cases: Sequence[Case]) -> Array:
    """How full the fullest GPU gets, see :func:`autotune.facts.vram.vram_ratio`; (n_cases,)."""
    known: dict[object, float] = {}
    machines = {id(case.machine): case.machine for case in cases}
    with_gpu = {number for number, machine in machines.items() if _has_gpu(machine)}
    ratios = np.zeros(len(cases))
    for index, case in enumerate(cases if with_gpu else ()):
        if id(case.machine) not in with_gpu:
            continue
        key = (id(case.model), case.backend, id(case.machine), _memory_knobs(case.config))
        if key not in known:
            plan = _plans(case.held, case.machine).planner.plan(case.config)
            known[key] = vram_ratio(plan, case.machine)
        ratios[index] = known[key]
    return ratios


class _Plans:
    """What one model needs on one machine. A tuner asks of the same candidates again and again."""

    def __init__(self, model: ModelFacts, machine: MachineFacts) -> None:
        repacks = repacked_types(machine.isa)
        self.planner = MemoryPlanner(model, repacks=repacks, gpus=machine.gpus)
        self._touched = TouchedMemory(model)
        self._parts: dict[object, tuple[float, ...]] = {}

    def parts(self, case: Case) -> tuple[float, ...]:
        """A row of :func:`_parts`."""
        # Most candidates differ in threads only, which need no memory.
        key = (_memory_knobs(case.config), case.workload)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= _MOST_PLANS:
                self._parts.clear()
            found = self._parts[key] = self._new_parts(case)
        return found

    def _new_parts(self, case: Case) -> tuple[float, ...]:
        attention = Attention.of(case.model, case.config)
        host = reserved = kv = elsewhere = 0
        for entry in self.planner.plan(case.config, attention).entries:
            kv += entry.n_bytes if entry.component == "kv" else 0
            if entry.device != CPU:
                elsewhere += entry.n_bytes
            elif entry.component == "compute":
                reserved += entry.n_bytes
            else:
                host += entry.n_bytes
        scratch = self._touched.n_bytes(case.config, case.workload, attention)
        if elsewhere:
            scratch = min(scratch, reserved)
        known = (
            host
            + _SAMPLER_BYTES_PER_WORD * case.model.n_vocab
            # A measured run restores the cache of its depth from a copy.
            + kv * case.workload.n_depth / case.config.n_ctx
        )
        return known, 1.0, case.model.header_bytes / MIB, scratch / MIB


def _unpacked(case: Case) -> tuple[float, ...]:
    """Of an engine that unpacks the file: its weights, and the most that is needed beside them.

    While it computes, that is the cache of what is in it and the widest activations of the prompt;
    while it loads, the objects that the header becomes (they are the tables here).
    """
    model, work = case.held, case.workload
    on_host = case.api == "CPU" or not case.config.n_gpu_layers
    n_bytes = KV_BYTES_PER_ELEMENT[case.config.type_k]
    cells = work.n_tokens * sum(sum(model.cached_elements(i)) for i in range(model.n_layers))
    computed = work.n_prompt * (3 * model.n_ff + 4 * model.n_embd) + model.n_vocab
    loading = model.n_vocab * READ_BYTES_PER_WORD
    beside = max((cells + computed) * n_bytes * on_host - loading, 0.0)
    return model.weight_bytes + beside, 1.0, loading / _TYPICAL[1] / MIB, 0.0


@lru_cache(maxsize=64)
def _plans(model: ModelFacts, machine: MachineFacts) -> _Plans:
    return _Plans(model, machine)


def _has_gpu(machine: MachineFacts) -> bool:
    return any(gpu.device is not None for gpu in machine.gpus)


def _machine(case: Case) -> str:
    """Each backend's process has libraries of its own."""
    return f"{case.machine_id}/{case.backend}"


def _family(case: Case) -> str:
    """One vocabulary."""
    return family_name(case.model)
