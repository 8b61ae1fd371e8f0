"""The GGUF container: header, key/value pairs and tensor table, read from a memory map.

Layout (``gguf.md`` of the ggml repository, versions 2 and 3, little-endian): magic ``GGUF``,
``u32`` version, ``u64`` tensor count, ``u64`` pair count, the pairs, the tensor table, padding to
``general.alignment``, the tensors' data. The tensor data is never touched.

Vocabularies of 256 k words sit between the pairs, and the package ``gguf`` spends seconds building
them; here strings of an array are only stepped over, which takes 20 ms.

A llamafile is a program with a ZIP archive behind it, in which the model lies as it is.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from autotune.domain.errors import GGUFError
from autotune.facts.element_types import ELEMENT_TYPES, ElementType

Scalar: TypeAlias = int | float | bool | str
Value: TypeAlias = Scalar | tuple[int | float | bool, ...]

_SUPPORTED_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_SCALARS = {kind: struct.Struct("<" + code) for kind, code in _NUMBERS.items()}
_U32, _U64 = _SCALARS[4], _SCALARS[10]
_MAX_DIMENSIONS = 4
_MAX_KEPT = 4096
"""Longer arrays are vocabulary tables: only their length is kept. No model has so many layers."""
LLAMAFILE = ".llamafile"
"""How the name of a model ends that is a program as well."""
_LOCAL = struct.Struct("<26xHH")
"""A ZIP member's own header, up to the lengths of its name and extra field (APPNOTE.TXT 4.3.7)."""
_DAMAGED = "the file is damaged, download it again"
_CUT = "the download is incomplete, download it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One row of the tensor table."""

    name: str
    shape: tuple[int, ...]
    """Elements per dimension, the row length first."""
    type: ElementType
    offset: int
    """From the start of the tensor data, in bytes."""

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes in the file, padding excluded."""
        return self.type.n_bytes(self.n_elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything before the tensor data."""

    values: Mapping[str, Value]
    """Scalars, strings and short numeric arrays by key."""
    lengths: Mapping[str, int]
    """Number of items of every array by key, kept or not."""
    tensors: tuple[Tensor, ...]
    identity: str
    """SHA-256 in hexadecimal of all bytes up to the end of the tensor table, and of the size."""
    data_offset: int
    """Where the tensor data starts, in bytes."""
    file_bytes: int


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises GGUFError (one line, with the cure) if it is not sound."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            _fail(path, "this is a directory", "give the .gguf file inside it")
        if not stat.S_ISREG(status.st_mode):
            _fail(path, "not a regular file", "give a .gguf file")
        if not status.st_size:
            _fail(path, "the file is empty", "download it again")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            offset, size = _find_model(path, data) if path.suffix == LLAMAFILE else (0, len(data))
            with memoryview(data) as whole, whole[offset : offset + size] as model:
                return _Reader(path, model).header()
    except FileNotFoundError:
        _fail(path, "no such file", "check the path")
    except OSError as error:
        _fail(path, f"cannot be read ({error.strerror})", "check its permissions and its disk")


def _find_model(path: Path, data: mmap.mmap) -> tuple[int, int]:
    """(offset, size) of the model inside a llamafile, in bytes: its largest GGUF."""
    try:
        with zipfile.ZipFile(path) as archive:
            models = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
    except zipfile.BadZipFile:
        models = []
    if not models:
        _fail(path, "a llamafile with no model in it", "give a .gguf file")
    model = max(models, key=lambda info: info.file_size)
    if model.compress_type != zipfile.ZIP_STORED:
        _fail(path, f"{model.filename} is compressed inside it", "give the .gguf file itself")
    n_name, n_extra = _LOCAL.unpack_from(data, model.header_offset)
    return model.header_offset + _LOCAL.size + n_name + n_extra, model.file_size


class _Reader:
    """A cursor over the mapped file. Whatever would read past the end is a GGUFError."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.offset = 0

    def header(self) -> Header:
        self.preamble()
        n_tensors, n_pairs = self.number(_U64), self.number(_U64)
        if 24 * n_tensors + 13 * n_pairs > self.size:  # the smallest table row and pair
            self.fail(f"{n_tensors} tensors and {n_pairs} keys cannot fit into it", _DAMAGED)
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(n_pairs):
            self.pair(values, lengths)
        tensors = tuple(self.tensor() for _ in range(n_tensors))
        header = Header(
            values=values,
            lengths=lengths,
            tensors=tensors,
            identity=self.identity(),
            data_offset=self.aligned(values.get("general.alignment", 32)),
            file_bytes=self.size,
        )
        self.check_data(header)
        return header

    def preamble(self) -> None:
        magic = bytes(self.data[:4])
        if magic != b"GGUF":
            begins = repr(magic).removeprefix("b")
            self.fail(
                f"not a GGUF file, whatever its name: it begins with {begins}, not with 'GGUF'",
                "give a model in the GGUF format",
            )
        self.offset = 4
        version = self.number(_U32)
        if version & 0xFFFF == 0:  # llama.cpp's own test: the version's bytes are the wrong way
            self.fail("it is big-endian", "give a little-endian GGUF file")
        if version not in _SUPPORTED_VERSIONS:
            self.fail(f"GGUF version {version} is not supported", "convert the model to version 3")

    def pair(self, values: dict[str, Value], lengths: dict[str, int]) -> None:
        key = self.text()
        kind = self.number(_U32)
        if kind == _ARRAY:
            items, lengths[key] = self.array(key)
            if items is not None:
                values[key] = items
        elif kind == _STRING:
            values[key] = self.text()
        else:
            values[key] = self.number(self.scalar(kind, key))

    def array(self, key: str) -> tuple[tuple[Any, ...] | None, int]:
        kind, n_items = self.number(_U32), self.number(_U64)
        if kind == _STRING:
            self.step_over_strings(n_items)
            return None, n_items
        start, item = self.offset, self.scalar(kind, key)
        self.offset += n_items * item.size
        if self.offset > self.size:
            self.truncated()
        if n_items > _MAX_KEPT:
            return None, n_items
        return struct.unpack_from(f"<{n_items}{_NUMBERS[kind]}", self.data, start), n_items

    def step_over_strings(self, n_items: int) -> None:
        """The tight loop: a quarter of a million turns for a large vocabulary."""
        if 8 * n_items > self.size - self.offset:
            self.truncated()
        data, offset, length_at = self.data, self.offset, _U64.unpack_from
        try:
            for _ in repeat(None, n_items):
                offset += 8 + length_at(data, offset)[0]
        except (struct.error, OverflowError):
            self.truncated()
        self.offset = offset
        if offset > self.size:
            self.truncated()

    def tensor(self) -> Tensor:
        name = self.text()
        n_dimensions = self.number(_U32)
        if not 0 < n_dimensions <= _MAX_DIMENSIONS:
            self.fail(f"tensor {name!r} has {n_dimensions} dimensions", _DAMAGED)
        shape = tuple(self.number(_U64) for _ in range(n_dimensions))
        kind, offset = self.number(_U32), self.number(_U64)
        if kind not in ELEMENT_TYPES:
            self.fail(f"tensor {name!r} has the unknown element type {kind}", "convert it again")
        element = ELEMENT_TYPES[kind]
        if shape[0] % element.block_elements:
            self.fail(f"tensor {name!r}: rows of {shape[0]} are not whole blocks", _DAMAGED)
        return Tensor(name=name, shape=shape, type=element, offset=offset)

    def check_data(self, header: Header) -> None:
        for tensor in header.tensors:
            end = header.data_offset + tensor.offset + tensor.n_bytes
            if end > self.size:
                self.fail(f"{tensor.name!r} ends at byte {end}, the file at {self.size}", _CUT)

    def identity(self) -> str:
        digest = hashlib.sha256(self.data[: self.offset])
        digest.update(self.size.to_bytes(8, "little"))
        return digest.hexdigest()

    def aligned(self, alignment: Value) -> int:
        if not isinstance(alignment, int) or alignment < 1:
            self.fail(f"general.alignment is {alignment!r}", _DAMAGED)
        return -(-self.offset // alignment) * alignment

    def scalar(self, kind: int, key: str) -> struct.Struct:
        if kind not in _SCALARS:
            self.fail(f"key {key!r} has the unknown value type {kind}", _DAMAGED)
        return _SCALARS[kind]

    def number(self, form: struct.Struct) -> Any:
        try:
            (value,) = form.unpack_from(self.data, self.offset)
        except struct.error:
            self.truncated()
        self.offset += form.size
        return value

    def text(self) -> str:
        start = self.offset + 8
        self.offset = start + self.number(_U64)
        if self.offset > self.size:
            self.truncated()
        return str(self.data[start : self.offset], "utf-8", "replace")

    def truncated(self) -> NoReturn:
        self.fail("it ends inside its header", _CUT)

    def fail(self, problem: str, cure: str) -> NoReturn:
        _fail(self.path, problem, cure)


def _fail(path: Path, problem: str, cure: str) -> NoReturn:
    raise GGUFError(f"{path}: {problem}: {cure}") from None
