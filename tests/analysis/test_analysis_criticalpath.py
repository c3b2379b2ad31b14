"""The critical path: what is left out, broken input, and properties against a naive walk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traces import cruel, nested, times
from naive_walk import naive_exclusive

from perflab.analysis.criticalpath import critical_path
from perflab.errors import AnalysisError, SchemaError
from perflab.testing import S, random_forest, spans, trace_id
from perflab.trace.schema import concat_spans, empty_spans

SEEDS = st.integers(0, 2**32)


def by_trace(table: pd.DataFrame) -> dict[tuple[str, str], int]:
    found = (
        critical_path(table).exclusive.groupby(["trace_id", "entity"], observed=True)["exclusive_ns"].sum()
    )
    return {(str(trace), str(entity)): int(value) for (trace, entity), value in found.items()}


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
    def test_the_columns_callers_rely_on_are_there(self):
        """The contract with the report, the command line and the notebooks."""
        found = critical_path(nested()).table
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

    def test_the_path_of_an_unknown_trace_names_some_there_are(self):
        """The message helps on."""
        with pytest.raises(AnalysisError, match=f"'nope'.*such as {trace_id(1)}"):
            critical_path(nested()).path("nope")

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
