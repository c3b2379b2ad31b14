"""Sums and ranks in machine code, against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.summing import most_per_group, sort_by_group, sum_by, sum_per_request

_ROWS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 5), st.integers(0, 9)), max_size=60)


def columns(rows):
    return [np.array([row[at] for row in rows], dtype=np.int64) for at in range(3)]


@settings(max_examples=100, deadline=None)
@given(_ROWS)
def test_times_are_summed_per_request_and_entity(rows):
    """What belongs to no request is left out; sorted by both."""
    request, entity, calls, exclusive = sum_per_request(*columns(rows), 5, 6)
    frame = pd.DataFrame(rows, columns=["request", "entity", "ns"])
    frame = frame[frame["request"] >= 0]
    expected = frame.groupby(["request", "entity"])["ns"].agg(["size", "sum"]).reset_index()
    assert request.tolist() == expected["request"].tolist()
    assert entity.tolist() == expected["entity"].tolist()
    assert calls.tolist() == expected["size"].tolist()
    assert exclusive.tolist() == expected["sum"].tolist()


@settings(max_examples=60, deadline=None)
@given(_ROWS)
def test_values_are_sorted_group_by_group(rows):
    """An entity without calls is an empty stretch."""
    _, code, values = columns(rows)
    ascending, offsets = sort_by_group(values, code, 6)
    for group in range(6):
        found = ascending[offsets[group] : offsets[group + 1]].tolist()
        assert found == sorted(values[code == group].tolist())


@settings(max_examples=100, deadline=None)
@given(_ROWS)
def test_the_heaviest_of_each_group_come_first(rows):
    """Three at most; of level ones the smaller tie."""
    _, code, weight = columns(rows)
    tie = np.arange(len(rows))[::-1].copy()
    found = most_per_group(code, weight, tie, 6, 3)
    for group in range(6):
        places = sorted(np.flatnonzero(code == group).tolist(), key=lambda at: (-weight[at], tie[at]))
        assert found[group].tolist() == [*places[:3], *[-1] * (3 - len(places[:3]))]


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 5), st.integers(-(2**55), 2**55)), max_size=40))
def test_values_are_summed_exactly(rows):
    """Group by group, beyond what a float holds."""
    codes, values = (np.array([row[at] for row in rows], dtype=np.int64) for at in (0, 1))
    expected = [sum(value for code, value in rows if code == group) for group in range(6)]
    assert sum_by(codes, values, 6).tolist() == expected
