"""Domain values as canonical JSON and back, exactly.

A stored value may be older than the program: fields that it lacks take their defaults. It may be
newer by a field: what this program does not know is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from typing import Any, TypeVar

Value = TypeVar("Value")


def to_json(value: Any) -> str:
    """A dataclass, or a tuple, as text that is the same for equal values."""
    return json.dumps(value, default=dataclasses.asdict, sort_keys=True, separators=(",", ":"))


def from_json(kind: type[Value], text: str) -> Value:
    """The value of that type (a dataclass, ``tuple[int, ...]`` …) that :func:`to_json` wrote."""
    return typing.cast(Value, _revive(kind, json.loads(text)))


def content_id(text: str) -> str:
    """16 hexadecimal digits of the SHA-256: the name of a value that is its own content."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _revive(kind: Any, plain: Any) -> Any:
    if plain is None:
        return None
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return tuple(_revive(arguments[0], item) for item in plain)
    if isinstance(kind, types.UnionType):
        return _revive(next(option for option in arguments if option is not type(None)), plain)
    fields = _fields(kind)
    if not fields:
        return plain
    return kind(**{name: _revive(fields[name], plain[name]) for name in plain.keys() & fields})


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Type of each field of a dataclass, its string annotations resolved; none for other types."""
    return typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
