"""The container: sound files are read as the reference library reads them, others refused."""

from __future__ import annotations

import contextlib
import struct
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.domain.errors import GGUFError
from autotune.facts.element_types import ELEMENT_TYPES
from autotune.facts.gguf import read_model
from autotune.facts.gguf_header import read_header
from tests.facts.gguf_files import HEADER_BYTES, LLAMA, TENSORS, QuickReader, patched, write_gguf

N_WORDS = 262_144


def test_the_table_of_element_types_agrees_with_the_reference() -> None:
    """Block size and bytes of every type that the ``gguf`` package knows."""
    ours = {
        number: (t.name, t.block_elements, t.block_bytes) for number, t in ELEMENT_TYPES.items()
    }
    theirs = {int(t): (t.name, *size) for t, size in GGML_QUANT_SIZES.items()}
    assert {number: ours[number] for number in theirs} == theirs


@pytest.fixture(scope="session", params=["smollm2_path", "gemma3_path"])
def real_path(request: pytest.FixtureRequest) -> Path:
    """Each real model in turn."""
    path = request.getfixturevalue(request.param)
    assert isinstance(path, Path)
    return path


def test_a_real_header_is_read_as_the_reference_reads_it(real_path: Path) -> None:
    """Tensors, bytes by type, scalar keys and array lengths agree with the reference."""
    ours, reference = read_header(real_path), QuickReader(real_path)
    assert ours.data_offset == reference.data_offset
    assert len(ours.tensors) == len(reference.tensors)
    sizes: Counter[str] = Counter()
    for tensor in ours.tensors:
        sizes[tensor.type.name] += tensor.n_bytes
    expected: Counter[str] = Counter()
    for info in reference.tensors:
        expected[info.tensor_type.name] += int(info.n_bytes)
    assert sizes == expected
    for key, value in ours.values.items():
        read = reference.fields[key].contents()
        assert value == (tuple(read) if isinstance(read, list) else read), key
    assert ours.lengths == {
        name: len(field.data)
        for name, field in reference.fields.items()
        if field.types and field.types[0].name == "ARRAY"
    }


def test_a_large_vocabulary_is_stepped_over_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    """256 k words with scores and types: no string and no number is built."""
    path = write_gguf(
        tmp_path / "large.gguf",
        plain_keys={
            "tokenizer.ggml.tokens": [f"▁word{n}" for n in range(N_WORDS)],
            "tokenizer.ggml.scores": [0.0] * N_WORDS,
        },
    )
    seconds = []
    for _ in range(5):
        started = time.process_time()
        header = read_header(path)
        seconds.append(time.process_time() - started)
    assert header.lengths["tokenizer.ggml.tokens"] == N_WORDS
    assert "tokenizer.ggml.scores" not in header.values
    assert min(seconds) < 0.1


NUMBERS = st.one_of(
    st.booleans(),
    st.integers(min_value=0, max_value=2**32 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(min_size=1, max_size=20),  # the reference drops empty strings
)
NAMES = st.text(alphabet="abcdefgh._", min_size=1, max_size=20)
SHAPES = st.tuples(
    NAMES,
    st.lists(st.integers(1, 4), max_size=3),
    st.sampled_from(["F32", "F16", "Q4_0", "Q5_1", "Q8_0", "Q4_K", "IQ2_XXS", "MXFP4", "NVFP4"]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.dictionaries(NAMES, NUMBERS, max_size=8),
    tensors=st.lists(SHAPES, max_size=6, unique_by=lambda tensor: tensor[0]),
)
def test_what_the_reference_writes_is_read_back(
    tmp_path: Path, keys: dict[str, object], tensors: list[tuple[str, list[int], str]]
) -> None:
    """Any keys, any tensors: values, shapes, types and positions survive."""
    table = [(name, (256, *shape), type_name) for name, shape, type_name in tensors]
    path = write_gguf(tmp_path / "any.gguf", keys=keys, tensors=table)
    header = read_header(path)
    assert {key: header.values[f"llama.{key}"] for key in keys} == keys
    assert [(t.name, t.shape, t.type.name) for t in header.tensors] == table
    end = max((header.data_offset + t.offset + t.n_bytes for t in header.tensors), default=0)
    assert end <= path.stat().st_size


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Whatever the length of a partial download, the answer is a GGUFError of one line."""
    whole = write_gguf(
        tmp_path / "whole.gguf",
        plain_keys={"words": ["one", "two"], "numbers": [1, 2, 3], "name": "x"},
    ).read_bytes()
    part = tmp_path / "part.gguf"
    needed = read_header(tmp_path / "whole.gguf")
    end = needed.data_offset + needed.tensors[-1].offset + needed.tensors[-1].n_bytes
    for length in (*range(needed.data_offset + 1), end - 1):
        part.write_bytes(whole[:length])
        with pytest.raises(GGUFError) as error:
            read_header(part)
        assert str(part) in str(error.value)
        assert "\n" not in str(error.value)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Damage in the header never surfaces as anything but a GGUFError, and never hangs."""
    path = write_gguf(
        tmp_path / "damaged.gguf",
        architecture=data.draw(st.sampled_from(["llama", "gemma3", "qwen3next", "minimax-01"])),
        plain_keys={"words": ["one"], "numbers": [1, 2]},
    )
    content = bytearray(path.read_bytes())
    header_bytes = read_header(path).data_offset
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, header_bytes - 1))
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(GGUFError):
        read_model(path)


def test_a_download_without_its_last_tensor_names_it(tmp_path: Path) -> None:
    """The header is whole, the data is not: the cure is to download again."""
    path = write_gguf(tmp_path / "short.gguf")
    header = read_header(path)
    content = path.read_bytes()[: header.data_offset + header.tensors[-1].offset]
    path.write_bytes(content)
    with pytest.raises(GGUFError, match=r"blk\.1\.attn_norm\.weight.*download it again"):
        read_header(path)


def test_every_missing_or_wrong_file_has_its_own_line(tmp_path: Path) -> None:
    """Path, folder, empty file and foreign format each name problem and cure."""
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "notes.gguf").write_bytes(b"# notes" + bytes(100))
    (tmp_path / "photo.gguf").write_bytes(b"\x89PNG" + bytes(100))
    for name, line in {
        "absent.gguf": "no such file: check the path",
        "empty.gguf": "the file is empty: download it again",
        "notes.gguf": "not a GGUF file, whatever its name: it begins with '# no', not with 'GGUF': "
        "give a model in the GGUF format",
        "photo.gguf": "not a GGUF file, whatever its name: it begins with '\\x89PNG', not with "
        "'GGUF': give a model in the GGUF format",
        ".": "this is a directory: give the .gguf file inside it",
    }.items():
        with pytest.raises(GGUFError) as error:
            read_header(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {line}"


@pytest.mark.parametrize(
    ("version", "line"),
    [
        (1, "GGUF version 1 is not supported: convert the model to version 3"),
        (4, "GGUF version 4 is not supported: convert the model to version 3"),
        (3 << 24, "it is big-endian: give a little-endian GGUF file"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, version: int, line: str) -> None:
    """Versions that llama.cpp does not read, and files of the other byte order."""
    path = patched(write_gguf(tmp_path / "model.gguf"), 4, "<I", version)
    with pytest.raises(GGUFError) as error:
        read_header(path)
    assert str(error.value) == f"{path}: {line}"


def test_version_2_is_read_like_version_3(tmp_path: Path) -> None:
    """The two differ only in the byte orders that they allow."""
    path = write_gguf(tmp_path / "model.gguf")
    tensors = read_header(path).tensors
    assert read_header(patched(path, 4, "<I", 2)).tensors == tensors


@pytest.mark.parametrize("counts", [(2**63, 1), (1, 2**63), (2**20, 2**20)])
def test_absurd_counts_are_refused_at_once(tmp_path: Path, counts: tuple[int, int]) -> None:
    """A damaged count is not believed: no loop of 2⁶³ turns."""
    path = patched(write_gguf(tmp_path / "model.gguf"), 8, "<QQ", *counts)
    with pytest.raises(GGUFError, match="cannot fit into it"):
        read_header(path)


def test_an_array_longer_than_the_file_is_refused_at_once(tmp_path: Path) -> None:
    """The length of an array of empty strings is bounded by the file as well."""
    path = write_gguf(tmp_path / "model.gguf", keys={}, plain_keys={"words": ["a", "b"]})
    at = path.read_bytes().index(b"words") + len(b"words") + 8
    assert struct.unpack_from("<Q", path.read_bytes(), at) == (2,)
    for length in (3_000, 2**40, 2**64 - 1):
        with pytest.raises(GGUFError, match="ends inside its header"):
            read_header(patched(path, at, "<Q", length))


def test_an_unknown_element_type_names_the_tensor(tmp_path: Path) -> None:
    """A withdrawn or future quantisation is not guessed at."""
    path = write_gguf(tmp_path / "model.gguf", tensors=TENSORS[:1])
    at = path.read_bytes().index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 16
    with pytest.raises(GGUFError, match=r"'token_embd\.weight' has the unknown element type 31"):
        read_header(patched(path, at, "<I", 31))


def test_identity_tells_files_apart_by_header_and_size(tmp_path: Path) -> None:
    """The same file has the same identity anywhere; another name inside makes another one."""
    first = read_header(write_gguf(tmp_path / "a.gguf")).identity
    again = read_header(write_gguf(tmp_path / "b.gguf")).identity
    renamed = read_header(
        write_gguf(tmp_path / "c.gguf", plain_keys={"general.name": "other"})
    ).identity
    assert first == again != renamed


def test_keys_start_where_the_format_says(tmp_path: Path) -> None:
    """The helpers of these tests patch the bytes that they mean to."""
    content = write_gguf(tmp_path / "model.gguf", keys=LLAMA).read_bytes()
    (length,) = struct.unpack_from("<Q", content, HEADER_BYTES)
    assert content[HEADER_BYTES + 8 : HEADER_BYTES + 8 + length] == b"general.architecture"


def test_a_llamafile_is_the_model_inside_it(real_path: Path, tmp_path: Path) -> None:
    """Behind a program of whatever length; the largest of several, such as a vision tower's."""
    file = tmp_path / "model.llamafile"
    file.write_bytes(b"MZqFpD='\n" + bytes(4321))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("tower.gguf", b"GGUF")
        archive.write(real_path, "model.gguf")
        archive.writestr(".args", "-m\nmodel.gguf\n")

    assert read_model(file) == read_model(real_path)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        (None, "a llamafile with no model in it: give a .gguf file"),
        ({".args": zipfile.ZIP_STORED}, "a llamafile with no model in it: give a .gguf file"),
        ({"a.gguf": zipfile.ZIP_DEFLATED}, "compressed inside it: give the .gguf file itself"),
        ({"a.gguf": zipfile.ZIP_STORED}, "not a GGUF file"),
    ],
)
def test_a_llamafile_without_a_model_says_so(
    members: dict[str, int] | None, complaint: str, tmp_path: Path
) -> None:
    """A program alone, one with settings alone, a model that nobody can map, and no model."""
    file = tmp_path / "model.llamafile"
    file.write_bytes(b"#!/bin/sh\n")
    if members is not None:
        with zipfile.ZipFile(file, "a") as archive:
            for name, method in members.items():
                archive.writestr(name, b"words", method)

    with pytest.raises(GGUFError, match=complaint):
        read_header(file)
