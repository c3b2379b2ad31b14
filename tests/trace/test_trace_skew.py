"""Clock offsets between hosts, and spans on one clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.errors import SchemaError
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import empty_spans
from perflab.trace.skew import align, clock_offsets
from perflab.trace.tree import link

MS = 1_000_000


def call(start: float, end: float, server_start: float, server_end: float, **extra: object) -> S:
    server = S("stock", "GET /", server_start, server_end, kind="server", host="b", **extra)
    return S("order", "GET stock", start, end, kind="client", host="a", children=[server])


class TestClockOffsets:
    def test_the_fastest_ways_bound_the_offset(self):
        """(min forward gap - min backward gap) / 2 over all calls of the pair."""
        # Given a callee 1000 ms ahead; forward gaps 2 and 6, backward gaps 9 and 4 ms
        table = spans([call(0, 100, 1002, 1091), call(200, 300, 1206, 1296)])
        # When
        found = clock_offsets(table)
        # Then it lies between 996 (the second call ends in time) and 1002 (the first begins in time)
        assert found[["caller_host", "callee_host", "calls", "agreeing"]].values.tolist() == [
            ["a", "b", 2, 2]
        ]
        assert found["offset_ns"].tolist() == [999 * MS]

    def test_a_call_that_outlived_its_client_is_outvoted(self):
        """One abandoned call must not shift all the others."""
        # Given three ordinary calls on one clock, and one callee that ended 30 ms after its client
        calls = [call(start, start + 100, start + 1, start + 99) for start in (0, 200, 400)]
        table = spans([*calls, call(600, 700, 650, 730)])
        # When
        found = clock_offsets(table)
        # Then
        assert (found["calls"][0], found["agreeing"][0], found["offset_ns"][0]) == (4, 3, 0)

    def test_callees_longer_than_their_clients_bound_one_side_only(self):
        """With nothing else to go by, the fastest way there takes no time."""
        table = spans([call(0, 10, 105, 135), call(50, 60, 152, 200)])
        found = clock_offsets(table)
        assert (found["agreeing"][0], found["offset_ns"][0]) == (0, 102 * MS)

    def test_one_host_has_one_clock(self):
        """No pair, no row."""
        inner = S("stock", "GET /", 5, 6, kind="server", host="a")
        assert clock_offsets(
            spans([S("order", "GET", 0, 9, kind="client", host="a", children=[inner])])
        ).empty
        assert clock_offsets(empty_spans()).empty

    def test_another_table_is_refused(self):
        """A clear error at the door."""
        with pytest.raises(SchemaError):
            clock_offsets(empty_spans().drop(columns="host"))


class TestAlign:
    def test_a_subtree_moves_as_a_whole(self):
        """The callee and all below it; raw times stay."""
        query = S("stock", "SELECT", 1020, 1030, kind="client", host="b")
        table = spans([call(0, 100, 1010, 1090, children=[query])])
        raw = table["start_ns"].copy()
        found = align(table, link(table))
        assert ((found.start_ns - raw[0]) // MS).tolist() == [0, 10, 20]
        assert (found.shifted, found.centred) == (2, 0)
        assert table["start_ns"].equals(raw)

    def test_a_callee_that_still_sticks_out_is_centred(self):
        """The pair's offset is right for two calls; the third had another clock."""
        table = spans([call(0, 100, 10, 90), call(200, 300, 210, 290), call(400, 500, 380, 440)])
        found = align(table, link(table))
        starts = (found.start_ns - found.start_ns[0]) // MS
        assert (starts.tolist(), found.centred) == ([0, 10, 200, 210, 400, 420], 1)

    def test_offsets_add_up_along_a_chain(self):
        """A -> b -> c with three clocks."""
        last = S("c", "GET /c", 70_030, 70_050, kind="server", host="c")
        middle = S("b", "GET c", 1020, 1060, kind="client", host="b", children=[last])
        first = S("b", "GET /b", 1010, 1090, kind="server", host="b", children=[middle])
        table = spans([S("a", "GET b", 0, 100, kind="client", host="a", children=[first])])
        found = align(table, link(table))
        assert ((found.start_ns - found.start_ns[0]) // MS).tolist() == [0, 10, 20, 30]

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32))
    def test_what_clocks_say_changes_nothing(self, seed):
        """Shifting hosts by any amount leaves each start, relative to its head's, where it was."""
        table = random_forest(seed, asynchronous=False)
        rng = np.random.default_rng(seed)
        shifts = {host: int(rng.integers(-50 * MS, 50 * MS)) for host in table["host"].cat.categories}
        moved = table.assign(start_ns=table["start_ns"] + table["host"].map(shifts).astype("int64"))
        forest = link(table)
        before, after = align(table, forest).start_ns, align(moved, forest).start_ns
        assert (after - after[forest.head_row] == before - before[forest.head_row]).all()
