"""Links the spans of all traces in machine code; `perflab.trace.tree` tells what it means.

Spans are found by id in a hash table of their trace. Depth is found by climbing to what is known already, so
that each span is passed twice at most; a climb that meets itself has found a cycle, which is cut and climbed
again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perflab.compiled import IDS, INT, INTS, Int64s, compiled, entrance, group, sort_places

Ids = npt.NDArray[np.uint64]

_UNSEEN, _CLIMBING, _KNOWN, _DOUBLE = 0, 1, 2, 3


@compiled
def _mix(number: np.uint64) -> np.uint64:
    """Spread an id over all bits (the finaliser of splitmix64, S. Vigna)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def _find_parents(
    rows: Int64s,
    begin: int,
    end: int,
    span_id: Ids,
    parent_id: Ids,
    kind: Int64s,
    preference: Int64s,
    table: Int64s,
    stamps: Int64s,
    stamp: int,
    twin: Int64s,
    state: npt.NDArray[np.int8],
    parent_row: Int64s,
) -> None:
    """Fill ``parent_row`` and mark doubles for one trace: ``rows[begin:end]``.

    ``table`` holds, where ``stamps`` says that it is of this trace, the preferred row of an id, and ``twin``
    chains the others of that id to it.
    """
    size = 8
    while size < 2 * (end - begin):
        size *= 2
    mask = np.uint64(size - 1)
    for at in range(begin, end):
        row = rows[at]
        slot = np.int64(_mix(span_id[row]) & mask)
        while stamps[slot] == stamp and span_id[table[slot]] != span_id[row]:
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & mask)
        twin[row] = -1
        if stamps[slot] != stamp:
            stamps[slot] = stamp
            table[slot] = row
            continue
        there = table[slot]
        other = there
        while other >= 0 and kind[other] != kind[row]:
            other = twin[other]
        if other >= 0:
            state[row] = _DOUBLE
        elif preference[row] < preference[there]:
            twin[row] = there
            table[slot] = row
        else:
            twin[row] = twin[there]
            twin[there] = row
    for at in range(begin, end):
        row = rows[at]
        if state[row] == _DOUBLE or parent_id[row] == 0:
            continue
        slot = np.int64(_mix(parent_id[row]) & mask)
        while stamps[slot] == stamp:
            if span_id[table[slot]] == parent_id[row]:
                parent_row[row] = table[slot]
                break
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & mask)


@compiled
def _climb(
    row: int,
    parent_row: Int64s,
    start_ns: Int64s,
    span_id: Ids,
    state: npt.NDArray[np.int8],
    depth: npt.NDArray[np.int32],
    head_row: Int64s,
    path: Int64s,
) -> int:
    """Find depth and head of a row and of all above it; return the row a cycle was cut at, -1 for none."""
    reached = 0
    here = row
    while here >= 0 and state[here] == _UNSEEN:
        state[here] = _CLIMBING
        path[reached] = here
        reached += 1
        here = parent_row[here]
    if here >= 0 and state[here] == _CLIMBING:
        cut = here
        other = parent_row[here]
        while other != here:
            if start_ns[other] < start_ns[cut] or (
                start_ns[other] == start_ns[cut]
                and (span_id[other] < span_id[cut] or (span_id[other] == span_id[cut] and other < cut))
            ):
                cut = other
            other = parent_row[other]
        for at in range(reached):
            state[path[at]] = _UNSEEN
        parent_row[cut] = -1
        return cut
    for at in range(reached - 1, -1, -1):
        child = path[at]
        state[child] = _KNOWN
        parent = parent_row[child]
        depth[child] = 0 if parent < 0 else depth[parent] + 1
        head_row[child] = child if parent < 0 else head_row[parent]
    return -1


@compiled
def _put_in_order(
    members: Int64s,
    count: int,
    depth: npt.NDArray[np.int32],
    start_ns: Int64s,
    span_id: Ids,
    kind: Int64s,
    spare: Int64s,
    levels: Int64s,
    order: Int64s,
    reached: int,
) -> None:
    """Write a trace's rows to ``order[reached:]``, by depth, then start, then span id, then kind.

    Rows are dealt out by depth first; what is in order within a depth, as all of it is where rows come by
    start, is left as it is. ``levels`` is room for a number per depth, all 0 before and after.
    """
    deepest = 0
    for at in range(count):
        deepest = max(deepest, depth[members[at]])
        levels[depth[members[at]] + 1] += 1
    for level in range(deepest + 1):
        levels[level + 1] += levels[level]
    for at in range(count):
        row = members[at]
        order[reached + levels[depth[row]]] = row
        levels[depth[row]] += 1
    begin = 0
    for level in range(deepest + 1):
        end = levels[level]
        is_sorted = True
        for at in range(reached + begin + 1, reached + end):
            row, before = order[at], order[at - 1]
            is_sorted &= start_ns[before] < start_ns[row] or (
                start_ns[before] == start_ns[row] and span_id[before] < span_id[row]
            )
        if not is_sorted:
            for at in range(end - begin):
                members[at] = order[reached + begin + at]
            sort_places(members, end - begin, start_ns, span_id, kind, kind, spare)
            for at in range(end - begin):
                order[reached + begin + at] = members[at]
        begin = end
    for level in range(deepest + 2):
        levels[level] = 0


@entrance(INTS, INT, IDS, IDS, INTS, INTS, INTS)
def link_rows(
    trace_code: Int64s,
    traces: int,
    span_id: Ids,
    parent_id: Ids,
    kind: Int64s,
    preference: Int64s,
    start_ns: Int64s,
) -> tuple[Int64s, npt.NDArray[np.int32], Int64s, Int64s, Int64s, npt.NDArray[np.bool_], Int64s, int]:
    """Link the spans of a table.

    Parameters
    ----------
    trace_code : int64[n]
        0 to ``traces - 1``.
    traces : int
    span_id, parent_id : uint64[n]
    kind, preference : int64[n]
        Number of a row's kind, and how late it comes in the choice among rows that share an id.
    start_ns : int64[n]

    Returns
    -------
    parent_row, depth, head_row, order, trace_offsets, is_orphan : arrays
        As in `perflab.trace.tree.Forest`.
    doubles : int64[duplicates]
        Their rows, ascending.
    cycles : int
        How many were cut.
    """
    size = len(trace_code)
    rows, offsets = group(trace_code, traces)
    longest = max(1, np.diff(offsets).max()) if traces else 1
    slots = 8
    while slots < 2 * longest:
        slots *= 2
    table, stamps = np.empty(slots, dtype=np.int64), np.full(slots, -1, dtype=np.int64)
    twin = np.empty(size, dtype=np.int64)
    path, spare, members = np.empty((3, longest), dtype=np.int64)
    levels = np.zeros(longest + 1, dtype=np.int64)
    state, is_orphan = np.zeros(size, dtype=np.int8), np.zeros(size, dtype=np.bool_)
    parent_row, head_row = np.full(size, -1, dtype=np.int64), np.full(size, -1, dtype=np.int64)
    depth = np.full(size, -1, dtype=np.int32)
    order, order_offsets = np.empty(size, dtype=np.int64), np.zeros(traces + 1, dtype=np.int64)
    cycles = reached = 0
    for trace in range(traces):
        begin, end = offsets[trace], offsets[trace + 1]
        _find_parents(
            rows,
            begin,
            end,
            span_id,
            parent_id,
            kind,
            preference,
            table,
            stamps,
            trace,
            twin,
            state,
            parent_row,
        )
        count = 0
        for at in range(begin, end):
            row = rows[at]
            if state[row] == _DOUBLE:
                continue
            is_orphan[row] |= parent_row[row] < 0 and parent_id[row] != 0
            while state[row] == _UNSEEN:
                cut = _climb(row, parent_row, start_ns, span_id, state, depth, head_row, path)
                if cut >= 0:
                    is_orphan[cut] = True
                    cycles += 1
            members[count] = row
            count += 1
        _put_in_order(members, count, depth, start_ns, span_id, kind, spare, levels, order, reached)
        reached += count
        order_offsets[trace + 1] = reached
    doubles = np.flatnonzero(state == _DOUBLE)
    return parent_row, depth, head_row, order[:reached], order_offsets, is_orphan, doubles, cycles
