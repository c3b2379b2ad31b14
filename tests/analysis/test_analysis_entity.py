"""Operations and edges: what time is charged to."""

from __future__ import annotations

import numpy as np

from perflab.analysis.entity import find_callees, find_entities
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import empty_spans
from perflab.trace.tree import link


def entities(table):
    found = find_entities(table, link(table))
    return [found.names[code] for code in found.code]


class TestFindEntities:
    def test_a_client_with_a_child_elsewhere_is_an_edge(self):
        """All else is an operation, a consumer's message included."""
        inside = [
            S("order", "GET stock", 1, 5, "client", children=[S("stock", "GET /", 2, 4, "server")]),
            S("order", "SELECT x", 6, 7, "client"),
            S("order", "send m", 8, 9, "producer", children=[S("mail", "process m", 9, 10, "consumer")]),
        ]
        assert entities(spans([S("order", "POST /", 0, 10, "server", children=inside)])) == [
            "order: POST /",
            "order -> stock",
            "stock: GET /",
            "order: SELECT x",
            "order: send m",
            "mail: process m",
        ]

    def test_the_server_child_decides_then_the_smaller_id(self):
        """Proxies and retries below one client span."""
        children = [
            S("proxy", "forward", 1, 2, "internal", span_id=5),
            S("c", "GET /", 1, 2, "server", span_id=9),
            S("b", "GET /", 3, 4, "server", span_id=7),
        ]
        table = spans([S("a", "GET", 0, 9, "client", children=children, span_id=1)])
        assert entities(table)[0] == "a -> b"

    def test_names_that_read_alike_are_one_entity(self):
        """What cannot be told apart in a table is not kept apart."""
        table = spans([S("a", "b: c", 0, 1), S("a: b", "c", 0, 1)])
        found = find_entities(table, link(table))
        assert (found.names, found.code.tolist()) == (["a: b: c"], [0, 0])

    def test_without_edges_all_are_operations(self):
        """As the CRISP rule has it."""
        table = random_forest(1)
        found = find_entities(table, link(table), with_edges=False)
        assert set(found.table["kind"]) == {"operation"}
        assert (found.callee_row == -1).all()

    def test_row_order_changes_no_name(self):
        """Nor does an empty table break anything."""
        table = random_forest(2)
        turned = table.iloc[::-1].reset_index(drop=True)
        assert entities(turned) == entities(table)[::-1]
        assert entities(empty_spans()) == []
        assert find_callees(empty_spans(), link(empty_spans())).dtype == np.int64
