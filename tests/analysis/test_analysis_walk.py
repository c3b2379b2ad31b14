"""The strict rule, every clause by hand."""

from __future__ import annotations

import pytest
from made_traces import times

from perflab.analysis.criticalpath import critical_path
from perflab.testing import S, spans, trace_id


class TestTheChain:
    def test_a_callee_owns_its_time_and_the_edge_its_gap(self):
        """Caller, gap and callee are three entities."""
        # Given a call of 50 ms of which the callee saw 40
        server = S("stock", "POST /reserve", 15, 55, kind="server")
        call = S("order", "POST stock", 10, 60, kind="client", children=[server])
        table = spans([S("order", "POST /orders", 0, 100, kind="server", children=[call])])
        # When the path is found, then each has its own
        assert times(table) == {
            "order: POST /orders": 50,
            "order -> stock": 10,
            "stock: POST /reserve": 40,
        }

    def test_a_leaf_client_is_an_operation(self):
        """A store or an uninstrumented peer is charged to its caller's operation."""
        table = spans(
            [
                S(
                    "stock",
                    "GET /",
                    0,
                    10,
                    kind="server",
                    children=[S("stock", "SELECT stock", 1, 9, kind="client")],
                )
            ]
        )
        assert times(table) == {"stock: GET /": 2, "stock: SELECT stock": 8}

    def test_a_call_within_one_service_is_an_operation(self):
        """Only a child in another service makes an edge."""
        inner = S("a", "GET /inner", 2, 8, kind="server")
        table = spans([S("a", "GET a", 0, 10, kind="client", children=[inner])])
        assert times(table) == {"a: GET a": 4, "a: GET /inner": 6}

    def test_of_parallel_children_the_last_to_finish_is_on_the_path(self):
        """The other one is off the path; its parent's time while it ran is covered."""
        # Given two overlapping children, one ending at 90, the other at 50 of 100
        table = spans([S("a", "top", 0, 100, children=[S("a", "late", 40, 90), S("a", "early", 10, 50)])])
        # When
        found = critical_path(table)
        # Then "early" is not chained: it ends after "late" began; 10..40 of the parent is covered by it
        assert times(table) == {"a: top": 50, "a: late": 50}
        assert found.table.set_index("entity")["covered_ns"].to_dict() == {"a: top": 30_000_000, "a: late": 0}

    def test_sequential_children_chain_where_one_ends_as_the_next_begins(self):
        """End <= start is sequential."""
        table = spans([S("a", "top", 0, 100, children=[S("a", "one", 10, 40), S("a", "two", 40, 90)])])
        assert times(table) == {"a: top": 20, "a: one": 30, "a: two": 50}

    @pytest.mark.parametrize(("overlap_ms", "is_chained"), [(0.049999, True), (0.05, False)])
    def test_siblings_overlapping_by_less_than_50_us_are_sequential(self, overlap_ms, is_chained):
        """In a parent of 10 ms the limit is 50 us, not included; the later one keeps the overlap."""
        children = [S("a", "one", 1, 4 + overlap_ms), S("a", "two", 4, 9)]
        found = times(spans([S("a", "top", 0, 10, children=children)]))
        assert found["a: two"] == 5
        assert found.get("a: one") == (3 if is_chained else None)
        assert found["a: top"] == (2 if is_chained else 5)

    @pytest.mark.parametrize(("overlap_ms", "is_chained"), [(0.999, True), (1.0, False)])
    def test_in_a_long_parent_the_limit_is_a_thousandth(self, overlap_ms, is_chained):
        """0.1 % of a second is 1 ms."""
        children = [S("a", "one", 100, 400 + overlap_ms), S("a", "two", 400, 900)]
        found = times(spans([S("a", "top", 0, 1000, children=children)]))
        assert ("a: one" in found) is is_chained

    def test_ties_go_to_the_longer_then_to_the_smaller_id(self):
        """Input order never matters."""
        long, short = S("a", "long", 10, 90, span_id=9), S("a", "short", 50, 90, span_id=2)
        assert times(spans([S("a", "top", 0, 100, children=[short, long])])) == {"a: top": 20, "a: long": 80}
        twins = [S("a", "second", 10, 90, span_id=9), S("a", "first", 10, 90, span_id=2)]
        assert times(spans([S("a", "top", 0, 100, children=twins)])) == {"a: top": 20, "a: first": 80}


class TestClipping:
    def test_a_callee_that_outlives_its_caller_is_clipped_kept_and_flagged(self):
        """A timed-out call: the callee goes on, its client does not."""
        # Given a client that gave up at 100 while the server ran until 500
        query = S("stock", "SELECT stock", 20, 480, kind="client")
        server = S("stock", "POST /reserve", 10, 500, kind="server", children=[query])
        table = spans([S("order", "POST stock", 0, 100, kind="client", children=[server])])
        # When
        found = critical_path(table)
        # Then what the client waited for is charged; the query, inside its own parent, is no runaway
        assert times(table) == {"order -> stock": 10, "stock: POST /reserve": 10, "stock: SELECT stock": 80}
        assert found.counts["abandoned"] == 1
        assert found.counts["asynchronous"] == 0

    def test_a_callee_that_begins_after_its_client_gave_up_is_abandoned_off_the_path(self):
        """It queued for longer than the client waited."""
        server = S("stock", "POST /reserve", 150, 170, kind="server")
        table = spans([S("order", "POST stock", 0, 100, kind="client", children=[server])])
        found = critical_path(table)
        assert times(table) == {"order -> stock": 100}
        assert found.counts["abandoned"] == 1

    @pytest.mark.parametrize(
        ("parent_ms", "overshoot_ms", "is_clipped"),
        [(10, 1.0, True), (10, 1.000001, False), (1000, 10.0, True), (1000, 10.001, False)],
    )
    def test_a_small_overshoot_is_clipped_a_big_one_is_asynchronous(
        self, parent_ms, overshoot_ms, is_clipped
    ):
        """The limit is 1 ms or 1 % of the parent, whichever is more."""
        child = S("a", "child", 5, parent_ms + overshoot_ms)
        table = spans([S("a", "top", 0, parent_ms, children=[child])])
        found = critical_path(table)
        if is_clipped:
            assert times(table) == {"a: top": 5, "a: child": parent_ms - 5}
        else:
            assert times(table) == {"a: top": parent_ms}
            assert found.asynchronous["mean_ms"].tolist() == [pytest.approx(parent_ms + overshoot_ms - 5)]
        assert (found.counts["clipped"], found.counts["asynchronous"]) == ((1, 0) if is_clipped else (0, 1))

    def test_a_child_that_begins_before_its_parent_is_clipped(self):
        """Both ends are clipped."""
        table = spans([S("a", "top", 10, 20, children=[S("a", "child", 5, 15)])])
        assert times(table) == {"a: top": 5, "a: child": 5}

    def test_children_clipped_to_one_end_are_a_tie(self):
        """The longer one wins once both are clipped, though the other ended later."""
        children = [S("a", "long", 10, 100.2), S("a", "late", 60, 100.9)]
        assert times(spans([S("a", "top", 0, 100, children=children)])) == {"a: top": 10, "a: long": 90}


class TestAsynchronousWork:
    def test_a_consumer_is_off_the_path_and_reported_apart(self):
        """Nobody waits for the worker."""
        # Given a message processed after, and partly during, the request
        query = S("mail", "INSERT mail", 60, 80, kind="client")
        work = S("mail", "process mails", 50, 90, kind="consumer", children=[query])
        send = S("order", "send mails", 40, 45, kind="producer", children=[work])
        table = spans([S("order", "POST /orders", 0, 60, kind="server", children=[send])])
        # When
        found = critical_path(table)
        # Then
        assert times(table) == {"order: POST /orders": 55, "order: send mails": 5}
        apart = found.asynchronous.set_index("entity")["exclusive_ns"]
        assert (apart / 1e6).to_dict() == {"mail: process mails": 20, "mail: INSERT mail": 20}

    def test_a_child_that_links_to_its_parent_follows_from_it(self):
        """A link is not a wait."""
        link = [{"trace_id": trace_id(1), "span_id": f"{1:016x}"}]
        child = S("a", "later", 5, 9, links=link)
        table = spans([S("a", "top", 0, 10, children=[child])])
        assert times(table) == {"a: top": 10}

    def test_a_root_linked_to_another_trace_of_the_table_is_its_work(self):
        """And one that links elsewhere is an entry like any other."""
        near = S("b", "batch", 20, 30, kind="consumer", links=[{"trace_id": trace_id(1), "span_id": "1"}])
        far = S("c", "batch", 20, 30, kind="consumer", links=[{"trace_id": "f" * 32, "span_id": "1"}])
        found = critical_path(spans([S("a", "top", 0, 10), near, far]))
        assert found.entries["entry"].tolist() == ["a: top", "c: batch"]
        assert found.asynchronous["entity"].tolist() == ["b: batch"]


class TestCrisp:
    def test_it_charges_the_gap_to_the_caller(self):
        """The published rule knows no edges."""
        server = S("stock", "POST /reserve", 15, 55, kind="server")
        call = S("order", "POST stock", 10, 60, kind="client", children=[server])
        found = critical_path(spans([call]), compat="crisp")
        assert found.rule == "crisp"
        assert found.table[["entity", "mean_ms"]].values.tolist() == [
            ["stock: POST /reserve", 40.0],
            ["order: POST stock", 10.0],
        ]

    def test_it_forgives_no_overlap_and_truncates_every_overshoot(self):
        """A nanosecond is an overlap; a runaway child is cut to its parent."""
        children = [S("a", "one", 1, 4.000001), S("a", "two", 4, 900)]
        found = critical_path(spans([S("a", "top", 0, 10, children=children)]), compat="crisp")
        assert found.table.set_index("entity")["mean_ms"].to_dict() == {"a: two": 6, "a: top": 4}
