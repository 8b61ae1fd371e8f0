"""Workloads: llama-bench's labels, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.errors import UserError
from autotune.domain.workload import PRESETS, Workload

workloads = st.builds(
    Workload,
    n_prompt=st.integers(1, 10_000),
    n_gen=st.integers(0, 10_000),
    n_depth=st.integers(0, 100_000),
    n_parallel=st.integers(1, 64),
)


@given(workloads)
def test_a_label_reads_back_as_the_workload(workload: Workload) -> None:
    """parse is the inverse of label."""
    assert Workload.parse(workload.label) == workload


def test_a_single_phase_is_a_workload() -> None:
    """llama-bench's pp512 and tg128 are read as they are."""
    assert Workload.parse("pp512") == Workload(n_prompt=512, n_gen=0)
    assert Workload.parse("tg128@d4096") == Workload(n_prompt=0, n_gen=128, n_depth=4096)


@pytest.mark.parametrize(
    "text", ["", "512", "pp", "pp512 tg128", "tg-1", "pp512+tg128@4096", "@d8"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """The message shows what a workload looks like, and which have a name."""
    with pytest.raises(UserError, match=r"write pp512\+tg128@d0, or chat, rag, code, batch$"):
        Workload.parse(text)


def test_decode_follows_the_prompt() -> None:
    """The mean depth of a decoded token counts the prompt."""
    assert Workload(n_prompt=512, n_gen=128, n_depth=100).decode_depth == 100 + 512 + 64


def test_a_workload_that_outgrows_the_context_says_so() -> None:
    """The message names both sizes and both cures."""
    with pytest.raises(UserError, match="needs 640 tokens, n_ctx is 512: raise n_ctx or"):
        Workload(n_prompt=512, n_gen=128).require_context(512)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_workload_that_fits_a_small_context(name: str) -> None:
    """One request at a time, within 4096 tokens."""
    workload = Workload.parse(PRESETS[name])

    assert workload.label == PRESETS[name] + ("" if "@d" in PRESETS[name] else "@d0")
    workload.require_context(4096)
    assert workload.n_parallel == 1


@pytest.mark.parametrize(
    ("exact", "coarse"),
    [
        ("pp512+tg128@d0", "pp512+tg128@d0"),
        ("pp500+tg100@d31", "pp512+tg128@d0"),
        ("pp363+tg90@d33", "pp512+tg64@d32"),
        ("pp362+tg91@d3000x2", "pp256+tg128@d4096x2"),
        ("pp1@d5", "pp1@d0"),
    ],
)
def test_requests_of_about_a_size_are_of_one_class(exact: str, coarse: str) -> None:
    """The nearest powers of two; nothing stays nothing, and a few tokens deep is not deep."""
    assert Workload.parse(exact).coarse.label == coarse
    assert Workload.parse(coarse).coarse.label == coarse
