"""Links the spans of all traces in machine code; `perflab.trace.tree` tells what it means.

What is needed of a trace is first copied side by side, into room for the longest one: there all of it stays
in the processor's nearest memory. Spans are found by id in a hash table. Depth is found by climbing from all
spans at once, to the parent, then by twos, by fours; where that comes to no end is a ring, which is cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perflab.compiled import (
    CODES,
    IDS,
    INT,
    INTS,
    ROOMS,
    SHORTS,
    Codes,
    Int64s,
    Shorts,
    compiled,
    entrance,
    group_into,
    mix,
    sort_places,
)

Ids = npt.NDArray[np.uint64]

_RANKED_UP_TO = 32
"""Traces of so few spans are sorted by counting for each how many come before it: without a branch."""

_LATEST = 1 << 48
_DEEPEST = 1 << 14


@compiled
def _find_parents(
    count: int,
    ids: Ids,
    parents: Ids,
    kinds: Int64s,
    preference: Int64s,
    table: Int64s,
    stamp: int,
    twin: Int64s,
    up: Int64s,
) -> bool:
    """Find the parents of one trace's spans; return whether some of them are doubles.

    ``table`` holds, where it was stamped for this trace, the preferred span of an id, and ``twin`` chains the
    others of that id to it. ``up`` gets the parent, -1 where there is none, -2 for a double.
    """
    size = 8
    while size < 4 * count:
        size *= 2
    mask, marked = np.uint64(size - 1), stamp << 32
    has_doubles = False
    for at in range(count):
        slot = mix(ids[at]) & mask
        while table[slot] >= marked and ids[table[slot] - marked] != ids[at]:
            slot = (slot + np.uint64(1)) & mask
        twin[at], up[at] = -1, -1
        if table[slot] < marked:
            table[slot] = marked + at
            continue
        there = table[slot] - marked
        other = there
        while other >= 0 and kinds[other] != kinds[at]:
            other = twin[other]
        if other >= 0:
            up[at] = -2
            has_doubles = True
        elif preference[kinds[at]] < preference[kinds[there]]:
            twin[at] = there
            table[slot] = marked + at
        else:
            twin[at] = twin[there]
            twin[there] = at
    for at in range(count):
        if up[at] == -2 or parents[at] == 0:
            continue
        slot = mix(parents[at]) & mask
        while table[slot] >= marked:
            if ids[table[slot] - marked] == parents[at]:
                up[at] = table[slot] - marked
                break
            slot = (slot + np.uint64(1)) & mask
    return has_doubles


@compiled
def _climb(count: int, up: Int64s, top: Int64s, steps: Int64s) -> bool:
    """Find the head of each span and how many steps it is above; return whether all of them have one."""
    for at in range(count):
        top[at] = at if up[at] < 0 else up[at]
        steps[at] = up[at] >= 0
    left = 1
    while left <= 2 * count:
        is_moving = False
        for at in range(count):
            here = top[at]
            steps[at] += steps[here]
            top[at] = top[here]
            is_moving |= top[here] != here
        if not is_moving:
            break
        left *= 2
    is_whole = True
    for at in range(count):
        is_whole &= up[top[at]] < 0
    return is_whole


@compiled
def _cut_rings(count: int, up: Int64s, starts: Int64s, ids: Ids, met: Int64s) -> int:
    """Cut every ring of spans that name each other as parent, at its earliest; return how many there were."""
    cut = 0
    for at in range(count):
        met[at] = -1
    for at in range(count):
        here = at
        while here >= 0 and met[here] < 0:
            met[here] = at
            here = up[here]
        if here < 0 or met[here] != at:
            continue
        first, other = here, up[here]
        while other != here:
            if starts[other] < starts[first] or (
                starts[other] == starts[first]
                and (ids[other] < ids[first] or (ids[other] == ids[first] and other < first))
            ):
                first = other
            other = up[other]
        up[first] = -1
        cut += 1
    return cut


@compiled
def _rank(count: int, steps: Int64s, starts: Int64s, keys: Int64s, places: Int64s) -> bool:
    """Write a small trace's spans to ``places``, by depth, then start; return whether that settled it."""
    first, last, deepest = starts[0], starts[0], np.int64(0)
    for at in range(count):
        first, last, deepest = min(first, starts[at]), max(last, starts[at]), max(deepest, steps[at])
    if last - first >= _LATEST or last < first or deepest >= _DEEPEST:
        return False
    for at in range(count):
        keys[at] = (steps[at] << 48) + (starts[at] - first)
    total = 0
    for at in range(count):
        key, before = keys[at], 0
        for other in range(count):
            before += keys[other] < key
        places[before] = at
        total += before
    return total == count * (count - 1) // 2  # level ones are before each other neither way


@compiled
def _put_in_order(
    count: int,
    up: Int64s,
    steps: Int64s,
    starts: Int64s,
    ids: Ids,
    kinds: Int64s,
    levels: Int64s,
    members: Int64s,
    spare: Int64s,
    places: Int64s,
) -> int:
    """Write a trace's spans to ``places``, by depth, then start, id and kind; return how many those are.

    Doubles are left out. Spans are dealt out by depth first; what is in order within a depth, as all of it is
    where they come by start, is left as it is. ``levels`` is room for a number per depth, all 0 before and
    after.
    """
    deepest = np.int64(0)
    for at in range(count):
        if up[at] > -2:
            deepest = max(deepest, steps[at])
            levels[steps[at] + 1] += 1
    for level in range(deepest + 1):
        levels[level + 1] += levels[level]
    for at in range(count):
        if up[at] > -2:
            places[levels[steps[at]]] = at
            levels[steps[at]] += 1
    begin = np.int64(0)
    for level in range(deepest + 1):
        end = levels[level]
        is_sorted = True
        for at in range(begin + 1, end):
            here, before = places[at], places[at - 1]
            is_sorted &= starts[before] < starts[here] or (
                starts[before] == starts[here] and ids[before] < ids[here]
            )
        if not is_sorted:
            for at in range(end - begin):
                members[at] = places[begin + at]
            sort_places(members, end - begin, starts, ids, kinds, kinds, spare)
            for at in range(end - begin):
                places[begin + at] = members[at]
        begin = end
    for level in range(deepest + 2):
        levels[level] = 0
    return int(begin)


@entrance(INTS, INT, IDS, IDS, CODES, INTS, SHORTS, INTS, ROOMS)
def link_rows(
    trace_code: Int64s,
    traces: int,
    span_id: Ids,
    parent_id: Ids,
    kind: Codes,
    preference: Int64s,
    ranks: Shorts,
    start_ns: Int64s,
    links: Int64s,
) -> tuple[int, Int64s, Codes, Shorts, npt.NDArray[np.bool_], Int64s, int]:
    """Link the spans of a table.

    Parameters
    ----------
    trace_code : int64[n]
        0 to ``traces - 1``.
    traces : int
    span_id, parent_id : uint64[n]
    kind : int32[n]
        Number of a row's kind; -1 for none.
    preference : int64[kinds + 1]
        How late a kind comes in the choice among rows that share an id; none at all is the last.
    ranks : int8[kinds + 1]
        As `perflab.trace.schema.rank_kinds` returns them.
    start_ns : int64[n]
    links : int64[3, n]
        Filled with ``parent_row``, ``head_row`` and ``order``, as in `perflab.trace.tree.Forest`. numpy makes
        room of this size out of larger pages than numba does.

    Returns
    -------
    placed : int
        How much of ``order`` there is.
    trace_offsets, depth, kind_rank, is_orphan : arrays
        As there.
    doubles : int64[duplicates]
        Their rows, ascending.
    cycles : int
        How many were cut.
    """
    size = len(trace_code)
    parent_row, head_row, order = links[0], links[1], links[2]
    offsets = group_into(trace_code, traces, order)  # from where each trace is taken before it is put there
    longest = max(1, np.diff(offsets).max()) if traces else 1
    slots = 8
    while slots < 4 * longest:
        slots *= 2
    table = np.full(slots, -1, dtype=np.int64)
    ids, parents = np.empty(longest, dtype=np.uint64), np.empty(longest, dtype=np.uint64)
    room = np.empty((10, longest), dtype=np.int64)  # unpacked, its rows would be taken for arrays in pieces
    starts, kinds, twin, up, top = room[0], room[1], room[2], room[3], room[4]
    steps, places, members, spare, rows = room[5], room[6], room[7], room[8], room[9]
    levels = np.zeros(longest + 1, dtype=np.int64)
    kind_rank, is_orphan = np.empty(size, dtype=np.int8), np.empty(size, dtype=np.bool_)
    depth, order_offsets = np.empty(size, dtype=np.int32), np.zeros(traces + 1, dtype=np.int64)
    cycles = reached = doubles = 0
    for trace in range(traces):
        begin, count = offsets[trace], offsets[trace + 1] - offsets[trace]
        for at in range(count):
            row = rows[at] = order[begin + at]
            ids[at], parents[at], starts[at] = span_id[row], parent_id[row], start_ns[row]
            kinds[at] = kind[row]
        has_doubles = _find_parents(count, ids, parents, kinds, preference, table, trace, twin, up)
        if not _climb(count, up, top, steps):
            cycles += _cut_rings(count, up, starts, ids, twin)
            _climb(count, up, top, steps)
        kept = count
        is_small = count <= _RANKED_UP_TO and not has_doubles
        if not (is_small and _rank(count, steps, starts, spare, places)):
            kept = _put_in_order(count, up, steps, starts, ids, kinds, levels, members, spare, places)
        for at in range(kept):
            order[reached + at] = rows[places[at]]
        for at in range(count):
            row = rows[at]
            kind_rank[row] = ranks[kinds[at]]
            is_orphan[row] = up[at] == -1 and parents[at] != 0
            parent_row[row] = rows[up[at]] if up[at] >= 0 else -1
            head_row[row], depth[row] = rows[top[at]], steps[at]
            if up[at] == -2:
                head_row[row], depth[row] = -1, -1
        doubles += count - kept
        reached += kept
        order_offsets[trace + 1] = reached
    double_rows = np.flatnonzero(depth < 0) if doubles else np.empty(0, dtype=np.int64)
    return reached, order_offsets, depth, kind_rank, is_orphan, double_rows, cycles
