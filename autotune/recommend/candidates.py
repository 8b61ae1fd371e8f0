"""The configurations worth considering for a model on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.domain.config import Config
from autotune.domain.engine import LLAMA_CPP, EngineTraits
from autotune.domain.errors import NothingFitsError, UserError
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Hardware, Target
from autotune.domain.space import Bundle, Parameter, SearchSpace
from autotune.domain.workload import Workload
from autotune.facts.devices import lookup
from autotune.facts.plan import MemoryPlanner
from autotune.facts.vram import fits_gpus, usable_gpus
from autotune.facts.weights import repacked_types

_N_CTX = {
    Target.SPEED: (2048, 4096),
    Target.BALANCED: (4096, 8192),
    Target.QUALITY: (16384, 8192),
}
"""Context sizes of each target, the preferred one first."""
_UBATCHES = (64, 128, 256, 512, 1024, 2048)
_MANY_THREADS = 8
"""Up to here every thread count is a candidate, above only some."""


def choose_n_ctx(target: Target, model: ModelFacts, workload: Workload) -> int:
    """The context of a target: its preferred size that the model was trained for and that holds
    the workload. Raises UserError where the model's own limit is too small for the workload."""
    if workload.n_tokens > model.n_ctx_train:
        raise UserError(
            f"workload {workload.label} needs {workload.n_tokens} tokens, the model was trained "
            f"for {model.n_ctx_train}: choose a smaller --workload"
        )
    sizes = [min(size, model.n_ctx_train) for size in _N_CTX[target]]
    fitting = [size for size in sizes if size >= workload.n_tokens]
    return fitting[0] if fitting else -(-workload.n_tokens // 256) * 256


def search_space(
    model: ModelFacts,
    machine: MachineFacts,
    *,
    default: Config,
    workload: Workload,
    hardware: Hardware,
    lossy: Sequence[str] = (),
    engine: EngineTraits = LLAMA_CPP,
) -> SearchSpace:
    """Every knob that may change a request's time here, with its values; the default is the base.

    Mapping or copying the weights is not among them: it changes the load alone. ``lossy`` names
    the quantised cache types that may be used besides the lossless ones. Of another engine than
    llama.cpp only the knobs that it has are searched.

    Raises NothingFitsError when a GPU is demanded that the engine does not have.
    """
    threads = thread_counts(machine)
    parameters: list[Parameter | Bundle] = [
        Parameter(knob="n_threads", values=threads),
        Parameter(knob="n_threads_batch", values=threads),
        Parameter(knob="n_ubatch", values=_ubatches(default, workload, engine)),
        # An engine that decides for itself takes it wherever it can.
        Parameter(
            knob="flash_attn",
            values=("auto", "off") if default.flash_attn == "auto" else ("off", "on"),
        ),
    ]
    if model.slides:
        parameters.append(Parameter(knob="swa_full", values=(True, False)))
    if lossy and model.can_quantise_cache:
        kinds = (default.type_k, *lossy)
        parameters.append(Bundle(options=tuple({"type_k": k, "type_v": k} for k in kinds)))
    layers = gpu_layers(model, machine, default=default, hardware=hardware, engine=engine)
    if layers:
        parameters.append(Parameter(knob="n_gpu_layers", values=layers))
        parameters.append(Parameter(knob="offload_kqv", values=(True, False)))
        parameters.append(Parameter(knob="op_offload", values=(True, False)))
        parameters.extend(_splits(machine))
    its = [parameter for parameter in parameters if _has(engine, parameter)]
    return SearchSpace(base=default, parameters=tuple(its))


def _has(engine: EngineTraits, parameter: Parameter | Bundle) -> bool:
    """Whether an engine has every knob that a parameter sets."""
    knobs = engine.knobs
    return knobs is None or all(knobs.issuperset(option) for option in parameter.options)


def thread_counts(machine: MachineFacts) -> tuple[int, ...]:
    """Thread counts worth trying: never more than the processors this process may use."""
    usable = machine.n_processors
    if usable <= _MANY_THREADS:
        return tuple(range(1, usable + 1))
    physical = min(machine.n_physical or usable, usable)
    powers = {2**i for i in range(usable.bit_length()) if 2**i <= usable}
    return tuple(sorted(powers | {physical // 2, physical - 1, physical, usable}))


def _ubatches(default: Config, workload: Workload, engine: EngineTraits) -> tuple[int, ...]:
    """Physical batches below the prompt's length, and one that holds it.

    All that hold it compute the same; the default stands for them where it is one of them.
    """
    enough = max(workload.n_prompt, _UBATCHES[0])
    most = min(default.n_ctx, engine.most_ubatch or default.n_ctx)
    below = [size for size in _UBATCHES if size < enough and size <= most]
    holding = [size for size in (default.n_ubatch, *_UBATCHES) if enough <= size <= most]
    return (*below, *holding[:1]) or (default.n_ubatch,)


def demanded(
    default: Config,
    model: ModelFacts,
    machine: MachineFacts,
    *,
    hardware: Hardware,
    engine: EngineTraits = LLAMA_CPP,
) -> Config:
    """The default on the hardware that is demanded: on a GPU, as much of it as fits.

    Raises as :func:`gpu_layers`.
    """
    if hardware is Hardware.CPU:
        # Nor are large batches lent to a GPU: its memory may be somebody else's.
        lends = default.op_offload and not usable_gpus(machine)
        return default.replace(n_gpu_layers=0, op_offload=lends)
    if hardware is Hardware.AUTO or default.n_gpu_layers:
        return default
    layers = gpu_layers(model, machine, default=default, hardware=hardware, engine=engine)
    return default.replace(n_gpu_layers=-1 if -1 in layers else max(layers))


def gpu_layers(
    model: ModelFacts,
    machine: MachineFacts,
    *,
    default: Config,
    hardware: Hardware,
    engine: EngineTraits = LLAMA_CPP,
) -> tuple[int, ...]:
    """Layer counts to offload: none, quarters, the most that fits, all (−1).

    Most fits with the cache on the host and small batches; what does not fit together with other
    knobs, the prediction rules out. Empty where there is nothing to choose. What never fits is no
    candidate: the rest of the GPU is not ours. Raises NothingFitsError where a GPU is demanded and
    there is none.
    """
    usable = usable_gpus(machine)
    if hardware is Hardware.CPU or (hardware is Hardware.AUTO and not usable):
        return ()
    if not usable:
        raise NothingFitsError(
            "no GPU that the engine can use: autotune doctor shows why, --hardware auto goes on "
            "without one"
        )
    planner = MemoryPlanner(model, repacks=repacked_types(machine.isa), gpus=machine.gpus)
    everything = model.n_layers + 1

    def most_of(config: Config) -> int:
        plans = ((n, planner.plan(config.replace(n_gpu_layers=n))) for n in range(everything + 1))
        return max((n for n, plan in plans if fits_gpus(plan, machine)), default=0)

    usual = most_of(default)
    most = usual if engine.knobs is not None else max(usual, most_of(_lean(default)))
    counts = {round(everything * share / 4) for share in range(1, 5)} | {usual, most}
    fitting = [n for n in sorted(counts) if 0 < n <= most]
    if engine.places_all_layers:
        fitting = fitting[-1:] if most == everything else []
    told = tuple(-1 if n == everything else n for n in fitting)
    return told if told and hardware is Hardware.GPU else (0, *told)


def _lean(config: Config) -> Config:
    """The configuration with the least on the GPU beside the layers."""
    return config.replace(flash_attn="on", n_ubatch=_UBATCHES[0], offload_kqv=False)


def _splits(machine: MachineFacts) -> list[Bundle]:
    """How several GPUs share a model: by free memory, by bandwidth, by rows, or one alone."""
    usable = usable_gpus(machine)
    if len(usable) < 2:
        return []
    options: list[dict[str, Any]] = [{"split_mode": "layer", "tensor_split": None}]
    speeds = [known.read_bytes_per_s if (known := lookup(gpu.name)) else None for gpu in usable]
    if all(speeds):
        total = sum(speed for speed in speeds if speed)
        shares = tuple(round(speed / total, 3) for speed in speeds if speed)
        options.append({"split_mode": "layer", "tensor_split": shares})
    options.append({"split_mode": "row", "tensor_split": None})
    options.extend({"split_mode": "none", "main_gpu": i} for i in range(len(usable)))
    return [Bundle(options=tuple(options))]
