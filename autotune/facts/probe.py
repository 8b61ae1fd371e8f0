"""What the machine can do, measured: memory read rate and arithmetic rate by thread count.

These are the two ceilings of the roofline. Decoding is bound by the first, prompts by the second,
and both saturate well before every processor has a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from autotune.domain import stats
from autotune.domain.machine import Probe
from autotune.domain.units import MIB

_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_BUFFER_BYTES = 256 * MIB
_LARGEST_BUFFER_BYTES = 2048 * MIB
_CACHES_PER_BUFFER = 4
_SIDE = 512
_MIN_REPEATS, _MAX_REPEATS = 3, 9
_REPEAT_S = 0.02
"""Shortest repeat that makes starting the threads (20 µs each) negligible."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Work:
    """Something to repeat: ``run(n)`` does it n times, and once is so many bytes or operations."""

    run: Callable[[int], None]
    units: float


@dataclass(frozen=True, slots=True)
class _Rate:
    """Units per second: median of the repeats, and (max − min) / median."""

    median: float
    spread_ratio: float


def probe_machine(
    n_usable: int,
    *,
    cache_l3_bytes: int | None = None,
    clock: Clock = time.perf_counter,
    budget_s: float = 5.0,
) -> Probe:
    """Read rate and single-precision multiply rate with 1 to ``n_usable`` threads.

    Takes about ``budget_s`` seconds at most; counts between 1 and ``n_usable`` are left out when
    time runs short. The buffer is four times ``cache_l3_bytes``, at least 256 MiB and at most
    2 GiB. The machine should be idle: whoever else runs lowers the figures.
    """
    started = clock()
    counts = _by_importance(n_usable)
    slot_s = 0.8 * budget_s / (2 * len(counts))
    reads: dict[int, _Rate] = {}
    products: dict[int, _Rate] = {}
    with ThreadPoolExecutor(n_usable) as threads:
        buffer = _filled(threads, n_usable, cache_l3_bytes or 0)
        for n_threads in counts:
            if len(reads) > 1 and clock() - started > 0.8 * budget_s:
                break
            work = _reading(buffer, threads, n_threads)
            reads[n_threads] = _measure(work, clock=clock, slot_s=slot_s)
            work = _multiplying(threads, n_threads)
            with threadpool_limits(1, user_api="blas"):
                products[n_threads] = _measure(work, clock=clock, slot_s=slot_s)
    measured = sorted(reads)
    return Probe(
        n_threads=tuple(measured),
        read_bytes_per_s=tuple(reads[n].median for n in measured),
        read_spread_ratio=tuple(reads[n].spread_ratio for n in measured),
        flops_per_s=tuple(products[n].median for n in measured),
        flops_spread_ratio=tuple(products[n].spread_ratio for n in measured),
        elapsed_s=clock() - started,
    )


def _by_importance(n_usable: int) -> list[int]:
    """Thread counts to measure: the two ends first, because between them one can interpolate."""
    return [1, *{n_usable} - {1}, *(n for n in _COUNTS if 1 < n < n_usable)]


def _filled(
    threads: ThreadPoolExecutor, n_threads: int, cache_l3_bytes: int
) -> npt.NDArray[np.uint64]:
    """A buffer that no cache holds, each part first touched (hence placed) by another thread."""
    wanted = max(_BUFFER_BYTES, _CACHES_PER_BUFFER * cache_l3_bytes)
    n_bytes = min(wanted, _LARGEST_BUFFER_BYTES)
    buffer = np.empty(n_bytes // np.uint64().itemsize, dtype=np.uint64)
    list(threads.map(lambda part: part.fill(1), np.array_split(buffer, n_threads)))
    return buffer


def _reading(buffer: npt.NDArray[np.uint64], threads: ThreadPoolExecutor, n_threads: int) -> _Work:
    """Every byte read once, by ``n_threads`` threads.

    Of numpy's reductions ``bitwise_or`` over 64-bit words comes closest to the memory: one vector
    instruction for each 64 bytes, no dependence on BLAS and its threads, no test for NaN, and the
    interpreter lock is released. Here it read as fast as a loop of AVX-512 loads in C (24 to
    30 GB/s), ``max`` and ``sum`` of float32 up to a third slower.
    """
    parts = np.array_split(buffer, n_threads)

    def read(part: npt.NDArray[np.uint64], n_times: int) -> None:
        for _ in range(n_times):
            np.bitwise_or.reduce(part)

    def run(n_times: int) -> None:
        list(threads.map(read, parts, [n_times] * n_threads))

    return _Work(run, buffer.nbytes)


def _multiplying(threads: ThreadPoolExecutor, n_threads: int) -> _Work:
    """Products of square float32 matrices, one by each thread.

    Every thread runs a BLAS of one thread on matrices of its own. A single product split by BLAS
    waits for its slowest thread at every step: with one neighbour on two processors it fell from
    190 to 9 GFLOPS, which says something of the neighbour and nothing of the machine.
    """
    matrices = [np.ones((_SIDE, _SIDE), dtype=np.float32) for _ in range(n_threads)]

    def multiply(matrix: npt.NDArray[np.float32], n_times: int) -> None:
        product = np.empty_like(matrix)
        for _ in range(n_times):
            np.matmul(matrix, matrix, out=product)

    def run(n_times: int) -> None:
        list(threads.map(multiply, matrices, [n_times] * n_threads))

    return _Work(run, n_threads * 2.0 * _SIDE**3)


def _measure(work: _Work, *, clock: Clock, slot_s: float) -> _Rate:
    """The rate over at least three repeats, more while the slot lasts."""
    started = clock()
    work.run(1)  # the first pass starts threads and fills page tables
    n_times = max(1, round(_REPEAT_S / max(_elapsed(work, 1, clock), 1e-9)))
    rates: list[float] = []
    while len(rates) < _MIN_REPEATS or (len(rates) < _MAX_REPEATS and clock() - started < slot_s):
        rates.append(n_times * work.units / max(_elapsed(work, n_times, clock), 1e-9))
    return _Rate(stats.median(rates), stats.relative_spread(rates))


def _elapsed(work: _Work, n_times: int, clock: Clock) -> float:
    started = clock()
    work.run(n_times)
    return clock() - started
