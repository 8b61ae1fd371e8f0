"""How many layers, how large a batch and how long a context fit: from plan and predictor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autotune.domain.config import Config
from autotune.domain.errors import NothingFitsError
from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.prediction import Target
from autotune.domain.units import MIB, human_bytes
from autotune.domain.workload import Workload
from autotune.facts.plan import MemoryPlanner, plan_memory
from autotune.facts.vram import RESERVE_BYTES, fits_gpus, usable_gpus
from autotune.facts.weights import repacked_types
from autotune.features.case import Array, Case
from autotune.predict.predictor import Predictor
from autotune.recommend.choose import MEMORY_RESERVE_RATIO, TIE_RATIO
from autotune.recommend.subject import Subject

CONTEXTS = {
    Target.SPEED: (2048, 4096),
    Target.BALANCED: (4096, 8192),
    Target.QUALITY: (8192, 16384),
}
"""Tokens, from and to, of each target."""
_STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
_BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
_UNPACKED_BYTES = 2
"""Of one weight that transformers has unpacked onto a GPU: half precision."""
_Z = 1.645


def gpu_layers(subject: Subject, backend: str, config: Config, *, vram_bytes: int) -> int:
    """The most layers whose weights, cache and scratch memory fit into so much free VRAM.

    −1 for all, the output layer included. Half a GiB of each GPU is left to its driver. Several
    GPUs share the memory as they do here; a machine without one is asked about one.
    """
    model = subject.model
    gpus = _sharing(subject.machine, vram_bytes)
    if backend == "transformers":  # a model lies on the GPU as a whole, unpacked
        needed = model.n_params * _UNPACKED_BYTES + RESERVE_BYTES * len(gpus)
        return -1 if needed <= vram_bytes else 0
    machine = dataclasses.replace(subject.machine, gpus=gpus)
    planner = MemoryPlanner(model, repacks=repacked_types(machine.isa), gpus=gpus)
    everything = model.n_layers + 1
    fitting = (
        n
        for n in range(everything, 0, -1)
        if fits_gpus(planner.plan(config.replace(n_gpu_layers=n)), machine)
    )
    most = next(fitting, 0)
    return -1 if most == everything else most


def _sharing(machine: MachineFacts, vram_bytes: int) -> tuple[GPUFacts, ...]:
    """The usable GPUs, together with so much free memory."""
    gpus = usable_gpus(machine) or (GPUFacts(name="GPU", device="CUDA0", total_bytes=1),)
    total = sum(gpu.total_bytes or 1 for gpu in gpus)
    shares = [int(vram_bytes * (gpu.total_bytes or 1) / total) for gpu in gpus]
    return tuple(
        dataclasses.replace(gpu, free_bytes=n_bytes)
        for gpu, n_bytes in zip(gpus, shares, strict=True)
    )


def planned_vram_bytes(subject: Subject, config: Config) -> int:
    """What the memory plan places on GPUs."""
    machine = subject.machine
    repacks = repacked_types(machine.isa)
    return plan_memory(subject.model, config, repacks=repacks, gpus=machine.gpus).vram_bytes


def batch_size(
    subject: Subject, backend: str, predictor: Predictor, config: Config, *, memory_bytes: int
) -> int:
    """Prompt tokens to compute at once: of the fastest that fit, the one nearest to the default.

    ``config`` says the context of all its parallel sequences. Raises NothingFitsError, with what
    is needed, where not even the smallest fits.
    """
    sizes = [size for size in _BATCHES if size <= config.n_ctx]
    n_prompt = min(_BATCHES[-1], config.n_ctx // config.n_parallel - 1)
    workload = Workload(n_prompt=max(n_prompt, 1), n_gen=1)
    cases = [subject.case(backend, config.replace(n_batch=n, n_ubatch=n), workload) for n in sizes]
    peak_bytes = _peaks(predictor, cases)
    fits = _fitting(peak_bytes, memory_bytes, subject, f"{config.n_parallel} requests at once")
    seconds = np.exp(predictor.forecast(cases).prefill.mean)
    fastest = seconds[fits].min()
    equal = [
        size
        for size, fit, time_s in zip(sizes, fits, seconds, strict=True)
        if fit and time_s <= fastest * (1 + TIE_RATIO)
    ]
    return min(equal, key=lambda size: abs(math.log2(size / config.n_ubatch)))


def context_size(
    subject: Subject,
    backend: str,
    predictor: Predictor,
    config: Config,
    *,
    memory_bytes: int,
    target: Target,
) -> int:
    """The longest context of a target's range that fits into the memory.

    Where the range does not fit, the longest below it; never more than the model was trained for.
    Raises NothingFitsError, with what is needed, where not even 256 tokens fit.
    """
    sizes = _contexts(target, subject.model.n_ctx_train)
    workload = Workload(n_prompt=min(128, sizes[0] // 2), n_gen=min(64, sizes[0] // 4))
    cases = [subject.case(backend, _at_context(config, n_ctx), workload) for n_ctx in sizes]
    peak_bytes = _peaks(predictor, cases)
    fits = _fitting(peak_bytes, memory_bytes, subject, f"{sizes[0]} tokens of context")
    return sizes[int(np.flatnonzero(fits)[-1])]


def _contexts(target: Target, n_ctx_train: int) -> Sequence[int]:
    """Sizes up to the end of a target's range, ascending; the model's own limit is the last."""
    most = min(CONTEXTS[target][1], n_ctx_train or CONTEXTS[target][1])
    return [*range(_STEP, most, _STEP), most]


def _at_context(config: Config, n_ctx: int) -> Config:
    n_batch = min(config.n_batch, n_ctx)
    return config.replace(n_ctx=n_ctx, n_batch=n_batch, n_ubatch=min(config.n_ubatch, n_batch))


def _peaks(predictor: Predictor, cases: Sequence[Case]) -> Array:
    """95 % quantile of the peak memory, bytes; shape (n_cases,)."""
    forecast = predictor.forecast(cases, verbatim=False)
    return forecast.peak_bytes * (1 + _Z * forecast.peak_sd_ratio)


def _fitting(
    peak_bytes: Array, memory_bytes: int, subject: Subject, what: str
) -> npt.NDArray[np.bool_]:
    """Whether each case fits, a reserve of a tenth left free; shape (n_cases,)."""
    usable = memory_bytes * (1 - MEMORY_RESERVE_RATIO)
    fits = np.asarray(peak_bytes <= usable)
    if not fits.any():
        needed = float(peak_bytes.min()) / (1 - MEMORY_RESERVE_RATIO)
        raise NothingFitsError(
            f"{subject.model.name} with {what} needs {needed / MIB:.0f} MB, "
            f"{human_bytes(memory_bytes)} are available: free memory, ask for less at once, or "
            "use a smaller quantisation of the model"
        )
    return np.asarray(fits, dtype=bool)
