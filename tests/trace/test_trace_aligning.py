"""Moving trees onto one clock, against the rule applied span by span from the top."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.trace.aligning import move_trees

_ROW = st.tuples(
    st.integers(-1, 20), st.integers(0, 50), st.integers(0, 30), st.integers(-40, 40), st.booleans()
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ROW, min_size=1, max_size=20))
def test_each_span_moves_with_its_parent(rows):
    """By the parent's shift and, a call, by its offset; what still sticks out of its parent is centred."""
    # Given spans whose parents come before them
    parent = [min(row[0], place - 1) for place, row in enumerate(rows)]
    raw, duration, offset = ([row[at] for row in rows] for at in (1, 2, 3))
    is_call = [row[4] and parent[place] >= 0 for place, row in enumerate(rows)]
    # When
    arrays = [np.array(values, dtype=np.int64) for values in (parent, raw, duration)]
    pair = np.where(is_call, np.arange(len(rows)), -1).astype(np.int32)
    start, shifted, centred = move_trees(
        np.arange(len(rows)), *arrays, pair, np.array(offset, dtype=np.int64)
    )
    # Then
    expected, middle = [], 0
    for place in range(len(rows)):
        above = parent[place]
        if above < 0:
            expected.append(raw[place])
            continue
        moved = raw[place] + expected[above] - raw[above]
        if is_call[place]:
            moved -= offset[place]
            room = duration[above] - duration[place]
            if room >= 0 and not expected[above] <= moved <= expected[above] + room:
                moved = expected[above] + room // 2
                middle += 1
        expected.append(moved)
    assert start.tolist() == expected
    assert centred == middle
    assert shifted == sum(one != other for one, other in zip(expected, raw, strict=True))
