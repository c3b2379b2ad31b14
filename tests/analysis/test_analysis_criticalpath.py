"""The critical path: every clause of the rule by hand, and properties against a naive walk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_walk import naive_exclusive

from perflab.analysis.criticalpath import critical_path
from perflab.errors import AnalysisError, SchemaError
from perflab.testing import EPOCH_NS, S, random_forest, spans, trace_id
from perflab.trace.schema import concat_spans, empty_spans

SEEDS = st.integers(0, 2**32)


def times(table: pd.DataFrame, trace: int = 1) -> dict[str, float]:
    """Return exclusive ms per entity of one trace."""
    found = critical_path(table).exclusive
    chosen = found[found["trace_id"] == trace_id(trace)]
    return dict(zip(chosen["entity"], chosen["exclusive_ns"] / 1e6, strict=True))


def by_trace(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    found = (
        critical_path(table).exclusive.groupby(["trace_id", "entity"], observed=True)["exclusive_ns"].sum()
    )
    return {(str(trace), str(entity)): int(value) for (trace, entity), value in found.items()}


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


class TestWhatIsLeftOut:
    def test_orphans_are_kept_apart_and_counted(self):
        """A fragment whose parent never came belongs to no request."""
        table = spans([S("a", "top", 0, 10, trace=1), S("b", "lost", 2, 8, parent_span_id=77, trace=1)])
        found = critical_path(table)
        assert times(table) == {"a: top": 10}
        assert found.counts["orphans"] == 1
        assert "1 fragments left out" in found.refused[0]

    def test_unanswered_requests_are_counted_not_ranked(self):
        """A request nobody answered has no end to walk back from; a failed check has one."""
        outcomes = ["answered", "timeout", "missed", "check_failed"]
        table = spans(
            [
                S("perflab", "pay", 0, 10, kind="client", outcome=outcome, scheduled_ms=0, shadow=True)
                for outcome in outcomes
            ]
        )
        found = critical_path(table)
        assert (len(found.entries), found.counts["unanswered"]) == (2, 2)

    def test_marked_and_real_traces_are_never_pooled(self):
        """Where both are there, the marked ones are taken; one marked span marks its trace."""
        inside = S("gateway", "GET /", 1, 9, kind="server", shadow=True)
        marked = S("perflab", "browse", 0, 10, kind="client", outcome="answered", children=[inside])
        found = critical_path(spans([marked, S("gateway", "GET /", 0, 50, kind="server")]))
        assert found.counts["real_traces_left_out"] == 1
        assert found.entries["entry"].tolist() == ["perflab: browse"]

    def test_an_unknown_rule_is_refused_with_those_there_are(self):
        """The message lists the rules."""
        with pytest.raises(AnalysisError, match=r"compat='fast'.*crisp"):
            critical_path(empty_spans(), compat="fast")

    def test_a_table_that_is_none_is_refused(self):
        """A clear error at the door."""
        with pytest.raises(SchemaError, match="columns"):
            critical_path(pd.DataFrame({"a": [1]}))


class TestTables:
    def table(self) -> pd.DataFrame:
        query = S("stock", "SELECT stock", 20, 50, kind="client")
        server = S("stock", "POST /reserve", 15, 55, kind="server", children=[query])
        call = S("order", "POST stock", 10, 60, kind="client", children=[server])
        return spans([S("order", "POST /orders", 0, 100, kind="server", children=[call])])

    def test_the_columns_callers_rely_on_are_there(self):
        """The contract with the report, the command line and the notebooks."""
        found = critical_path(self.table()).table
        wanted = "entity kind service name caller callee calls exclusive_ns mean_ms p50_ms p95_ms p99_ms"
        assert [*wanted.split(), "share_ratio"] == found.columns[:13].tolist()
        edge = found.set_index("entity").loc["order -> stock"]
        assert (edge["kind"], edge["caller"], edge["callee"], edge["share_ratio"]) == (
            "edge",
            "order",
            "stock",
            0.1,
        )
        assert edge["exemplar_trace_ids"] == [trace_id(1)]
        assert found["share_ratio"].is_monotonic_decreasing

    def test_a_path_is_a_walk_through_time(self):
        """Stretches follow each other without a hole, from the root's start to its end."""
        path = critical_path(self.table()).path(trace_id(1))
        assert path["entity"].tolist() == [
            "order: POST /orders",
            "order -> stock",
            "stock: POST /reserve",
            "stock: SELECT stock",
            "stock: POST /reserve",
            "order -> stock",
            "order: POST /orders",
        ]
        assert ((path["start_ns"] - EPOCH_NS) / 1e6).tolist() == [0, 10, 15, 20, 50, 55, 60]
        assert (path["duration_ns"] / 1e6).tolist() == [10, 5, 5, 30, 5, 5, 40]

    def test_the_path_of_an_unknown_trace_names_some_there_are(self):
        """The message helps on."""
        with pytest.raises(AnalysisError, match=f"'nope'.*such as {trace_id(1)}"):
            critical_path(self.table()).path("nope")

    def test_stacks_hold_all_the_time_there_is(self):
        """Folded, root first, with the names of every other table."""
        stacks = critical_path(self.table()).stacks.set_index("stack")["exclusive_ns"] / 1e6
        assert stacks.to_dict() == {
            "order: POST /orders": 50,
            "order: POST /orders;order -> stock": 10,
            "order: POST /orders;order -> stock;stock: POST /reserve": 10,
            "order: POST /orders;order -> stock;stock: POST /reserve;stock: SELECT stock": 30,
        }

    def test_it_shows_itself_escaped(self):
        """Names come from strangers."""
        shown = critical_path(spans([S("<script>", "x", 0, 1)]))._repr_html_()
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown


class TestBadInput:
    def test_no_span(self):
        """Empty in, empty out, with all columns."""
        found = critical_path(empty_spans())
        assert (len(found.table), len(found.entries), len(found.stacks)) == (0, 0, 0)
        assert "share_ratio" in found.table
        assert "0 requests" in repr(found)

    def test_all_zero_durations(self):
        """Nothing to share, nothing divided by zero."""
        found = critical_path(spans([S("a", "top", 0, 0, children=[S("a", "child", 0, 0)])]))
        assert found.table["share_ratio"].tolist() == [0.0, 0.0]

    def test_a_cycle_is_no_request(self):
        """Spans that name each other as parent are counted and left out."""
        ring = [S("a", "x", 0, 9, span_id=1, parent_span_id=2, trace=1)]
        ring += [S("a", "y", 1, 8, span_id=2, parent_span_id=1, trace=1)]
        found = critical_path(spans(ring))
        assert (len(found.entries), found.counts["cycles"]) == (0, 1)

    def test_20000_deep(self):
        """No recursion: depth costs what its spans cost; stacks are folded at a depth people read."""
        top = S("a", "s", 0, 20_000)
        span = top
        for level in range(1, 20_000):
            span.children = [S("a", "s", 0, 20_000 - level, host=f"h{level % 2}")]
            span = span.children[0]
        found = critical_path(spans([top]))
        assert found.table["exclusive_ns"].tolist() == [20_000 * 10**6]
        assert len(found.stacks) == 64

    def test_5000_wide(self):
        """Many overlapping children are looked at once each."""
        children = [S("a", "child", i / 100, 60 + i / 100) for i in range(5000)]
        found = critical_path(spans([S("a", "top", 0, 200, children=children)]))
        assert found.table["exclusive_ns"].sum() == 200 * 10**6


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(SEEDS, st.booleans())
    def test_it_agrees_with_the_naive_walk(self, seed, is_cruel):
        """The same time to the nanosecond in every trace and entity."""
        table = cruel(seed) if is_cruel else random_forest(seed)
        expected = {key: value for key, value in naive_exclusive(table).items() if value}
        assert {key: value for key, value in by_trace(table).items() if value} == expected

    @settings(max_examples=40, deadline=None)
    @given(SEEDS)
    def test_exclusive_times_sum_to_the_root(self, seed):
        """Exactly, whatever the input looks like, under both rules."""
        table = cruel(seed)
        for compat in (None, "crisp"):
            found = critical_path(table, compat)
            sums = found.exclusive.groupby("request")["exclusive_ns"].sum()
            assert sums.tolist() == found.entries["duration_ns"].tolist()
            assert found.stacks["exclusive_ns"].sum() == found.entries["duration_ns"].sum()
            assert (found.exclusive["exclusive_ns"] >= 0).all()

    @settings(max_examples=30, deadline=None)
    @given(SEEDS)
    def test_order_and_duplicates_change_nothing(self, seed):
        """A file read twice, or backwards, is the same file."""
        table = cruel(seed)
        twice = concat_spans([table, table]).sample(frac=1, random_state=seed % 1000)
        first, second = critical_path(table), critical_path(twice)
        columns = ["entity", "calls", "exclusive_ns", "share_ratio", "covered_ns", "exemplar_trace_ids"]
        assert first.table[columns].values.tolist() == second.table[columns].values.tolist()
        assert second.counts["duplicates"] == first.counts["duplicates"] + len(table)

    @settings(max_examples=30, deadline=None)
    @given(SEEDS)
    def test_shifted_clocks_leave_operations_as_they_were(self, seed):
        """Hosts up to 50 ms apart: operation totals and gap totals stay."""
        table = random_forest(seed)
        shifts = {
            host: int(s)
            for host, s in zip(
                sorted(table["host"].unique()),
                np.random.default_rng(seed).integers(-50, 51, 20) * 10**6,
                strict=False,
            )
        }
        shifted = table.assign(start_ns=table["start_ns"] + table["host"].map(shifts).astype("int64"))
        # consumers of other hosts run on their own clock: they are not on a path either way
        assert by_trace(shifted) == by_trace(table)


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


def cruel(seed: int) -> pd.DataFrame:
    """Return a random table with broken times, lost parents, duplicates and clocks that disagree."""
    table = random_forest(seed, traces=3)
    rng = np.random.default_rng(seed)
    size = len(table)
    jitter = rng.choice([0, 0, 0, 1000, 40_000, 900_000, 30_000_000, -5_000_000], size)
    start = table["start_ns"] + jitter
    # coarse times make ties
    start = start if seed % 2 else start // 1_000_000 * 1_000_000
    duration = table["duration_ns"] * rng.choice([0, 1, 1, 1, 2], size) if seed % 3 else table["duration_ns"]
    parent = table["parent_span_id"].where(rng.random(size) > 0.03, np.uint64(12345)).astype("uint64")
    parent = parent.where(table["parent_span_id"] != 0, table["parent_span_id"])
    hosts = pd.Categorical(rng.choice(["h1", "h2", "h3"], size))
    changed = table.assign(start_ns=start, duration_ns=duration, parent_span_id=parent, host=hosts)
    return concat_spans([changed, changed.head(size // 4)])
