"""The drawing of call graphs."""

import itertools

import networkx as nx
import pytest

from perflab.figures import call_graph
from perflab.figures.callgraph import MAX_NODES


def shop():
    """Return a call graph with a node of every kind."""
    graph = nx.DiGraph()
    for name in ("gateway", "order", "stock"):
        graph.add_node(name, kind="service")
    for name, kind in (("shop", "database"), ("redis", "cache"), ("mail", "queue"), ("bank", "external")):
        graph.add_node(name, kind=kind)
        graph.add_edge("order", name, calls=10, calls_per_request=1.0, p50_ms=2.0)
    graph.add_edge("gateway", "order", calls=10, calls_per_request=1.0, gap_ms=0.5, error_ratio=0.1)
    graph.add_edge("order", "stock", calls=30, calls_per_request=3.0, gap_ms=1.5, is_async=True)
    return graph


def texts(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def test_every_node_is_named_with_the_word_for_its_kind():
    """Seven nodes; shape is never the only sign of what a node is."""
    # When
    shown = " ".join(texts(call_graph(shop())))
    # Then
    for word in ("<b>gateway</b>", "<b>shop</b>", "database", "cache", "queue", "external", "service"):
        assert word in shown


def test_edges_say_how_often_and_how_much_time_is_lost():
    """Calls per request, gap, errors and async in words."""
    # When
    shown = texts(call_graph(shop()))
    # Then
    assert "3/req async<br>gap 1.5 ms" in shown
    assert any("1/req<br>gap 500 µs<br>" in text and "10 % errors" in text for text in shown)


def test_a_slow_operation_is_ringed_and_named():
    """The bottleneck is said twice in words: above the graph, and on its node."""
    # Given
    first = {"entity": "stock: SELECT stock", "kind": "operation", "service": "stock", "share_ratio": 0.47}
    # When
    plain, figure = call_graph(shop()), call_graph(shop(), first)
    # Then
    assert "<b>Bottleneck: stock: SELECT stock</b>, 47 % of the critical time" in texts(figure)
    assert "<b>bottleneck</b>" in texts(figure)
    assert len(figure.layout.shapes) == len(plain.layout.shapes) + 1
    assert "stock: SELECT stock" in figure.layout.meta["description"]


def test_a_slow_edge_is_thick_and_both_its_ends_are_ringed():
    """An edge is the bottleneck: the arrow itself is marked."""
    # Given
    first = {
        "entity": "order -> stock",
        "kind": "edge",
        "service": "order",
        "caller": "order",
        "callee": "stock",
    }
    # When
    figure = call_graph(shop(), first)
    # Then
    assert sum(shape.line.width == 4 for shape in figure.layout.shapes) == 1
    assert sum(shape.line.width == 3 for shape in figure.layout.shapes) == 2
    assert "<b>Bottleneck: order -&gt; stock</b>" in texts(figure)


@pytest.mark.parametrize("nodes", [MAX_NODES, 300])
def test_a_graph_too_large_to_read_is_folded(nodes):
    """At most 60 nodes are drawn; those folded are counted in the node that stands for them."""
    # Given
    graph = nx.DiGraph()
    for number in range(1, nodes):
        graph.add_edge(f"s{(number - 1) // 3}", f"s{number}", calls=nodes - number)
    # When
    figure = call_graph(graph)
    # Then
    named = [text for text in texts(figure) if "font-size:10px" in text]
    assert len(named) == MAX_NODES
    assert any("241 others" in text for text in named) == (nodes == 300)


def test_of_many_edges_only_those_that_matter_are_labelled():
    """Of 59 edges the 30 with most calls have words; the description says so, the others have hover boxes."""
    # Given
    graph = nx.DiGraph()
    for number in range(1, 60):
        graph.add_edge(f"s{(number - 1) // 3}", f"s{number}", calls=number, calls_per_request=float(number))
    # When
    figure = call_graph(graph)
    # Then
    labels = [text for text in texts(figure) if "/req" in text]
    assert sorted(int(text.split("/")[0]) for text in labels) == list(range(30, 60))
    assert "The 30 edges that matter most are labelled" in figure.layout.meta["description"]
    assert sum("-&gt;" in hover for trace in figure.data for hover in trace.hovertext or ()) == 59


def test_cycles_and_self_calls_are_drawn():
    """A cycle has an arrow that points upward; a service that calls itself says so when pointed at."""
    # Given
    graph = nx.DiGraph([("a", "b"), ("b", "a"), ("b", "b")])
    # When
    figure = call_graph(graph)
    # Then
    assert "triangle-up" in [symbol for trace in figure.data for symbol in trace.marker.symbol or ()]
    assert any("calls itself" in hover for trace in figure.data for hover in trace.hovertext or ())


def test_an_empty_graph_is_said_in_words():
    """Without spans the figure explains itself."""
    assert "no spans" in call_graph(nx.DiGraph()).layout.meta["description"]


def test_names_from_a_trace_stay_text():
    """A service called like markup is shown as it is called."""
    # When
    figure = call_graph(nx.DiGraph([("<a href='javascript:x'>y</a>", "b")]))
    # Then
    assert "<a " not in figure.to_json().replace("\\u003c", "<")


def test_labels_do_not_lie_on_each_other_where_there_is_room():
    """Six services that all call one database: six labels, none over another at the width of a desk."""
    # Given
    graph = nx.DiGraph()
    for number in range(6):
        graph.add_edge("gateway", f"s{number}", calls=9, calls_per_request=1.0, gap_ms=1.0)
        graph.add_edge(f"s{number}", "db", calls=9, calls_per_request=1.0, p50_ms=1.0)
    # When
    figure = call_graph(graph)
    # Then
    boxes = [
        (800 * label.x, label.y) for label in figure.layout.annotations if label.text and "/req" in label.text
    ]
    assert len(boxes) == 12
    for one, other in itertools.combinations(boxes, 2):
        assert abs(one[0] - other[0]) > 40 or abs(one[1] - other[1]) > 20
