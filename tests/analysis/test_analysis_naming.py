"""Callees and numbers of entities in machine code, against Python; test_analysis_entity tries the names."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.naming import choose_callees, number_entities
from perflab.trace.schema import KINDS

_ROWS = st.lists(
    st.tuples(st.integers(-1, 20), st.integers(0, len(KINDS)), st.integers(-1, 2), st.integers(1, 4)),
    max_size=21,
)


@settings(max_examples=200, deadline=None)
@given(_ROWS)
def test_the_best_child_elsewhere_is_the_callee(rows):
    """A SERVER before others, then the smaller id, then the earlier row; only CLIENT spans have one."""
    size = len(rows)
    parent = [min(row[0], size - 1) for row in rows]
    kind, service, ids = ([row[at] for row in rows] for at in (1, 2, 3))
    found = choose_callees(
        np.array(parent, dtype=np.int64),
        np.array(kind, dtype=np.int8),
        np.array(service, dtype=np.int32),
        np.array(ids, dtype=np.uint64),
    )
    for row in range(size):
        able = [
            (KINDS[kind[child] : kind[child] + 1] != ("server",), ids[child], child)
            for child in range(size)
            if parent[child] == row
            and kind[row] == KINDS.index("client")
            and kind[child] != KINDS.index("consumer")
            and service[child] != service[row]
        ]
        assert found[row] == (min(able)[-1] if able else -1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 20), st.integers(-1, 2), st.integers(-1, 3)), max_size=21))
def test_one_number_stands_for_one_pair_of_names(rows):
    """Service and name of an operation, both services of an edge; what has no name counts as one."""
    callee = [min(row[0], len(rows) - 1) for row in rows]
    service, name = ([row[at] for row in rows] for at in (1, 2))
    number, keys = number_entities(
        np.array(callee, dtype=np.int64),
        np.array(service, dtype=np.int32),
        np.array(name, dtype=np.int32),
        5,
    )
    expected = [
        (below >= 0, service[row], service[below] if below >= 0 else name[row])
        for row, below in enumerate(callee)
    ]
    found = [(key // 25, key // 5 % 5 - 1, key % 5 - 1) for key in keys[number].tolist()]
    assert found == expected
    assert len(keys) == len(set(expected))
