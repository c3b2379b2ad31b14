"""Replays requests with other working times, in machine code; `perflab.analysis.whatif` tells what it means.

A span's thread of work passes the beginnings of its children in order. Before each it works for a while,
counted from the last thing it had to wait for: the beginning of the child before, or the end of a sibling
that was over by then. After the last beginning it waits for all children and works on to its end. A child's
own course does not depend on when it begins, so that a request is replayed from its leaves to its root, one
look at each span.

Spans are laid out request by request, breadth first, the children of one span side by side in the order they
began: a place is an index into these arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perflab.analysis.walking import OVERLAP_NS, OVERLAP_RATIO, gather, is_apart
from perflab.compiled import FLAGS, FLOATS, IDS, INTS, Int64s, compiled, entrance, sort_places

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@compiled
def _first_after(begins: Int64s, first: int, last: int, moment: int) -> int:
    """Return the first place from ``first`` on that begins at ``moment`` or later, ``last`` for none."""
    while first < last:
        middle = (first + last) // 2
        if begins[middle] < moment:
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def _order_children(
    first: int,
    last: int,
    parent_begins: int,
    parent_finishes: int,
    forgiven: int,
    begin: Int64s,
    finish: Int64s,
    before: Int64s,
    follower: Int64s,
    overlap: Int64s,
    reached: Int64s,
) -> int:
    """Find what each child waited for and the work between; return the parent's work after its last child.

    ``reached`` holds, by follower, the latest end of the siblings it waits for.
    """
    for place in range(first, last):
        reached[place] = parent_begins
    latest = point = parent_begins
    waited = parent_begins
    for place in range(first, last):
        waited = max(waited, reached[place])
        before[place] = begin[place] - max(point, waited)
        point = begin[place]
        latest = max(latest, finish[place])
        # a sibling that begins a little before this one is over, and outlasts it, counts as its follower
        least = min(finish[place], max(begin[place] + 1, finish[place] - forgiven + 1))
        other = _first_after(begin, place + 1, last, least)
        while other < last and begin[other] < finish[place] and finish[other] < finish[place]:
            other += 1
        follower[place] = other
        overlap[place] = max(0, finish[place] - begin[other]) if other < last else 0
        if other < last:
            reached[other] = max(reached[other], finish[place] - overlap[place])
    return parent_finishes - max(point, latest)


@entrance(INTS, INTS, INTS, IDS, INTS, FLAGS, FLAGS, INTS)
def lay_out(
    parent_row: Int64s,
    start_ns: Int64s,
    end_ns: Int64s,
    span_id: npt.NDArray[np.uint64],
    kind_rank: Int64s,
    is_call: Mask,
    is_detached: Mask,
    roots: Int64s,
) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s, Int64s, Int64s, Int64s, Int64s, Int64s]:
    """Lay requests out to be replayed.

    Parameters
    ----------
    parent_row, start_ns, end_ns, span_id, kind_rank, is_call, is_detached
        As in `perflab.analysis.walk.Tree`.
    roots : int64[requests]
        Their rows.

    Returns
    -------
    offsets, row, begin, finish, first, last, before, after, follower, overlap
        As in `perflab.analysis.whatif_layout.Layout`.
    """
    size = len(parent_row)
    eldest, following = np.full(size, -1, dtype=np.int64), np.full(size, -1, dtype=np.int64)
    width = np.zeros(size, dtype=np.int64)
    for child in range(size):
        parent = parent_row[child]
        if parent >= 0 and not is_apart(child, parent, start_ns, end_ns, is_call, is_detached):
            following[child], eldest[parent] = eldest[parent], child
            width[parent] += 1
    widest = max(1, width.max()) if size else 1
    room = np.empty((7, widest), dtype=np.int64)  # unpacked, its rows would be taken for arrays in pieces
    rows, places, spare, begins, ends_back = room[0], room[1], room[2], room[3], room[4]
    ends, ranks = room[5], room[6]
    ids = np.empty(widest, dtype=np.uint64)
    row, begin, finish, first, last, before, after, follower, overlap, reached = np.zeros(
        (10, size), dtype=np.int64
    )
    offsets = np.zeros(len(roots) + 1, dtype=np.int64)
    used = 0
    for request in range(len(roots)):
        place, root = used, roots[request]
        row[place], begin[place], finish[place], follower[place] = root, start_ns[root], end_ns[root], -1
        used += 1
        while place < used:
            parent = row[place]
            count = gather(
                eldest[parent], following, begin[place], finish[place], start_ns, end_ns,
                rows, begins, ends_back,
            )  # fmt: skip
            for at in range(count):
                places[at], ends[at] = at, -ends_back[at]
                ids[at], ranks[at] = span_id[rows[at]], kind_rank[rows[at]]
            sort_places(places, count, begins, ends, ids, ranks, spare)
            first[place], last[place] = used, used + count
            for at in range(count):
                one = places[at]
                row[used], begin[used], finish[used] = rows[one], begins[one], ends[one]
                used += 1
            forgiven = max(OVERLAP_NS, -((start_ns[parent] - end_ns[parent]) // OVERLAP_RATIO))
            after[place] = _order_children(
                first[place], last[place], begin[place], finish[place], forgiven,
                begin, finish, before, follower, overlap, reached,
            )  # fmt: skip
            place += 1
        offsets[request + 1] = used
    return (
        offsets, row[:used], begin[:used], finish[:used], first[:used], last[:used],
        before[:used], after[:used], follower[:used], overlap[:used],
    )  # fmt: skip


@compiled
def _scale(work: int, factor: float) -> int:
    """Multiply a working time; times 1 it is itself, however long it is."""
    return work if factor == 1.0 else int(np.rint(work * factor))


@compiled
def _replay_one(
    lowest: int,
    highest: int,
    first: Int64s,
    last: Int64s,
    before: Int64s,
    after: Int64s,
    follower: Int64s,
    overlap: Int64s,
    code: Int64s,
    factor: Floats,
    length: Int64s,
    begin: Int64s,
    ready: Int64s,
) -> int:
    """Replay the places of one request; return its duration.

    ``length`` receives how long each span takes, ``begin`` how long after its parent it begins; ``ready`` is
    room to work in.
    """
    for place in range(highest - 1, lowest - 1, -1):
        by = factor[code[place]]
        point = waited = longest = 0
        for child in range(first[place], last[place]):
            ready[child] = 0
        for child in range(first[place], last[place]):
            waited = max(waited, ready[child])
            point = max(point, waited) + _scale(before[child], by)
            begin[child] = point
            over = point + length[child]
            longest = max(longest, over)
            other = follower[child]
            if other < last[place]:
                ready[other] = max(ready[other], over - overlap[child])
        length[place] = max(point, longest) + _scale(after[place], by)
    return int(length[lowest])


@entrance(FLOATS, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS)
def replay_all(
    factor: Floats,
    code: Int64s,
    offsets: Int64s,
    first: Int64s,
    last: Int64s,
    before: Int64s,
    after: Int64s,
    follower: Int64s,
    overlap: Int64s,
) -> Int64s:
    """Return the duration of each request when all work is multiplied by its entity's factor.

    Parameters
    ----------
    factor : float64[entities]
    code, offsets, first, last, before, after, follower, overlap
        As in `perflab.analysis.whatif_layout.Layout`.

    Returns
    -------
    int64[requests]
    """
    requests = len(offsets) - 1
    length, begin, ready = np.zeros((3, len(first)), dtype=np.int64)
    duration = np.empty(requests, dtype=np.int64)
    for request in range(requests):
        duration[request] = _replay_one(
            offsets[request], offsets[request + 1],
            first, last, before, after, follower, overlap, code, factor, length, begin, ready,
        )  # fmt: skip
    return duration


@entrance(INTS, INTS, INTS, INTS, INTS, INTS, INTS)
def replay_places(
    offsets: Int64s,
    first: Int64s,
    last: Int64s,
    before: Int64s,
    after: Int64s,
    follower: Int64s,
    overlap: Int64s,
) -> tuple[Int64s, Int64s]:
    """Return how long after its request each span begins, and how long it takes, for given working times.

    Parameters
    ----------
    offsets, first, last, before, after, follower, overlap
        As in `perflab.analysis.whatif_layout.Layout`, but for ``before`` and ``after``, which may be others.

    Returns
    -------
    begin, length : int64[m]
    """
    length, begin, ready = np.zeros((3, len(first)), dtype=np.int64)
    code, factor = np.zeros(len(first), dtype=np.int64), np.ones(1)
    for request in range(len(offsets) - 1):
        _replay_one(
            offsets[request], offsets[request + 1],
            first, last, before, after, follower, overlap, code, factor, length, begin, ready,
        )  # fmt: skip
    for place in range(len(first)):
        for child in range(first[place], last[place]):
            begin[child] += begin[place]
    return begin, length


@entrance(FLOATS, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS)
def replay_without(
    factor: Floats,
    pair_request: Int64s,
    pair_code: Int64s,
    code: Int64s,
    offsets: Int64s,
    first: Int64s,
    last: Int64s,
    before: Int64s,
    after: Int64s,
    follower: Int64s,
    overlap: Int64s,
) -> Int64s:
    """Return the duration of requests without the work of one entity, for pairs of both.

    Parameters
    ----------
    factor : float64[entities]
        Of all other entities.
    pair_request, pair_code : int64[pairs]
        The request, and the entity that takes no time in it.
    code, offsets, first, last, before, after, follower, overlap
        As in `perflab.analysis.whatif_layout.Layout`.

    Returns
    -------
    int64[pairs]
    """
    length, begin, ready = np.zeros((3, len(first)), dtype=np.int64)
    by = factor.copy()
    duration = np.empty(len(pair_request), dtype=np.int64)
    for pair in range(len(pair_request)):
        request, entity = pair_request[pair], pair_code[pair]
        kept = by[entity]
        by[entity] = 0.0
        duration[pair] = _replay_one(
            offsets[request], offsets[request + 1],
            first, last, before, after, follower, overlap, code, by, length, begin, ready,
        )  # fmt: skip
        by[entity] = kept
    return duration


@entrance(INTS, INTS, INTS, INTS, INTS, INTS, INTS, INTS)
def find_slack(
    begin: Int64s,
    finish: Int64s,
    first: Int64s,
    last: Int64s,
    before: Int64s,
    after: Int64s,
    follower: Int64s,
    overlap: Int64s,
) -> Int64s:
    """Return how much later each span could end without its request ending later (its total float).

    Parameters
    ----------
    begin, finish, first, last, before, after, follower, overlap
        As in `perflab.analysis.whatif_layout.Layout`.

    Returns
    -------
    int64[m]
        One span at a time, all else as it was.
    """
    slack = np.zeros(len(first), dtype=np.int64)
    # the latest moment at which what a child waits for may come, in absolute time
    due = np.zeros(len(first), dtype=np.int64)
    for place in range(len(first)):
        joins = finish[place] - after[place] + slack[place]
        begins_by = joins
        for child in range(last[place] - 1, first[place] - 1, -1):
            ends_by = joins
            if follower[child] < last[place]:
                ends_by = min(ends_by, due[follower[child]] + overlap[child])
            slack[child] = ends_by - finish[child]
            # it may begin late if neither its own end nor the next beginning comes too late
            late = min(slack[child], begins_by - begin[child])
            begins_by = begin[child] - before[child] + late
            due[child] = begins_by
    return slack
