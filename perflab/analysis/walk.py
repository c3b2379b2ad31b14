"""The walk back along the critical path, over arrays of all traces at once.

The strict rule: from a span's end back to its start, the last-finishing child that ends at or before the
cursor owns its interval, the rest is the span's own. Every span is clipped to its parent's clipped
interval first, so whatever the input, the exclusive times of a tree sum to its head's duration, exactly:
all is int64, nothing is rounded. The walk is compiled (`perflab.analysis.walking`); each child is looked at
once and there is no recursion, so depth and width cost what their spans cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

OFF, ON_PATH, APART = 0, 1, 2
"""Where a span ended up: not on a path, on a request's path, on the path of asynchronous work."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Spans as arrays over the rows of a span table, on derived times.

    Attributes
    ----------
    parent_row, start_ns, end_ns : int64[n]
        ``parent_row`` is -1 for heads; ``end_ns`` is never before ``start_ns``.
    span_id : uint64[n]
    kind_rank : int8[n]
        What settles ties: the span id, then the kind's place in `perflab.trace.schema.KINDS`.
    order : int64[m]
        Rows, parents before children.
    largest : int
        How many spans the largest trace has.
    is_call : bool[n]
        A SERVER span whose parent is a CLIENT span.
    is_detached : bool[n]
        Asynchronous whatever its times are: CONSUMER of a PRODUCER, or tied by a link.
    """

    parent_row: Int64s
    start_ns: Int64s
    end_ns: Int64s
    span_id: npt.NDArray[np.uint64]
    kind_rank: npt.NDArray[np.int8]
    order: Int64s
    largest: int
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
    from perflab.analysis.walking import walk_all
    from perflab.compiled import in_one_piece

    times = np.empty((4, len(is_root)), dtype=np.int64)
    lane, marks = walk_all(
        in_one_piece(tree.parent_row),
        in_one_piece(tree.start_ns),
        in_one_piece(tree.end_ns),
        in_one_piece(tree.span_id, np.uint64),
        in_one_piece(tree.kind_rank, np.int8),
        in_one_piece(tree.order),
        in_one_piece(tree.is_call, np.bool_),
        in_one_piece(tree.is_detached, np.bool_),
        in_one_piece(is_root, np.bool_),
        in_one_piece(is_taken, np.bool_),
        crisp,
        tree.largest,
        times,
    )
    return Walk(lane, *times, *marks)
