"""Linking in machine code: big, deep, wide and hostile traces; the rules of links are in test_trace_tree."""

from __future__ import annotations

import time

import numpy as np
import pytest

from perflab.trace.linking import link_rows


def linked(trace, span_id, parent_id, start=None, kind=None):
    """Return parent, depth, head, order, offsets, orphans, doubles, cycles; a smaller kind is preferred."""
    size = len(span_id)
    links = np.empty((3, size), dtype=np.int64)
    placed, offsets, depth, _, *rest = link_rows(
        np.array(trace, dtype=np.int64),
        int(max(trace, default=-1)) + 1,
        np.array(span_id, dtype=np.uint64),
        np.array(parent_id, dtype=np.uint64),
        np.zeros(size, dtype=np.int32) if kind is None else np.array(kind, dtype=np.int32),
        np.arange(9),
        np.arange(9, dtype=np.int8),
        np.zeros(size, dtype=np.int64) if start is None else np.array(start, dtype=np.int64),
        links,
    )
    return links[0], depth, links[1], links[2][:placed], offsets, *rest


def test_a_deep_chain_is_climbed_once():
    """20,000 nested spans, children first in the table."""
    size = 20_000
    ids = np.arange(size, 0, -1)
    parent, depth, head, order, *_ = linked([0] * size, ids, ids - 1)
    assert depth.tolist() == list(range(size - 1, -1, -1))
    assert set(head.tolist()) == {size - 1}
    assert order.tolist() == list(range(size - 1, -1, -1))
    assert parent[:-1].tolist() == list(range(1, size))


def test_rings_below_and_beside_each_other_are_each_cut_once():
    """At their earliest span; what hangs below one keeps its place."""
    # Given a ring 1-2-3 with a tail 4-5, and a span that is its own parent
    span_id, parent_id, start = [1, 2, 3, 4, 5, 9], [3, 1, 2, 3, 4, 9], [5, 4, 6, 0, 0, 0]
    # When
    parent, depth, head, _, _, is_orphan, doubles, cycles = linked([0] * 6, span_id, parent_id, start)
    # Then span 2 is on top
    assert cycles == 2
    assert parent.tolist() == [2, -1, 1, 2, 3, -1]
    assert depth.tolist() == [2, 0, 1, 2, 3, 0]
    assert head.tolist() == [1, 1, 1, 1, 1, 5]
    assert is_orphan.tolist() == [False, True, False, False, False, True]
    assert doubles.tolist() == []


def test_ids_that_share_their_low_bits_cost_no_more():
    """Span ids in steps of 2^32 fill the table as others do (a ratio of CPU time, generous)."""
    size = 40_000

    def cost(step: int) -> float:
        ids = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(step)
        began = time.process_time()
        linked([0] * size, ids, np.concatenate([np.zeros(1, dtype=np.uint64), ids[:-1]]))
        return time.process_time() - began

    cost(1)
    assert min(cost(1 << 32) for _ in range(3)) < 8 * min(cost(1) for _ in range(3)) + 0.05


@pytest.mark.parametrize("shuffled", [False, True])
def test_traces_are_kept_apart_wherever_their_rows_are(shuffled):
    """The same span ids in 300 traces, in any order of rows."""
    traces, size = 300, 7
    trace = np.repeat(np.arange(traces), size)
    span_id = np.tile(np.arange(1, size + 1), traces)
    parent_id = span_id // 2
    places = np.random.default_rng(1).permutation(len(trace)) if shuffled else np.arange(len(trace))
    parent, depth, _, _, offsets, *_ = linked(trace[places], span_id[places], parent_id[places])
    known = parent >= 0
    assert (trace[places][parent[known]] == trace[places][known]).all()
    assert (span_id[places][parent[known]] == parent_id[places][known]).all()
    assert np.bincount(depth).tolist() == [traces, 2 * traces, 4 * traces]
    assert np.diff(offsets).tolist() == [size] * traces


@pytest.mark.parametrize("size", [1, 2, 4, 7, 31, 32, 33, 200])
def test_rings_of_any_length_are_cut(size):
    """Climbing by powers of two comes back to where it was: that is no head."""
    ids = np.arange(1, size + 1)
    start = np.roll(np.arange(size), size // 3)
    parent, depth, head, order, _, is_orphan, _, cycles = linked([0] * size, ids, np.roll(ids, 1), start)
    first = int(np.argmin(start))
    assert (cycles, parent[first], int(is_orphan.sum())) == (1, -1, 1)
    assert set(head.tolist()) == {first}
    assert order.tolist() == [(first + at) % size for at in range(size)]
    assert depth[order].tolist() == list(range(size))


@pytest.mark.parametrize("size", [30, 300])
@pytest.mark.parametrize("spread", [3, 10**9, 2**61])
def test_spans_are_in_order_of_depth_then_start_then_id(size, spread):
    """Also where starts are level, or further apart than a small trace is sorted by at once."""
    chance = np.random.default_rng(size)
    span_id = chance.permutation(size) + 1
    parent_id = np.where(span_id > 1, (span_id + 1) // 3, 0)
    start = chance.integers(-spread, spread, size)
    _, depth, _, order, *_ = linked([0] * size, span_id, parent_id, start)
    assert order.tolist() == sorted(range(size), key=lambda row: (depth[row], start[row], span_id[row]))
