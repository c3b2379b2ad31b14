"""The call graph: nodes, edges, what is missing, and rings."""

from __future__ import annotations

import math

import pytest

from perflab.analysis.callgraph import call_graph
from perflab.errors import AnalysisError
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import concat_spans, empty_spans

POSTGRES = {"db.system.name": "postgresql", "db.namespace": "shop"}


def checkout(begin: float = 0, status: str = "unset") -> S:
    """Return a request that reads a cache, queries a database twice, calls a bank and leaves a message."""
    work = S("mail", "process mails", begin + 60, begin + 80, kind="consumer")
    inside = [
        S("order", "GET cart", begin + 10, begin + 11, kind="client", attributes={"db.system.name": "redis"}),
        S("order", "SELECT stock", begin + 12, begin + 16, kind="client", attributes=POSTGRES, status=status),
        S("order", "SELECT stock", begin + 17, begin + 23, kind="client", attributes=POSTGRES),
        S("order", "POST bank", begin + 24, begin + 34, kind="client", attributes={"server.address": "bank"}),
        S("order", "send mails", begin + 35, begin + 36, kind="producer", children=[work]),
    ]
    server = S("order", "POST /orders", begin + 5, begin + 45, kind="server", children=inside)
    call = S("gateway", "POST order", begin + 2, begin + 48, kind="client", children=[server])
    return S("gateway", "POST /checkout", begin, begin + 50, kind="server", children=[call])


class TestNodes:
    def test_what_sends_no_spans_is_a_node_too(self):
        """Database, cache, queue and external peer, named from the calls to them."""
        # Given a request that touches one of each
        graph = call_graph(spans([checkout()]))
        # Then
        assert {node: data["kind"] for node, data in graph.nodes(data=True)} == {
            "gateway": "service",
            "order": "service",
            "mail": "service",
            "bank": "external",
            "postgresql shop": "database",
            "queue mails": "queue",
            "redis": "cache",
        }

    def test_requests_count_how_often_a_node_was_asked(self):
        """Twice two statements for the database, two requests for the rest."""
        graph = call_graph(spans([checkout(), checkout(100)]))
        assert {node: data["requests"] for node, data in graph.nodes(data=True)} == {
            "gateway": 2,
            "order": 2,
            "mail": 2,
            "bank": 2,
            "postgresql shop": 4,
            "queue mails": 2,
            "redis": 2,
        }

    def test_folded_by_operation(self):
        """Services become what they are asked to do; the rest stays."""
        graph = call_graph(spans([checkout()]), fold="operation")
        assert ("gateway: POST /checkout", "order: POST /orders") in graph.edges
        assert ("order: POST /orders", "postgresql shop") in graph.edges
        assert ("queue mails", "mail: process mails") in graph.edges
        assert graph.nodes["order: POST /orders"]["service"] == "order"


class TestEdges:
    def test_calls_times_and_gap(self):
        """Durations are the caller's; the gap is what the callee did not see of it."""
        graph = call_graph(spans([checkout(), checkout(100)]))
        edge = graph["gateway"]["order"]
        assert (edge["calls"], edge["calls_per_request"], edge["p50_ms"], edge["gap_ms"]) == (
            2,
            1.0,
            46.0,
            6.0,
        )
        store = graph["order"]["postgresql shop"]
        assert (store["calls"], store["calls_per_request"], store["p50_ms"], store["p99_ms"]) == (
            4,
            2.0,
            4,
            6,
        )
        assert math.isnan(store["gap_ms"])

    def test_a_call_after_a_failed_one_is_a_retry(self):
        """Of the same parent, along the same edge."""
        edge = call_graph(spans([checkout(status="error"), checkout(100)]))["order"]["postgresql shop"]
        assert (edge["error_ratio"], edge["retries"]) == (0.25, 1)

    def test_messages_are_asynchronous(self):
        """Into the queue and out of it."""
        graph = call_graph(spans([checkout()]))
        asynchronous = {
            (caller, callee) for caller, callee, data in graph.edges(data=True) if data["is_async"]
        }
        assert asynchronous == {("order", "queue mails"), ("queue mails", "mail")}
        assert graph["queue mails"]["mail"]["p50_ms"] == 20

    def test_rings_are_kept_and_flagged(self):
        """A calls B calls A."""
        last = S("a", "GET /back", 30, 40, kind="server")
        back = S("b", "GET a", 25, 45, kind="client", children=[last])
        middle = S("b", "GET /", 20, 50, kind="server", children=[back])
        call = S("a", "GET b", 10, 60, kind="client", children=[middle])
        graph = call_graph(spans([S("a", "GET /", 0, 70, kind="server", children=[call]), checkout(100)]))
        assert graph.graph["cycles"] == [["a", "b"]]
        assert graph["a"]["b"]["in_cycle"]
        assert graph["b"]["a"]["in_cycle"]
        assert not graph["gateway"]["order"]["in_cycle"]


class TestWhatIsMissing:
    def test_unpaired_spans_are_counted(self):
        """A call whose callee's span never came, and a server whose caller's did not."""
        lost = S("stock", "GET /", 5, 9, kind="server", parent_span_id=99)
        call = S("order", "GET stock", 0, 9, kind="client", attributes={"peer.service": "stock"})
        graph = call_graph(spans([call, lost]))
        assert (graph.graph["unpaired_calls"], graph.graph["unpaired_servers"]) == (1, 1)
        # the peer is a service that sends spans, so it is that node
        assert list(graph.edges) == [("order", "stock")]

    def test_marked_traces_only_where_there_are_any(self):
        """Marked and real traffic are never pooled."""
        marked = S(
            "perflab", "buy", 0, 9, kind="client", shadow=True, children=[S("a", "GET /", 1, 8, "server")]
        )
        graph = call_graph(spans([marked, checkout()]))
        assert sorted(graph) == ["a", "perflab"]
        assert graph.graph["real_traces_left_out"] == 1

    def test_duplicates_and_nothing(self):
        """A file read twice is the same graph; an empty table an empty one."""
        table = random_forest(3)
        once, twice = call_graph(table), call_graph(concat_spans([table, table]))
        assert sorted(once.edges(data="calls")) == sorted(twice.edges(data="calls"))
        assert len(call_graph(empty_spans())) == 0
        assert len(call_graph(empty_spans(), fold="operation")) == 0

    def test_an_unknown_fold_is_refused(self):
        """The message lists those there are."""
        with pytest.raises(AnalysisError, match="service, operation"):
            call_graph(empty_spans(), fold="host")
