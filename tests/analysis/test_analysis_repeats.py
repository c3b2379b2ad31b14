"""Time between calls made over and over goes with the calls, if it is of their order."""

from __future__ import annotations

import pandas as pd
import pytest

from perflab.analysis.bottleneck import bottlenecks
from perflab.analysis.criticalpath import critical_path
from perflab.analysis.repeats import calls_per_parent, find_loop
from perflab.testing import S, spans


def looping(
    calls: int, call_ms: float, between_ms: float, *, names: tuple[str, ...] = ("SELECT item",)
) -> pd.DataFrame:
    """Return 60 requests that do 2 ms of work, then call, one call after the other, then 2 ms of work."""
    requests = []
    for number in range(60):
        at = begin = 1000.0 * number
        at += 2
        children = []
        for place in range(calls):
            children.append(S("shop", names[place % len(names)], at, at + call_ms, kind="client"))
            at += call_ms + (between_ms if place < calls - 1 else 2)
        requests.append(S("shop", "GET /items", begin, at, kind="server", children=children))
    return spans(requests)


def test_calls_are_named_with_what_lies_between_them():
    """20 calls of 1 ms, 1.5 ms apart: the operation has most time, but goes with the calls."""
    table = looping(20, 1.0, 1.5)
    loop = find_loop(critical_path(table).walked, "shop: GET /items")
    assert loop is not None
    assert (loop.entity, loop.between_ms) == ("shop: SELECT item", pytest.approx(19 * 1.5))
    assert loop.between_ratio == pytest.approx(28.5 / 32.5)
    found = bottlenecks(table)
    assert found.table["entity"].tolist() == ["shop: GET /items", "shop: SELECT item"]
    assert found.first["entity"] == "shop: SELECT item"
    assert (found.first["loops_in"], found.first["pattern"]) == ("shop: GET /items", "N+1 queries")
    assert "28.5 ms more of shop: GET /items's own time lie between these calls" in found.sentence
    assert "88% of the own time of shop: GET /items, lie between such calls" in found.first["evidence"]


def test_calls_of_two_kinds_in_turn_are_one_loop():
    """As with a statement and the end of its transaction; the one with more time is named."""
    loop = find_loop(
        critical_path(looping(20, 1.0, 1.5, names=("ROLLBACK", "SELECT item"))).walked, "shop: GET /items"
    )
    assert loop is not None
    assert loop.between_ms == pytest.approx(28.5)


@pytest.mark.parametrize(
    ("calls", "call_ms", "between_ms"),
    [
        (4, 1.0, 1.5),  # too few calls
        (20, 1.0, 4.0),  # long work on every item is work
        (20, 1.0, 0.1),  # hardly anything lies between them
    ],
)
def test_an_operation_is_named_itself_where_its_time_is_its_own(calls, call_ms, between_ms):
    """No loop is found."""
    table = looping(calls, call_ms, between_ms)
    assert find_loop(critical_path(table).walked, "shop: GET /items") is None
    assert "loops_in" not in (bottlenecks(table).first or {})


def test_calls_and_what_lies_between_them_stand_out_together():
    """17 ms of the operation's own, 14 of calls: neither stands out alone; 13 of the 17 go with the calls."""
    found = bottlenecks(looping(14, 1.0, 1.0))
    assert found.table["gain_ms"].tolist() == pytest.approx([17.0, 14.0])
    assert (found.first["entity"], found.first["loop_ms"]) == ("shop: SELECT item", pytest.approx(13.0))
    assert found.table["stands_out"].tolist() == [False, True]


def test_against_a_baseline_the_calls_come_first():
    """An N+1 that is new: what is named is put before the operation."""
    found = bottlenecks(looping(20, 1.0, 1.5), baseline=looping(1, 1.0, 0.0))
    assert found.first["entity"] == "shop: SELECT item"
    assert found.table["entity"].iloc[0] == "shop: SELECT item"
    assert "shop: GET /items calls it over and over" in found.sentence


def test_calls_per_parent():
    """Roots follow nobody; 12 under one parent are 12."""
    walked = critical_path(looping(12, 1.0, 1.0)).walked
    found = dict(zip(walked.entities.names, calls_per_parent(walked).tolist(), strict=True))
    assert found == {"shop: GET /items": 1.0, "shop: SELECT item": 12.0}
