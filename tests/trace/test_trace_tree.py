"""Trees of span tables against a row-by-row walk, and the broken shapes by hand."""

import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.errors import SchemaError
from perflab.testing import S, random_forest, spans, trace_id
from perflab.trace.schema import KINDS, empty_spans, span_table
from perflab.trace.tree import link

_ROWS = st.lists(
    st.tuples(
        st.integers(1, 2),  # trace
        st.integers(1, 6),  # span id
        st.integers(0, 7),  # parent span id
        st.sampled_from(KINDS),
        st.integers(0, 2),  # start
    ),
    max_size=14,
)


def _table(rows):
    trace, span_id, parent, kind, start = zip(*rows, strict=True) if rows else ([],) * 5
    return span_table(
        {
            "trace_id": [trace_id(number) for number in trace],
            "span_id": span_id,
            "parent_span_id": parent,
            "kind": kind,
            "start_ns": start,
            "service": ["s"] * len(rows),
            "name": ["n"] * len(rows),
            "duration_ns": [1] * len(rows),
        }
    )


def _link_naively(rows):
    """Link by the words of the docstring, one row at a time."""
    seen, duplicates, parents, is_orphan = set(), [], {}, {}
    for row, (trace, span_id, _, kind, _) in enumerate(rows):
        if (trace, span_id, kind) in seen:
            duplicates.append(row)
        seen.add((trace, span_id, kind))
    kept = [row for row in range(len(rows)) if row not in duplicates]
    preference = ["server", "consumer", "internal", "client", "producer"]
    for row in kept:
        trace, _, parent, _, _ = rows[row]
        found = [other for other in kept if rows[other][:2] == (trace, parent)]
        found.sort(key=lambda other: preference.index(rows[other][3]))
        parents[row] = found[0] if found else -1
        is_orphan[row] = parent != 0 and not found
    cut = set()
    for row in kept:
        walked = []
        while row not in walked and row != -1:
            walked.append(row)
            row = parents[row]
        if row != -1:
            cycle = walked[walked.index(row) :]
            cut.add(min(cycle, key=lambda other: (rows[other][4], rows[other][1], other)))
    for row in cut:
        parents[row], is_orphan[row] = -1, True
    depth, head = {}, {}
    for row in kept:
        steps, at = 0, row
        while parents[at] != -1:
            steps, at = steps + 1, parents[at]
        depth[row], head[row] = steps, at
    return parents, depth, head, is_orphan, duplicates, len(cut)


@settings(max_examples=300, deadline=None)
@given(_ROWS)
def test_link_equals_the_naive_walk(rows):
    """On tangled tables (duplicates, orphans, cycles, shared ids) arrays equal a row-by-row walk's."""
    # Given
    parents, depth, head, is_orphan, duplicates, cycles = _link_naively(rows)
    # When
    forest = link(_table(rows))
    # Then
    everywhere = range(len(rows))
    assert forest.parent_row.tolist() == [parents.get(row, -1) for row in everywhere]
    assert forest.depth.tolist() == [depth.get(row, -1) for row in everywhere]
    assert forest.head_row.tolist() == [head.get(row, -1) for row in everywhere]
    assert forest.is_orphan.tolist() == [is_orphan.get(row, False) for row in everywhere]
    assert forest.duplicate_rows.tolist() == duplicates
    assert (forest.duplicates, forest.cycles) == (len(duplicates), cycles)
    assert forest.roots == sum(rows[row][2] == 0 for row in parents)
    assert forest.orphans == sum(is_orphan.values()) - cycles
    assert forest.traces == len({row[0] for row in rows})


@settings(max_examples=100, deadline=None)
@given(_ROWS)
def test_order_has_each_row_once_parents_first_traces_together(rows):
    """``order`` is a permutation of the kept rows, trace by trace, in which parents precede children."""
    # When
    forest = link(_table(rows))
    # Then
    order = forest.order.tolist()
    assert sorted([*order, *forest.duplicate_rows.tolist()]) == list(range(len(rows)))
    place = {row: number for number, row in enumerate(order)}
    assert all(place[forest.parent_row[row]] < place[row] for row in order if forest.parent_row[row] >= 0)
    codes = forest.trace_code[forest.order]
    assert (np.diff(codes) >= 0).all()
    for trace in range(forest.traces):
        part = forest.order[forest.trace_offsets[trace] : forest.trace_offsets[trace + 1]]
        assert (forest.trace_code[part] == trace).all()
        assert part.size
    assert forest.trace_offsets[-1] == len(order)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_row_order_does_not_matter(seed):
    """Shuffled rows give the same parents, and the same order of spans."""
    # Given
    table = random_forest(seed, traces=3)
    shuffled = table.sample(frac=1, random_state=seed)
    # When
    one, other = link(table), link(shuffled)
    # Then
    ids, shuffled_ids = table["span_id"].to_numpy(), shuffled["span_id"].to_numpy()
    assert ids[one.order].tolist() == shuffled_ids[other.order].tolist()
    parents = dict(zip(ids, np.where(one.parent_row < 0, 0, ids[one.parent_row]), strict=True))
    for row, parent in enumerate(other.parent_row):
        assert parents[shuffled_ids[row]] == (shuffled_ids[parent] if parent >= 0 else 0)


def test_literal_with_orphan_duplicate_and_two_traces():
    """Counts and arrays of a small table, by hand."""
    # Given
    table = spans(
        [
            S("shop", "GET /", 0, 10, trace=7, children=[S("shop", "a", 1, 2), S("shop", "b", 3, 4)]),
            S("shop", "GET /", 5, 9),
            S("shop", "b", 3, 4, trace=7, span_id=3, parent_span_id=1),
            S("shop", "lost", 3, 4, trace=7, parent_span_id=99),
        ]
    )
    # When
    forest = link(table)
    # Then
    assert forest.parent_row.tolist() == [-1, 0, 0, -1, -1, -1]
    assert forest.depth.tolist() == [0, 1, 1, 0, -1, 0]
    assert forest.is_orphan.tolist() == [False] * 5 + [True]
    assert forest.trace_code.tolist() == [1, 1, 1, 0, 1, 1]
    assert forest.order.tolist() == [3, 0, 5, 1, 2]
    counts = (forest.traces, forest.roots, forest.orphans, forest.duplicates, forest.cycles)
    assert counts == (2, 2, 1, 1, 0)


def test_same_ids_in_different_traces_are_different_spans():
    """A parent is looked for in the same trace only."""
    rows = [(1, 1, 0, "server", 0), (2, 1, 0, "server", 0), (2, 2, 1, "client", 1), (1, 3, 2, "client", 1)]
    assert link(_table(rows)).parent_row.tolist() == [-1, -1, 1, -1]


@pytest.mark.parametrize("backwards", [False, True])
def test_twenty_thousand_deep(backwards):
    """A chain of 20,000 calls has its depths, whichever way its rows stand."""
    # Given
    size = 20_000
    rows = [(1, number, number - 1, "internal", number) for number in range(1, size + 1)]
    # When
    forest = link(_table(rows[::-1] if backwards else rows))
    # Then
    assert sorted(forest.depth.tolist()) == list(range(size))
    assert set(forest.head_row.tolist()) == {size - 1 if backwards else 0}


def test_five_thousand_wide():
    """A parent of 5,000 is the parent of each."""
    rows = [(1, number, min(number - 1, 1), "internal", 0) for number in range(1, 5002)]
    forest = link(_table(rows))
    assert (forest.parent_row[1:] == 0).all()
    assert forest.depth.max() == 1


def test_large_cycles_with_tails_are_cut_once():
    """Three rings of 1,000 with a tail of 500 each: three cuts, at the earliest span of each ring."""
    # Given
    rows = []
    for ring in range(3):
        first = ring * 2000 + 1
        rows += [
            (1, first + i, first + (i + 1) % 1000, "internal", 0 if i == 400 else 5) for i in range(1000)
        ]
        rows += [(1, first + 1000 + i, first + (999 + i if i else 401), "internal", 0) for i in range(500)]
    random.Random(1).shuffle(rows)
    # When
    forest = link(_table(rows))
    # Then
    assert (forest.cycles, forest.roots, forest.orphans) == (3, 0, 0)
    cut = np.flatnonzero(forest.is_orphan)
    assert sorted(rows[row][1] for row in cut) == [401, 2401, 4401]
    assert (forest.parent_row[cut] == -1).all()
    assert forest.depth.max() == 999 + 500  # the tail hangs on the ring's last span


def test_a_span_that_is_its_own_parent_heads_a_fragment():
    """The shortest cycle is cut like any other."""
    forest = link(_table([(1, 5, 5, "internal", 0), (1, 6, 5, "internal", 0)]))
    assert forest.parent_row.tolist() == [-1, 0]
    assert (forest.cycles, forest.is_orphan.tolist()) == (1, [True, False])


def test_empty_table():
    """No spans, no trees."""
    forest = link(empty_spans())
    assert (forest.traces, forest.roots, len(forest.order)) == (0, 0, 0)


def test_arrays_cannot_be_written():
    """A forest is shared; none may change it."""
    forest = link(spans([S("shop", "GET /", 0, 1)]))
    with pytest.raises(ValueError, match="read-only"):
        forest.parent_row[0] = 5


def test_filtered_tables_and_odd_indexes():
    """Rows are positions: gaps in the index and unused categories change nothing."""
    table = random_forest(5, traces=4)
    part = table[table["trace_id"] == trace_id(2)]
    forest = link(part)
    assert forest.traces == 1
    assert sorted(forest.order.tolist()) == list(range(len(part)))


def test_rows_without_a_trace_are_refused():
    """A missing trace id is named by row."""
    table = spans([S("shop", "GET /", 0, 1), S("shop", "GET /", 0, 1)])
    table["trace_id"] = pd.Categorical([table["trace_id"][0], None])
    with pytest.raises(SchemaError, match=r"row 1 .* no trace id"):
        link(table)
