"""From a span table to walked traces, also when it is a part of one."""

from __future__ import annotations

import pandas as pd
import pytest

from perflab.analysis.traversal import Surroundings, refusals, traverse
from perflab.analysis.walk import ON_PATH
from perflab.testing import S, random_forest, spans
from perflab.trace.skew import clock_offsets

NO_CLOCKS = pd.DataFrame({name: [] for name in ("caller_host", "callee_host", "agreeing", "offset_ns")})


def call(early_ms: int) -> pd.DataFrame:
    """Return one request with a call to a host whose clock is behind."""
    answer = S("stock", "GET /", 20 - early_ms, 40 - early_ms, kind="server", host="b")
    asked = S("shop", "GET stock", 10, 50, kind="client", host="a", children=[answer])
    return spans([S("shop", "GET /", 0, 60, kind="server", host="a", children=[asked])])


def test_a_part_takes_what_the_whole_has():
    """Marked traces elsewhere leave out the unmarked ones here; without any, all are taken."""
    table = random_forest(1, traces=5)
    for has_marked, taken in ((True, 0), (False, 5)):
        traversal = traverse(table, surroundings=Surroundings(has_marked, NO_CLOCKS, ()))
        assert len(traversal.walked.roots) == taken
        assert traversal.counts()["real_traces_left_out"] == 5 - taken


@pytest.mark.parametrize("off_ms", [0, 5])
def test_known_clocks_are_used_and_unknown_ones_estimated(off_ms):
    """An offset that is told moves the callee there; the walk sees the gaps it leaves."""
    table = call(early_ms=500)
    clocks = clock_offsets(table)
    clocks["offset_ns"] += off_ms * 10**6
    for given, moved_ms in ((clocks, off_ms), (NO_CLOCKS, 0)):
        walked = traverse(table, surroundings=Surroundings(False, given, ())).walked
        begins = walked.walk.begin_ns[walked.rows(ON_PATH)]
        assert ((begins - begins[0]) / 10**6).tolist() == [0, 10, 20 - moved_ms]


def test_counts_of_parts_add_up():
    """Trace by trace, whatever was found in them."""
    table = random_forest(7, traces=30)
    number = table["trace_id"].cat.codes.to_numpy()
    whole = traverse(table).counts()
    near = Surroundings(False, clock_offsets(table), table["trace_id"].cat.categories)
    parts = [traverse(table[number % 3 == at], surroundings=near).counts() for at in range(3)]
    assert {name: sum(part[name] for part in parts) for name in whole} == whole


def test_what_was_left_out_is_said():
    """One sentence for each thing there was any of."""
    counts = {"real_traces_left_out": 0, "unanswered": 1200, "orphans": 0, "cycles": 3}
    assert [text.split(":")[0] for text in refusals(counts)] == [
        "1,200 requests were never answered",
        "3 cycles of spans that name each other as parent left out",
    ]
    assert refusals(dict.fromkeys(counts, 0)) == ()
