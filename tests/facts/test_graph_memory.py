"""The replayed allocator: cases worked out by hand, and bounds that no graph may leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotune.facts.graph_memory import Graph


def test_a_chain_needs_two_tensors_at_a_time() -> None:
    """Source and result live together; the place of a dead one is taken again."""
    graph = Graph()
    tensor = graph.input("x", 10)
    for _ in range(5):
        tensor = graph.node(10, tensor)
    assert graph.peak() == 20


def test_a_chain_in_place_needs_one() -> None:
    """Each result overwrites its source."""
    graph = Graph()
    tensor = graph.input("x", 10)
    for _ in range(5):
        tensor = graph.node(10, tensor, overwrite=True)
    assert graph.peak() == 10


def test_a_tensor_that_is_still_needed_is_not_overwritten() -> None:
    """A residual keeps its source alive; another size cannot take its place either."""
    graph = Graph()
    source = graph.input("x", 10)
    normed = graph.node(10, source, overwrite=True)
    graph.node(10, normed, source, overwrite=True)
    assert graph.peak() == 20
    narrower = Graph()
    narrower.node(4, narrower.input("x", 10), overwrite=True)
    assert narrower.peak() == 14


def test_an_input_is_there_from_the_start() -> None:
    """Also one that only the last operation reads; asked for again, it is the same."""
    graph = Graph()
    first = graph.node(5, graph.input("x", 10))
    assert graph.input("x", 10) == graph.input("x", 10)
    graph.node(5, first, graph.input("late", 100))
    assert graph.peak() == 10 + 100 + 5 + 0


def test_the_smallest_gap_that_fits_is_taken() -> None:
    """Gaps of 8 and 4 are left: 4 goes into the second, and the first stays whole for 8."""
    graph = Graph()
    root = graph.input("root", 1)
    eight, wall = graph.node(8, root), graph.node(1, root)
    four, end = graph.node(4, root), graph.node(1, root)
    freed = graph.node(0, eight, four)
    small = graph.node(4, root, freed)
    graph.node(8, root, small)
    graph.node(0, wall, end)
    assert graph.peak() == 1 + 8 + 1 + 4 + 1


def test_a_write_into_foreign_memory_needs_none() -> None:
    """Storing into the cache frees what it stored."""
    graph = Graph()
    key = graph.node(10, graph.input("x", 10))
    graph.node(0, key)
    graph.node(10, graph.input("x", 10))
    assert graph.peak() == 20


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of up to thirty operations."""
    graph = Graph()
    for name in range(draw(st.integers(1, 3))):
        graph.input(str(name), draw(st.integers(1, 100)))
    for _ in range(draw(st.integers(1, 30))):
        known = st.integers(0, len(graph.sizes) - 1)
        sources = draw(st.lists(known, min_size=1, max_size=3))
        graph.node(draw(st.integers(0, 100)), *sources, overwrite=draw(st.booleans()))
    return graph


@given(graphs())
def test_the_peak_lies_between_the_largest_operation_and_the_sum(graph: Graph) -> None:
    """Inputs live together, an operation with its sources unless it overwrites one of them."""
    inputs = sum(graph.sizes[tensor] for tensor in graph.inputs.values())
    assert max(inputs, *graph.sizes) <= graph.peak() <= sum(graph.sizes)


@given(graphs(), st.integers(2, 1000))
def test_the_peak_is_proportional_to_the_sizes(graph: Graph, factor: int) -> None:
    """Which is why a graph is replayed for one token and multiplied."""
    larger = Graph(
        [factor * size for size in graph.sizes], graph.sources, graph.may_overwrite, graph.inputs
    )
    assert larger.peak() == factor * graph.peak()
