"""The compiled walk: depth, width and what it is given; its rule is tried in test_analysis_walk."""

from __future__ import annotations

import numpy as np
import pytest

from perflab.analysis.walk import ON_PATH
from perflab.analysis.walking import derive, walk_all
from perflab.trace.schema import KINDS


def walked(parent, start, end, crisp=False):
    size = len(parent)
    parent = np.array(parent, dtype=np.int64)
    no, yes = np.zeros(size, dtype=bool), np.ones(size, dtype=bool)
    times = np.empty((4, size), dtype=np.int64)
    lane, marks = walk_all(
        parent,
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.arange(1, size + 1, dtype=np.uint64),
        np.zeros(size, dtype=np.int8),
        np.arange(size),
        no,
        no,
        parent < 0,
        yes,
        crisp,
        size,
        times,
    )
    return lane, *times, marks


@pytest.mark.parametrize("crisp", [False, True])
def test_a_deep_trace_is_walked_to_its_bottom(crisp):
    """20,000 nested spans, each a nanosecond shorter at both ends."""
    size = 20_000
    places = np.arange(size)
    lane, _, _, exclusive, covered, *_ = walked(places - 1, places, 3 * size - places, crisp)
    assert (lane == ON_PATH).all()
    assert exclusive.tolist() == [2] * (size - 1) + [size + 2]
    assert not covered.any()


def test_a_wide_trace_is_walked_from_its_end():
    """5,000 children one after another in shuffled rows, and 5,000 that ran beside them."""
    size = 5_000
    begin = np.random.default_rng(3).permutation(size) * 1_000_000
    parent = [-1] + [0] * (2 * size)
    start = [0, *begin, *(begin + 100_000)]
    end = [size * 1_000_000, *(begin + 1_000_000), *(begin + 900_000)]
    lane, _, _, exclusive, covered, *_ = walked(parent, start, end)
    assert (lane[: size + 1] == ON_PATH).all()
    assert not lane[size + 1 :].any()
    assert exclusive[0] == 0
    assert exclusive.sum() == size * 1_000_000
    assert covered[0] == 0  # they ran while a child on the path did


def test_nothing_is_walked_where_there_is_nothing():
    """No span at all is no error."""
    *found, marks = walked([], [], [])
    assert [len(one) for one in found] == [0] * 5
    assert marks.shape == (3, 0)


def test_calls_and_messages_are_told_by_the_kinds_of_both():
    """SERVER below CLIENT, CONSUMER below PRODUCER; a head is neither. Nothing ends before it starts."""
    kinds = [KINDS.index(kind) for kind in ("client", "server", "producer", "consumer", "server", "consumer")]
    times = np.arange(6), np.array([5, 0, -3, 2, 1, -1])
    end, *found, negative = derive(np.array([-1, 0, 1, 2, 2, 0]), np.array(kinds, dtype=np.int8), *times)
    assert [np.flatnonzero(one).tolist() for one in found] == [[1], [3]]
    assert (end.tolist(), negative) == ([5, 1, 2, 5, 5, 5], 2)
