"""Any value of the domain, made from its own type annotations; a new field is covered at once."""

from __future__ import annotations

import enum
import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from autotune.domain.config import (
    FLASH_ATTN,
    KV_BYTES_PER_ELEMENT,
    MOST_THREADS,
    SPLIT_MODES,
    Config,
)
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts, TensorSum
from autotune.domain.prediction import Interval, Prediction
from autotune.domain.run import DevicePeak, Generation, Run
from autotune.domain.workload import Workload

_COUNTS = st.integers(0, 2**63 - 1)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: _COUNTS,
    float: st.floats(0, allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(),
    Path: st.text(min_size=1).map(Path),
    datetime: st.datetimes(
        min_value=datetime(1970, 1, 2),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone.max]),
    ),
}


def any_value(kind: Any, **chosen: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a type; of a dataclass, with some fields from strategies of their own."""
    if kind in _SPECIAL and not chosen:
        return _SPECIAL[kind]()
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return st.none() | any_value(arguments[0])
    if typing.get_origin(kind) is tuple:
        return st.lists(any_value(arguments[0]), max_size=5).map(tuple)
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: any_value(hint) for name, hint in hints.items()} | chosen)


def configs() -> st.SearchStrategy[Config]:
    """Configurations that do not contradict themselves."""
    hints = typing.get_type_hints(Config)
    knobs = {name: any_value(hint) for name, hint in hints.items()} | _knobs()
    return st.fixed_dictionaries(knobs).map(_consistent)


def _knobs() -> dict[str, st.SearchStrategy[Any]]:
    positive = st.integers(1, 2**31 - 1)
    counts = ("n_ctx", "n_batch", "n_ubatch", "n_parallel")
    threads = st.integers(1, MOST_THREADS)
    return dict.fromkeys(counts, positive) | {
        "n_threads": threads,
        "n_threads_batch": threads,
        "flash_attn": st.sampled_from([word for word in FLASH_ATTN if word != "off"]),
        "split_mode": st.sampled_from(SPLIT_MODES),
        "type_k": st.sampled_from(sorted(KV_BYTES_PER_ELEMENT)),
        "type_v": st.sampled_from(sorted(KV_BYTES_PER_ELEMENT)),
        "n_gpu_layers": st.integers(-1, 999),
        "main_gpu": st.integers(0, 2**31 - 1),
    }


def _consistent(knobs: dict[str, Any]) -> Config:
    n_batch = min(knobs["n_batch"], knobs["n_ctx"])
    return Config(**knobs | {"n_batch": n_batch, "n_ubatch": min(knobs["n_ubatch"], n_batch)})


def workloads() -> st.SearchStrategy[Workload]:
    """Workloads with a token in them."""
    count = st.integers(0, 2**31)
    return st.builds(
        Workload, n_prompt=count, n_gen=st.integers(1, 2**31), n_depth=count,
        n_parallel=st.integers(1, 64),
    )  # fmt: skip


def machines() -> st.SearchStrategy[MachineFacts]:
    """Machines of every shape, most facts unknown."""
    return any_value(MachineFacts)


def models() -> st.SearchStrategy[ModelFacts]:
    """Models of every shape, with one sum for each group and type."""
    small = st.integers(0, 2**50)
    tensor = any_value(TensorSum, n_tensors=small, n_elements=small, n_bytes=small)
    sums = st.lists(tensor, max_size=4, unique_by=lambda tensor: (tensor.group, tensor.type))
    return any_value(ModelFacts, tensors=sums.map(tuple))


def runs() -> st.SearchStrategy[Run]:
    """Runs that succeeded, failed, or said nothing at all."""
    nanoseconds = st.integers(1, 2**40)
    generation = any_value(
        Generation,
        prefill_ns=st.none() | nanoseconds,
        ttft_ns=st.none() | nanoseconds,
        token_ns=st.lists(nanoseconds, max_size=4).map(tuple),
        decode_ns=st.none() | nanoseconds,
        repetition=st.integers(0, 9),
    )
    generations = st.lists(
        generation, max_size=4, unique_by=lambda made: (made.workload, made.repetition)
    )
    peaks = st.lists(any_value(DevicePeak, n_bytes=st.integers(0, 2**50)), max_size=3)
    return any_value(Run, generations=generations.map(tuple), peak_vram=peaks.map(tuple))


def predictions() -> st.SearchStrategy[Prediction]:
    """Predictions with any interval and any probability."""
    rate = st.floats(1e-9, 1e12)
    interval = st.builds(Interval, q05=rate, q50=rate, q95=rate)
    return any_value(
        Prediction,
        **{name: interval for name, hint in typing.get_type_hints(Prediction).items()
           if hint is Interval},
        p_success=st.floats(0, 1),
        predictor_id=st.none(),
    )  # fmt: skip


_SPECIAL = {Config: configs, Workload: workloads}
