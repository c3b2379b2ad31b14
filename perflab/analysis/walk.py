"""The walk back along the critical path, over arrays of all traces at once.

The strict rule: from a span's end back to its start, the last-finishing child that ends at or before the
cursor owns its interval, the rest is the span's own. Every span is clipped to its parent's clipped
interval first, so whatever the input, the exclusive times of a tree sum to its head's duration, exactly:
all is int64, nothing is rounded. Each child is looked at once; there is no recursion, so depth and width
cost what their spans cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.units import NS_PER_MS, NS_PER_US

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Interval = tuple[int, int]

OFF, ON_PATH, APART = 0, 1, 2
"""Where a span ended up: not on a path, on a request's path, on the path of asynchronous work."""

_OVERSHOOT_NS = NS_PER_MS
_OVERSHOOT_RATIO = 100  # 1 %, as a divisor: kept in whole numbers
_OVERLAP_NS = 50 * NS_PER_US
_OVERLAP_RATIO = 1000  # 0.1 %


@dataclass(frozen=True, eq=False)
class Tree:
    """Spans as arrays over the rows of a span table, on derived times.

    Attributes
    ----------
    parent_row, start_ns, end_ns : int64[n]
        ``parent_row`` is -1 for heads; ``end_ns`` is never before ``start_ns``.
    tie : int64[n]
        What settles ties: a rank by span id, then kind.
    order : int64[m]
        Rows, parents before children.
    is_call : bool[n]
        A SERVER span whose parent is a CLIENT span.
    is_detached : bool[n]
        Asynchronous whatever its times are: CONSUMER of a PRODUCER, or tied by a link.
    """

    parent_row: Int64s
    start_ns: Int64s
    end_ns: Int64s
    tie: Int64s
    order: Int64s
    is_call: Mask
    is_detached: Mask


@dataclass(frozen=True, eq=False)
class Walk:
    """What the walk found, as arrays over the rows of the span table.

    Attributes
    ----------
    lane : int8[n]
        `OFF`, `ON_PATH` or `APART`.
    begin_ns, finish_ns : int64[n]
        The clipped interval of a span that is on a path (derived times).
    exclusive_ns : int64[n]
        Its part not owned by a child; sums to the head's duration over each tree.
    covered_ns : int64[n]
        Of that, the time a child ran that is not on the path.
    is_asynchronous, is_abandoned, is_clipped : bool[n]
        What was found in the walked trees: asynchronous heads; callees that outlived their caller;
        spans that stuck out of their parent at either end.
    """

    lane: npt.NDArray[np.int8]
    begin_ns: Int64s
    finish_ns: Int64s
    exclusive_ns: Int64s
    covered_ns: Int64s
    is_asynchronous: Mask
    is_abandoned: Mask
    is_clipped: Mask


def walk_back(tree: Tree, is_root: Mask, is_taken: Mask, *, crisp: bool = False) -> Walk:
    """Find the critical path of every tree.

    Parameters
    ----------
    tree : Tree
        The spans.
    is_root : bool[n]
        Heads of the trees to walk.
    is_taken : bool[n]
        Rows of these trees.
    crisp : bool
        Walk as CRISP does: nothing is asynchronous and no overlap is forgiven.

    Returns
    -------
    Walk
        Siblings are taken by end, then the longer, then the smaller span id, so that the order of
        rows never matters.
    """
    has_parent = is_taken & (tree.parent_row >= 0)
    overshoot = np.where(has_parent, tree.end_ns - tree.end_ns[tree.parent_row], 0)
    early = has_parent & (tree.start_ns < tree.start_ns[tree.parent_row])
    if crisp:
        is_asynchronous = np.zeros(len(has_parent), dtype=bool)
    else:
        is_head = is_taken & ~has_parent & tree.is_detached
        is_asynchronous = is_head | (has_parent & _is_asynchronous(tree, overshoot))
    is_child = has_parent & ~is_asynchronous

    lane = np.zeros(len(has_parent), dtype=np.int8)
    lane[is_root] = ON_PATH
    lane[is_asynchronous] = APART
    begin = np.where(lane != OFF, tree.start_ns, 0)
    finish = np.where(lane != OFF, tree.end_ns, 0)
    covered = _chain_all(tree, is_child, lane, begin, finish, forgiving=not crisp)

    exclusive = np.where(lane != OFF, finish - begin, 0)
    chained = np.flatnonzero(is_child & (lane != OFF))
    np.subtract.at(exclusive, tree.parent_row[chained], (finish - begin)[chained])
    return Walk(
        lane=lane,
        begin_ns=begin,
        finish_ns=finish,
        exclusive_ns=exclusive,
        covered_ns=covered,
        is_asynchronous=is_asynchronous,
        is_abandoned=is_child & tree.is_call & (overshoot > 0),
        is_clipped=is_child & ((overshoot > 0) | early),
    )


def _is_asynchronous(tree: Tree, overshoot: Int64s) -> Mask:
    parent_ns = (tree.end_ns - tree.start_ns)[tree.parent_row]
    is_small = (overshoot <= _OVERSHOOT_NS) | (overshoot * _OVERSHOOT_RATIO <= parent_ns)
    outlives: Mask = ~is_small | tree.is_detached
    return outlives & ~tree.is_call


def _chain_all(
    tree: Tree, is_child: Mask, lane: npt.NDArray[np.int8], begin: Int64s, finish: Int64s, *, forgiving: bool
) -> Int64s:
    """Walk every span that has children, parents first; write lane, begin and finish, return covered."""
    parents, children, offsets = _children_of(tree, is_child)
    start_of, end_of, tie_of = tree.start_ns.tolist(), tree.end_ns.tolist(), tree.tie.tolist()
    lane_of, begin_of, finish_of = lane.tolist(), begin.tolist(), finish.tolist()
    covered = np.zeros(len(start_of), dtype=np.int64)
    for place, parent in enumerate(parents):
        own_lane = lane_of[parent]
        if not own_lane:
            continue
        forgiven = 0
        if forgiving:  # rounded up: a whole overlap is below it just when it is below 0.1 %
            forgiven = max(_OVERLAP_NS, -((start_of[parent] - end_of[parent]) // _OVERLAP_RATIO))
        cursor = finish_of[parent]
        chained: list[Interval] = []
        unchained: list[Interval] = []
        rows = children[offsets[place] : offsets[place + 1]]
        for row, begins, finishes in _clip(rows, start_of, end_of, tie_of, begin_of[parent], cursor):
            if finishes > cursor and (finishes - cursor >= forgiven or begins >= cursor):
                unchained.append((begins, finishes))
                continue
            lane_of[row] = own_lane
            begin_of[row] = begins
            finish_of[row] = min(finishes, cursor)
            chained.append((begins, finish_of[row]))
            cursor = begins
        if unchained:
            covered[parent] = _length(chained + unchained) - _length(chained)
    lane[:], begin[:], finish[:] = lane_of, begin_of, finish_of
    return covered


def _children_of(tree: Tree, is_child: Mask) -> tuple[list[int], list[int], list[int]]:
    """Return the rows that have children, parents first, all children by parent, and where each one's begin.

    Siblings come by end, latest first, then the longer, then by tie.
    """
    place = np.full(len(is_child), -1, dtype=np.int64)
    place[tree.order] = np.arange(len(tree.order))
    rows = np.flatnonzero(is_child)
    parent_place = place[tree.parent_row[rows]]
    sorting = np.lexsort((tree.tie[rows], tree.start_ns[rows], -tree.end_ns[rows], parent_place))
    rows, parent_place = rows[sorting], parent_place[sorting]
    used, offsets = np.unique(parent_place, return_index=True)
    return tree.order[used].tolist(), rows.tolist(), [*offsets.tolist(), len(rows)]


def _clip(
    rows: list[int],
    start_of: list[int],
    end_of: list[int],
    tie_of: list[int],
    lower: int,
    upper: int,
) -> Sequence[tuple[int, int, int]]:
    """Return (row, begin, finish) of the siblings that touch the parent's interval, in walking order."""
    inside: list[tuple[int, int, int]] = []
    is_cut = False
    for row in rows:
        begins, finishes = start_of[row], end_of[row]
        if begins < lower or finishes > upper:
            is_cut = True
            is_point = begins == finishes
            begins, finishes = max(begins, lower), min(finishes, upper)
            if finishes < begins or (finishes == begins and not is_point):
                continue
        inside.append((row, begins, finishes))
    if is_cut:  # clipping makes new ties
        inside.sort(key=lambda span: (-span[2], span[1], tie_of[span[0]]))
    return inside


def _length(intervals: list[Interval]) -> int:
    """Return the length of a union of intervals."""
    total, reached = 0, None
    for begins, finishes in sorted(intervals):
        if reached is None or begins >= reached:
            total += finishes - begins
            reached = finishes
        elif finishes > reached:
            total += finishes - reached
            reached = finishes
    return total
