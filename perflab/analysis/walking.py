"""The walk back along the critical path, in machine code; `perflab.analysis.walk` tells what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from perflab.compiled import (
    FLAG,
    FLAGS,
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
    sort_places,
)
from perflab.trace.schema import KINDS

Mask = npt.NDArray[np.bool_]
Lanes = npt.NDArray[np.int8]

OVERSHOOT_NS = 1_000_000
OVERSHOOT_RATIO = 100  # 1 %, as a divisor: kept in whole numbers
OVERLAP_NS = 50_000
OVERLAP_RATIO = 1000  # 0.1 %

_ON_PATH, _APART = 1, 2
_SERVER, _CLIENT = KINDS.index("server"), KINDS.index("client")
_PRODUCER, _CONSUMER = KINDS.index("producer"), KINDS.index("consumer")


@compiled
def is_apart(
    row: int, parent: int, start_ns: Int64s, end_ns: Int64s, is_call: Mask, is_detached: Mask
) -> bool:
    """Tell whether a child is asynchronous: nobody waits for it.

    Parameters
    ----------
    row, parent : int
        The child's row and its parent's.
    start_ns, end_ns, is_call, is_detached
        As in `perflab.analysis.walk.Tree`.
    """
    overshoot = end_ns[row] - end_ns[parent]
    is_small = overshoot <= OVERSHOOT_NS or overshoot * OVERSHOOT_RATIO <= end_ns[parent] - start_ns[parent]
    return (not is_small or is_detached[row]) and not is_call[row]


@entrance(INTS, SHORTS, INTS, INTS)
def derive(
    parent_row: Int64s, kind: Shorts, start_ns: Int64s, duration_ns: Int64s
) -> tuple[Int64s, Mask, Mask, int]:
    """Tell when spans end, and which are calls or messages.

    Parameters
    ----------
    parent_row : int64[n]
        -1 for heads.
    kind : int8[n]
        As in `perflab.trace.tree.Forest`, ``kind_rank``.
    start_ns, duration_ns : int64[n]

    Returns
    -------
    end_ns : int64[n]
        A duration below 0 counts as 0.
    is_call, is_message : bool[n]
        A SERVER span whose parent is a CLIENT span; a CONSUMER whose parent is a PRODUCER.
    negative : int
        How many durations are below 0.
    """
    end_ns = np.empty(len(parent_row), dtype=np.int64)
    negative = 0
    is_call = np.zeros(len(parent_row), dtype=np.bool_)
    is_message = np.zeros(len(parent_row), dtype=np.bool_)
    for row in range(len(parent_row)):
        end_ns[row] = start_ns[row] + max(duration_ns[row], 0)
        negative += duration_ns[row] < 0
        above = kind[max(parent_row[row], 0)]
        has_parent = parent_row[row] >= 0
        is_call[row] = has_parent & (kind[row] == _SERVER) & (above == _CLIENT)
        is_message[row] = has_parent & (kind[row] == _CONSUMER) & (above == _PRODUCER)
    return end_ns, is_call, is_message, negative


@compiled
def gather(
    row: int,
    following: npt.NDArray[Any],
    lower: int,
    upper: int,
    start_ns: Int64s,
    end_ns: Int64s,
    rows: Int64s,
    begins: Int64s,
    ends_back: Int64s,
) -> int:
    """Collect the siblings from ``row`` on that touch their parent, clipped to it; return how many.

    Parameters
    ----------
    row : int
        The first sibling, -1 where there is none.
    following : int64[n]
        The next sibling of each row.
    lower, upper : int
        The parent's interval.
    start_ns, end_ns : int64[n]
        As in `perflab.analysis.walk.Tree`.
    rows, begins, ends_back : int64[widest]
        Filled with the siblings, where they begin and where they end, the latter negated.
    """
    count = 0
    while row >= 0:
        begin, end = max(start_ns[row], lower), min(end_ns[row], upper)
        if end > begin or (end == begin and start_ns[row] == end_ns[row]):
            rows[count], begins[count], ends_back[count] = row, begin, -end
            count += 1
        row = following[row]
    return count


@compiled
def _union(places: Int64s, count: int, begins: Int64s, ends_back: Int64s, spare: Int64s) -> int:
    """Return the length of a union of intervals; sorts ``places`` by their beginning."""
    sort_places(places, count, begins, begins, begins, begins, spare)
    total, reached = 0, begins[places[0]]
    for at in range(count):
        place = places[at]
        begin, end = max(begins[place], reached), -ends_back[place]
        if end > begin:
            total += end - begin
            reached = end
    return total


@compiled
def _place_rows(
    parent_row: Int64s,
    start_ns: Int64s,
    end_ns: Int64s,
    is_call: Mask,
    is_detached: Mask,
    is_root: Mask,
    is_taken: Mask,
    crisp: bool,
    lane: Lanes,
    marks: Mask,
    first: Codes,
    following: Codes,
    times: Int64s,
) -> None:
    """Find the heads and their times, and chain the children of each parent.

    ``marks`` gets three rows: asynchronous, abandoned, clipped; ``first`` and ``following`` get the chains.
    """
    for row in range(len(parent_row)):
        parent = parent_row[row]
        where, apart, is_late, is_clipped = 0, False, False, False
        if is_taken[row]:
            where = _ON_PATH if is_root[row] else 0
            if parent < 0:
                apart = not crisp and is_detached[row]
            else:
                apart = not crisp and is_apart(row, parent, start_ns, end_ns, is_call, is_detached)
                if not apart:
                    following[row], first[parent] = first[parent], row
                    is_late = end_ns[row] > end_ns[parent]
                    is_clipped = is_late or start_ns[row] < start_ns[parent]
            where = _APART if apart else where
        lane[row] = where
        marks[0, row], marks[1, row], marks[2, row] = apart, is_late and is_call[row], is_clipped
        is_head = where != 0
        times[0, row], times[1, row] = is_head * start_ns[row], is_head * end_ns[row]
        times[2, row], times[3, row] = times[1, row] - times[0, row], 0


@compiled
def _chain(
    parent: int,
    count: int,
    forgiven: int,
    rows: Int64s,
    places: Int64s,
    begins: Int64s,
    ends_back: Int64s,
    lane: Lanes,
    begin: Int64s,
    finish: Int64s,
    exclusive: Int64s,
) -> tuple[int, bool]:
    """Chain a parent's children, latest first; return how long the chain is, and whether all are in it."""
    cursor = finish[parent]
    chained = 0
    is_whole = True
    for at in range(count):
        place = places[at]
        child_begins, child_ends = begins[place], -ends_back[place]
        if child_ends > cursor and (child_ends - cursor >= forgiven or child_begins >= cursor):
            is_whole = False
            continue
        row = rows[place]
        child_ends = min(child_ends, cursor)
        ends_back[place] = -child_ends
        lane[row], begin[row], finish[row] = lane[parent], child_begins, child_ends
        exclusive[row] = child_ends - child_begins
        chained += child_ends - child_begins
        cursor = child_begins
    return chained, is_whole


@entrance(INTS, INTS, INTS, IDS, SHORTS, INTS, FLAGS, FLAGS, FLAGS, FLAGS, FLAG, INT, ROOMS)
def walk_all(
    parent_row: Int64s,
    start_ns: Int64s,
    end_ns: Int64s,
    span_id: npt.NDArray[np.uint64],
    kind_rank: Shorts,
    order: Int64s,
    is_call: Mask,
    is_detached: Mask,
    is_root: Mask,
    is_taken: Mask,
    crisp: bool,
    widest: int,
    times: Int64s,
) -> tuple[Lanes, Mask]:
    """Walk every tree, parents first; each child is looked at once.

    Parameters
    ----------
    parent_row, start_ns, end_ns, span_id, kind_rank, order, is_call, is_detached
        As in `perflab.analysis.walk.Tree`.
    is_root, is_taken, crisp
        As for `perflab.analysis.walk.walk_back`.
    widest : int
        No span has more children.
    times : int64[4, n]
        Filled with ``begin_ns``, ``finish_ns``, ``exclusive_ns`` and ``covered_ns``, as in
        `perflab.analysis.walk.Walk`. numpy makes room of this size out of larger pages than numba does.

    Returns
    -------
    lane : int8[n]
        As there.
    marks : bool[3, n]
        ``is_asynchronous``, ``is_abandoned`` and ``is_clipped``.
    """
    size = len(parent_row)
    lane, marks = np.empty(size, dtype=np.int8), np.empty((3, size), dtype=np.bool_)
    first, following = np.full(size, -1, dtype=np.int32), np.empty(size, dtype=np.int32)
    _place_rows(
        parent_row,
        start_ns,
        end_ns,
        is_call,
        is_detached,
        is_root,
        is_taken,
        crisp,
        lane,
        marks,
        first,
        following,
        times,
    )
    begin, finish, exclusive, covered = times[0], times[1], times[2], times[3]
    room = np.empty((6, widest), dtype=np.int64)  # unpacked, its rows would be taken for arrays in pieces
    rows, places, spare, begins, ends_back, ranks = room[0], room[1], room[2], room[3], room[4], room[5]
    ids = np.empty(widest, dtype=np.uint64)
    for parent in order:
        if not lane[parent] or first[parent] < 0:
            continue
        lower, upper = begin[parent], finish[parent]
        count = gather(first[parent], following, lower, upper, start_ns, end_ns, rows, begins, ends_back)
        for at in range(count):
            places[at] = at
            ids[at], ranks[at] = span_id[rows[at]], kind_rank[rows[at]]
        sort_places(places, count, ends_back, begins, ids, ranks, spare)
        forgiven = 0
        if not crisp:  # rounded up: a whole overlap is below it just when it is below 0.1 %
            forgiven = max(OVERLAP_NS, -((start_ns[parent] - end_ns[parent]) // OVERLAP_RATIO))
        chained, is_whole = _chain(
            parent, count, forgiven, rows, places, begins, ends_back, lane, begin, finish, exclusive
        )
        exclusive[parent] -= chained
        if not is_whole:
            covered[parent] = _union(places, count, begins, ends_back, spare) - chained
    return lane, marks
