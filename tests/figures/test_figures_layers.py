"""The layered layout of call graphs."""

import itertools

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.figures.layers import lay_out

EDGES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=40)


def test_a_chain_is_one_node_a_layer():
    """A -> b -> c takes three layers, straight down the middle."""
    # When
    layout = lay_out(nx.DiGraph([("a", "b"), ("b", "c")]))
    # Then
    assert layout.layer == {"a": 0, "b": 1, "c": 2}
    assert layout.x == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})
    assert layout.widest == 1


def test_a_node_stands_below_its_farthest_caller():
    """The longest path decides: with a -> c and a -> b -> c, c is on layer 2 and a -> c bends once."""
    # When
    layout = lay_out(nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")]))
    # Then
    assert layout.layer == {"a": 0, "b": 1, "c": 2}
    assert [layer for _, layer in layout.bends[("a", "c")]] == [1]


def test_crossings_are_taken_out():
    """Two pairs named so that the alphabet crosses them are drawn without a crossing."""
    # When
    layout = lay_out(nx.DiGraph([("top", "a"), ("top", "b"), ("a", "z"), ("b", "y")]))
    # Then
    assert (layout.x["a"] < layout.x["b"]) == (layout.x["z"] < layout.x["y"])


def test_a_cycle_is_drawn_with_one_edge_upward():
    """Order -> stock -> order: one of the two edges runs against the others."""
    # When
    layout = lay_out(nx.DiGraph([("entry", "order"), ("order", "stock"), ("stock", "order")]))
    # Then
    assert layout.reversed_edges == {("stock", "order")}
    assert layout.layer == {"entry": 0, "order": 1, "stock": 2}


@settings(deadline=None, max_examples=80)
@given(EDGES)
def test_every_graph_gets_a_layout(edges):
    """Whatever the edges: callers above callees, nothing on one layer overlaps, all of it inside 0-1."""
    # Given
    graph = nx.DiGraph(edges)
    # When
    layout = lay_out(graph)
    # Then
    assert set(layout.layer) == set(graph) == set(layout.x)
    for caller, callee in graph.edges:
        if caller != callee:
            above = layout.layer[caller] < layout.layer[callee]
            assert above != ((caller, callee) in layout.reversed_edges)
            assert len(layout.bends[(caller, callee)]) == abs(layout.layer[caller] - layout.layer[callee]) - 1
    for one, other in itertools.combinations(graph, 2):
        if layout.layer[one] == layout.layer[other]:
            assert abs(layout.x[one] - layout.x[other]) * layout.widest > 1 - 1e-6
    assert all(0 <= x <= 1 for x in layout.x.values())


@given(EDGES, st.randoms())
@settings(deadline=None, max_examples=30)
def test_the_order_of_edges_changes_nothing(edges, random):
    """The same graph built in another order looks the same."""
    # Given
    shuffled = list(edges)
    random.shuffle(shuffled)
    # When
    one, other = lay_out(nx.DiGraph(edges)), lay_out(nx.DiGraph(shuffled))
    # Then
    assert one.layer == other.layer
    assert one.x == pytest.approx(other.x)
