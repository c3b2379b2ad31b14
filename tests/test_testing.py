"""Span literals and random forests are span tables of what they say."""

import asyncio
import json
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.testing import EPOCH_NS, FakeClock, S, random_forest, spans, trace_id
from perflab.trace.schema import check_spans
from perflab.trace.tree import link


def test_literals_become_rows_depth_first():
    """Ids are counted, times are since the epoch of literals, the mark is inherited."""
    # When
    table = spans(
        [
            S(
                "perflab",
                "checkout",
                0,
                100,
                kind="client",
                shadow=True,
                scheduled_ms=-2,
                outcome="answered",
                children=[
                    S("gateway", "POST /orders", 1, 99.5, kind="server", attributes={"b": 1, "a": [2]}),
                    S("gateway", "mail", 5, 6, shadow=False, links=[{"trace_id": "x"}]),
                ],
            ),
            S("gateway", "GET /", 200, 201, span_id=7, parent_span_id=9, status="error", host="h"),
        ]
    )
    # Then
    check_spans(table)
    assert table["trace_id"].tolist() == [trace_id(1)] * 3 + [trace_id(2)]
    assert table["span_id"].tolist() == [1, 2, 3, 7]
    assert table["parent_span_id"].tolist() == [0, 1, 1, 9]
    assert (table["start_ns"] - EPOCH_NS).tolist() == [0, 1_000_000, 5_000_000, 200_000_000]
    assert table["duration_ns"].tolist() == [100_000_000, 98_500_000, 1_000_000, 1_000_000]
    assert table["scheduled_ns"].tolist() == [EPOCH_NS - 2_000_000, 0, 0, 0]
    assert table["shadow"].tolist() == [True, True, False, False]
    assert table["attributes"].tolist() == ["", '{"a": [2], "b": 1}', "", ""]
    assert json.loads(table["links"][2]) == [{"trace_id": "x"}]
    assert table["outcome"].tolist() == ["answered", "", "", ""]
    assert len(spans([])) == 0


def test_traces_named_by_hand_keep_their_numbers():
    """Top spans may share a trace; the others are numbered around it."""
    table = spans(
        [S("a", "x", 0, 1, trace=1), S("a", "x", 0, 1), S("a", "x", 0, 1, trace=1), S("a", "x", 0, 1)]
    )
    assert [int(text, 16) for text in table["trace_id"]] == [1, 2, 1, 3]


def test_a_literal_may_be_deep():
    """Twenty thousand levels are no recursion."""
    tree = S("a", "leaf", 0, 1)
    for _ in range(20_000):
        tree = S("a", "x", 0, 1, children=[tree])
    assert link(spans([tree])).depth.max() == 20_000


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_random_forests_are_what_a_tracer_could_have_written(seed, asynchronous, generated):
    """Ids are unique, parents exist, all but consumers lie within them, servers are under clients."""
    # When
    table = random_forest(seed, traces=3, max_spans=20, asynchronous=asynchronous, generated=generated)
    # Then
    forest = link(check_spans(table))
    counts = (forest.traces, forest.roots, forest.orphans, forest.duplicates, forest.cycles)
    assert counts == (3, 3, 0, 0, 0)
    assert table["trace_id"].value_counts().max() <= 20
    assert table["span_id"].is_unique
    rows = table.to_dict("records")
    for row, parent in zip(rows, forest.parent_row, strict=True):
        if parent < 0:
            assert row["service"] == ("perflab" if generated else "gateway")
            assert (row["scheduled_ns"] > 0) == generated
            continue
        above = rows[parent]
        assert row["shadow"] == above["shadow"] == generated
        if row["kind"] == "consumer":
            assert above["kind"] == "producer"
            continue
        assert above["start_ns"] <= row["start_ns"]
        assert row["start_ns"] + row["duration_ns"] <= above["start_ns"] + above["duration_ns"]
        if row["kind"] == "server":
            assert above["kind"] == "client"
            assert above["service"] != row["service"]
        else:
            assert above["service"] == row["service"]
    assert asynchronous or not set(table["kind"]) & {"producer", "consumer"}


def test_random_forests_are_repeatable():
    """The same seed, or a source in the same state, gives the same table."""
    pd.testing.assert_frame_equal(random_forest(5), random_forest(random.Random(5)))
    one, other = (random_forest(np.random.default_rng(5)) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
    assert len(random_forest(5, traces=0)) == 0


def test_the_clock_stands_still_until_it_is_turned():
    """All its faces show the same time; it does not go backwards."""
    clock = FakeClock(5)
    clock.advance("2s")
    clock.advance(0.5)
    asyncio.run(clock.sleep(0.25))
    assert clock.time_ns() == clock.monotonic_ns() == 2_750_000_005
    assert clock.time() == clock.monotonic() == pytest.approx(2.75)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
