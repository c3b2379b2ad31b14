"""Sums over critical paths that add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.bottleneck import bottlenecks
from perflab.analysis.partial import PathSums
from perflab.analysis.traversal import Surroundings, traverse
from perflab.testing import S, random_forest, spans
from perflab.trace.schema import concat_spans
from perflab.trace.skew import clock_offsets

EVER = (0, 2 * 10**18)


def summed(*tables: pd.DataFrame, time: tuple[int, int] = EVER, near: Surroundings | None = None) -> PathSums:
    """Return the sums over tables, one added after the other."""
    sums = PathSums(*time)
    for table in tables:
        traversal = traverse(table, surroundings=near)
        sums.add(traversal.walked, traversal.counts())
    return sums


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.lists(st.integers(0, 60), min_size=1, max_size=3))
def test_sums_of_parts_are_the_sums_of_the_whole(seed, cut):
    """However the traces are dealt out, added one by one or merged: nothing depends on it."""
    table = random_forest(seed, traces=60)
    number = table["trace_id"].cat.codes.to_numpy()
    part = np.searchsorted(np.sort(cut), number, side="right")
    parts = [table[part == at] for at in range(len(cut) + 1)]
    time = (int(table["start_ns"].min()), int(table["start_ns"].max()))
    near = Surroundings(False, clock_offsets(table), ())
    whole = summed(table, time=time, near=near)
    merged = PathSums(*time)
    for one in parts[::-1]:
        merged.merge(summed(one, time=time, near=near))
    for other in (summed(*parts, time=time, near=near), merged):
        assert (other.counts, other.weights()) == (whole.counts, whole.weights())
        for entry in (None, *whole.entries):
            pd.testing.assert_frame_equal(other.ranking(entry), whole.ranking(entry), check_exact=True)
            assert other.latency(0.9, entry) == whole.latency(0.9, entry)


def test_what_is_told_is_what_was_put_in():
    """By hand: two entry operations, one of which calls the store twice."""
    query = [S("shop", "SELECT", at, at + 3, kind="client") for at in (2, 6)]
    table = spans(
        [
            S("shop", "GET /a", 0, 10, kind="server", children=query),
            S("shop", "GET /b", 20, 24, kind="server"),
            S("shop", "GET /b", 30, 36, kind="server"),
        ]
    )
    sums = summed(table)
    assert sums.requests == 3
    assert sums.weights() == {"shop: GET /a": (1, 10_000_000), "shop: GET /b": (2, 10_000_000)}
    assert sums.latency(0.5) == pytest.approx(6e6, rel=0.002)
    assert sums.latency(0.5, "shop: GET /b") == pytest.approx(4e6, rel=0.002)
    columns = ["entity", "calls", "exclusive_ns", "gain_ms", "share_ratio", "requests", "calls_per_request"]
    assert sums.ranking()[columns].values.tolist() == [
        ["shop: GET /b", 2, 10_000_000, 10 / 3, 0.5, 2, 2 / 3],
        ["shop: SELECT", 2, 6_000_000, 2.0, 0.3, 1, 2 / 3],
        ["shop: GET /a", 1, 4_000_000, 4 / 3, 0.2, 1, 1 / 3],
    ]
    assert sums.ranking("shop: GET /a")[columns].values.tolist() == [
        ["shop: SELECT", 2, 6_000_000, 6.0, 0.6, 1, 2.0],
        ["shop: GET /a", 1, 4_000_000, 4.0, 0.4, 1, 1.0],
    ]


def test_exemplars_are_the_traces_with_most_of_it_the_earlier_first():
    """Also when they come in later parts."""
    lasting = [3, 9, 1, 9, 4, 8]
    parts = [
        spans([S("shop", "GET /", 100 * at, 100 * at + ms, kind="server")]) for at, ms in enumerate(lasting)
    ]
    names = [f"{at:032x}" for at in range(len(parts))]
    parts = [part.assign(trace_id=pd.Categorical([name])) for part, name in zip(parts, names, strict=True)]
    for some in (parts, parts[::-1]):
        assert summed(*some).ranking()["exemplar_trace_ids"].tolist() == [[names[1], names[3], names[5]]]


def test_long_histories_add_up_exactly():
    """Hundreds of days of nanoseconds are more than a float holds."""
    day_ms = 24 * 3_600_000
    table = spans([S("batch", "run", at, at + 100 * day_ms + at, kind="server") for at in range(100)])
    sums = summed(concat_spans([table]))
    assert sums.ranking()["exclusive_ns"].tolist() == [100 * 100 * day_ms * 10**6 + 4950 * 10**6]
    assert bottlenecks(table).table["exclusive_ns"].tolist() == sums.ranking()["exclusive_ns"].tolist()


def test_sums_over_different_times_do_not_mix():
    """Their slices of time are not the same."""
    with pytest.raises(ValueError, match="different times"):
        PathSums(0, 10).merge(PathSums(0, 11))
