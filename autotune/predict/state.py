"""A fitted predictor as bytes and back, without pickle: nothing in them can run.

Arrays as NumPy's own format, everything else as JSON in which a value of one of the few classes
below is ``{"": class, field: value}``. A state is a cache. The rows are the record, so one that
cannot be read is refitted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.domain.config import Config
from autotune.domain.errors import DataError
from autotune.domain.workload import Workload
from autotune.predict.calibration import Calibration
from autotune.predict.engine_predictor import EnginePredictor
from autotune.predict.ensemble import Ensemble, Linear
from autotune.predict.first_token import FirstToken
from autotune.predict.forest import Forest
from autotune.predict.known import Attempt, Known, Told
from autotune.predict.memory import MemoryRegressor
from autotune.predict.phase import PhaseRegressor
from autotune.predict.place_effects import Level, PlaceEffects
from autotune.predict.predictor import Predictor
from autotune.predict.process import Kernel, Process
from autotune.predict.success import SuccessClassifier
from autotune.predict.typical import Slowdown

_CLASSES = {
    kind.__name__: kind
    for kind in (
        Attempt, Calibration, Config, EnginePredictor, Ensemble, FirstToken, Forest, Kernel, Known,
        Level, Linear, MemoryRegressor, PhaseRegressor, PlaceEffects, Predictor, Process,
        Slowdown, SuccessClassifier, Told, Workload,
    )
}  # fmt: skip
"""All that a state may be made of."""
_CLASS = ""
"""The key that names a value's class."""


def dump_predictor(predictor: Predictor) -> bytes:
    """The state of a fitted predictor."""
    arrays: list[npt.NDArray[Any]] = []
    outline = json.dumps(_plain(predictor, arrays), separators=(",", ":"))
    file = io.BytesIO()
    named = {str(i): array for i, array in enumerate(arrays)}
    np.savez(file, outline=np.frombuffer(outline.encode(), dtype=np.uint8), **named)  # type: ignore[arg-type]
    return zlib.compress(file.getvalue(), 1)


def load_predictor(state: bytes) -> Predictor:
    """The inverse of :func:`dump_predictor`. Raises DataError for anything else."""
    try:
        with np.load(io.BytesIO(zlib.decompress(state)), allow_pickle=False) as file:
            outline = json.loads(file["outline"].tobytes())
            arrays = [file[str(i)] for i in range(len(file.files) - 1)]
        predictor = _value(outline, arrays)
    except (ValueError, KeyError, TypeError, IndexError, OSError, EOFError, zlib.error,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise DataError(
            f"the predictor's state cannot be read ({error}): it is refitted"
        ) from error
    if not isinstance(predictor, Predictor):
        raise DataError("the predictor's state is something else: it is refitted")
    return predictor


def _plain(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """JSON for a value; its arrays go into the list."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {_CLASS: "array", "n": len(arrays) - 1}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {_CLASS: kind, "of": [_plain(item, arrays) for item in value]}
    if isinstance(value, dict):
        pairs = [[_plain(k, arrays), _plain(v, arrays)] for k, v in value.items()]
        return {_CLASS: "dict", "of": pairs}
    name = type(value).__name__
    if _CLASSES.get(name) is not type(value):
        raise TypeError(f"{name} is not part of a predictor's state")
    return {_CLASS: name} | {k: _plain(v, arrays) for k, v in _fields(value).items()}


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value))


def _value(plain: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    if not isinstance(plain, dict):
        return plain
    kind = plain.pop(_CLASS)
    if kind == "array":
        return arrays[plain["n"]]
    if kind in ("list", "tuple"):
        items = [_value(item, arrays) for item in plain["of"]]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {_value(k, arrays): _value(v, arrays) for k, v in plain["of"]}
    fields = {name: _value(item, arrays) for name, item in plain.items()}
    if dataclasses.is_dataclass(_CLASSES[kind]):
        return _CLASSES[kind](**fields)
    made = object.__new__(_CLASSES[kind])
    made.__dict__.update(fields)
    return made
