"""Bounds of clock offsets, against the rule applied call by call; test_trace_skew tries what follows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.trace.bounding import bound_offsets
from perflab.trace.schema import KINDS

_SERVER, _CLIENT = KINDS.index("server"), KINDS.index("client")
_ROW = st.tuples(
    st.integers(-1, 20), st.sampled_from([0, _SERVER, _CLIENT]), st.integers(-1, 2), st.integers(0, 50)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_ROW, st.integers(-5, 30)), max_size=21))
def test_each_call_bounds_the_offset_of_its_hosts(rows):
    """From SERVER spans below CLIENT spans of other hosts; of several calls the tightest bounds are kept."""
    # Given
    size = len(rows)
    parent = [min(row[0], size - 1) for row, _ in rows]
    kind, host, start = ([row[at] for row, _ in rows] for at in (1, 2, 3))
    duration = [took for _, took in rows]
    # When
    pair, keys, calls, highest, lowest = bound_offsets(
        np.array(parent, dtype=np.int64),
        np.array(kind, dtype=np.int8),
        np.array(host, dtype=np.int32),
        np.array(start, dtype=np.int64),
        np.array(duration, dtype=np.int64),
        4,
    )
    # Then
    bounds: dict[int, list[tuple[int, int]]] = {}
    for row, above in enumerate(parent):
        if above < 0 or (kind[above], kind[row]) != (_CLIENT, _SERVER) or host[above] == host[row]:
            assert pair[row] == -1
            continue
        key = (host[above] + 1) * 4 + host[row] + 1
        assert keys[pair[row]] == key
        early = start[row] - start[above]
        late = early + max(duration[row], 0) - max(duration[above], 0)
        bounds.setdefault(key, []).append((late, early))
    assert keys.tolist() == list(bounds)
    assert calls.tolist() == [len(some) for some in bounds.values()]
    assert highest.tolist() == [max(late for late, _ in some) for some in bounds.values()]
    assert lowest.tolist() == [min(early for _, early in some) for some in bounds.values()]
