"""Who called whom: links a span table into trees, as arrays over its rows.

The structure is derived, never stored in the table, where it would go stale on the first filter. All
steps work on whole columns; depth is found by doubling the distance walked towards the root, so that a
trace of 20,000 nested calls costs 15 passes and no recursion. Whatever is broken in the input
(duplicated rows, absent parents, cycles) gets a defined place and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.errors import SchemaError
from perflab.trace.schema import check_spans

Rows = npt.NDArray[np.int64]

_PARENT_PREFERENCE = ("server", "consumer", "internal", "client", "producer")


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a span table. All arrays are read-only; row numbers are positions, not index labels.

    Attributes
    ----------
    parent_row : int64[n]
        Row of the parent; -1 for a root, an orphan, the cut end of a cycle and a duplicate.
    depth : int32[n]
        Steps up to the head of the row's tree; 0 for heads, -1 for duplicates.
    head_row : int64[n]
        Row on top of the row's tree: a root, or the head of a fragment; -1 for duplicates.
    order : int64[m]
        The rows that are not duplicates, trace by trace, within one by depth, then start, then span id:
        parents precede children. Walk it backwards for children before parents.
    trace_code : int64[n]
        Number of the row's trace, 0 to ``traces - 1``, in the order of the trace ids' text.
    trace_offsets : int64[traces + 1]
        Trace ``t`` is ``order[trace_offsets[t]:trace_offsets[t + 1]]``.
    is_orphan : bool[n]
        The row heads a fragment: its parent is named but absent, or was cut off to break a cycle.
    duplicate_rows : int64[duplicates]
        Rows dropped because an earlier row has their trace id, span id and kind.
    traces, roots, orphans, duplicates, cycles : int
        Counts. ``roots`` name no parent; ``orphans`` name an absent one; ``cycles`` were each cut once,
        at their earliest span.
    """

    parent_row: Rows
    depth: npt.NDArray[np.int32]
    head_row: Rows
    order: Rows
    trace_code: Rows
    trace_offsets: Rows
    is_orphan: npt.NDArray[np.bool_]
    duplicate_rows: Rows
    traces: int
    roots: int
    orphans: int
    duplicates: int
    cycles: int

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False


def link(spans: pd.DataFrame) -> Forest:
    """Link spans into trees.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table, rows in any order.

    Returns
    -------
    Forest
        A parent is the row of the same trace whose ``span_id`` is the child's ``parent_span_id``. Where
        rows of different kinds share one id, the parent is the first there is of server, consumer,
        internal, client, producer.

    Raises
    ------
    SchemaError
        If it is no span table, or a row has no trace id.

    Examples
    --------
    >>> from perflab.trace.schema import span_table
    >>> forest = link(span_table({
    ...     "trace_id": ["a" * 32] * 3, "span_id": [1, 2, 3], "parent_span_id": [0, 1, 9],
    ...     "service": ["shop"] * 3, "name": ["GET /", "SELECT", "lost"],
    ...     "start_ns": [0, 1, 2], "duration_ns": [9, 3, 1]}))
    >>> forest.parent_row.tolist(), forest.depth.tolist(), forest.orphans
    ([-1, 0, -1], [0, 1, 0], 1)
    """
    check_spans(spans)
    size = len(spans)
    trace_code, traces = _number_traces(spans["trace_id"].array)
    span_id = spans["span_id"].to_numpy()
    parent_id = spans["parent_span_id"].to_numpy()
    start_ns = spans["start_ns"].to_numpy()
    kind = spans["kind"].array

    keys = {"trace": trace_code, "span": span_id, "kind": np.asarray(kind.codes)}
    is_duplicate = pd.DataFrame(keys).duplicated(keep="first").to_numpy()
    kept = np.flatnonzero(~is_duplicate)

    parent_row = np.full(size, -1, dtype=np.int64)
    parent_row[kept] = _find_parents(
        kept, trace_code[kept], span_id[kept], parent_id[kept], _preference(kind)[kept]
    )
    is_root = ~is_duplicate & (parent_id == 0)
    is_orphan = ~is_duplicate & ~is_root & (parent_row < 0)
    orphans = int(is_orphan.sum())

    depth, head_row, unsettled = _walk_up(parent_row)
    cycles = 0
    if unsettled.size:
        cut = _cut_cycles(parent_row, unsettled, start_ns, span_id)
        parent_row[cut] = -1
        is_orphan[cut] = True
        cycles = len(cut)
        depth, head_row, _ = _walk_up(parent_row)
    depth[is_duplicate] = -1
    head_row[is_duplicate] = -1

    order = kept[np.lexsort((span_id[kept], start_ns[kept], depth[kept], trace_code[kept]))]
    return Forest(
        parent_row=parent_row,
        depth=depth,
        head_row=head_row,
        order=order,
        trace_code=trace_code,
        trace_offsets=np.searchsorted(trace_code[order], np.arange(traces + 1)),
        is_orphan=is_orphan,
        duplicate_rows=np.flatnonzero(is_duplicate),
        traces=traces,
        roots=int(is_root.sum()),
        orphans=orphans,
        duplicates=int(is_duplicate.sum()),
        cycles=cycles,
    )


def _number_traces(trace_id: pd.Categorical) -> tuple[Rows, int]:
    codes = np.asarray(trace_id.codes, dtype=np.int64)
    if codes.size == 0:
        return codes, 0
    if codes.min() < 0:
        raise SchemaError(f"row {int(np.argmin(codes))} of the span table has no trace id")
    is_used = np.zeros(len(trace_id.categories), dtype=bool)
    is_used[codes] = True
    used = np.flatnonzero(is_used)
    by_text = used[np.argsort(trace_id.categories[used].to_numpy(dtype=object), kind="stable")]
    number = np.full(len(is_used), -1, dtype=np.int64)
    number[by_text] = np.arange(len(used))
    return number[codes], len(used)


def _preference(kind: pd.Categorical) -> Rows:
    """Return per row how late its kind comes in the choice among rows that share an id."""
    last = len(_PARENT_PREFERENCE)
    places = [
        _PARENT_PREFERENCE.index(text) if text in _PARENT_PREFERENCE else last for text in kind.categories
    ]
    preference: Rows = np.array([*places, last], dtype=np.int64)[kind.codes]
    return preference


def _find_parents(
    rows: Rows,
    trace_code: Rows,
    span_id: npt.NDArray[np.uint64],
    parent_id: npt.NDArray[np.uint64],
    preference: Rows,
) -> Rows:
    """Return for each of ``rows`` the row of its parent, or -1."""
    found = np.full(len(rows), -1, dtype=np.int64)
    if not len(rows):
        return found
    id_codes, ids = pd.factorize(np.concatenate([span_id, parent_id]))
    scale = len(ids)
    own_key = trace_code * scale + id_codes[: len(rows)]
    wanted_key = trace_code * scale + id_codes[len(rows) :]
    by_key = np.lexsort((preference, own_key))
    sorted_keys = own_key[by_key]
    place = np.minimum(np.searchsorted(sorted_keys, wanted_key), len(rows) - 1)
    is_hit = (sorted_keys[place] == wanted_key) & (parent_id != 0)
    found[is_hit] = rows[by_key[place[is_hit]]]
    return found


def _walk_up(parent_row: Rows) -> tuple[npt.NDArray[np.int32], Rows, Rows]:
    """Return depth, head of each row's tree, and the rows that never arrive because of a cycle.

    After pass k every active row has looked 2^k steps up; ``ahead`` is the row it has got to.
    """
    size = len(parent_row)
    depth = (parent_row >= 0).astype(np.int32)
    ahead = np.where(parent_row >= 0, parent_row, np.arange(size, dtype=np.int64))
    active = np.flatnonzero(parent_row >= 0)
    active = active[parent_row[ahead[active]] >= 0]
    for _ in range(size.bit_length() + 1):
        if not active.size:
            break
        # both read before either is written: rows of one pass must not see each other's progress
        further_depth = depth[active] + depth[ahead[active]]
        further = ahead[ahead[active]]
        depth[active], ahead[active] = further_depth, further
        active = active[parent_row[further] >= 0]
    return depth, ahead, active


def _cut_cycles(
    parent_row: Rows,
    unsettled: Rows,
    start_ns: Rows,
    span_id: npt.NDArray[np.uint64],
) -> Rows:
    """Return one row of each cycle, its earliest, given the rows on and below cycles."""
    ahead = parent_row.copy()
    for _ in range(len(unsettled).bit_length()):
        ahead[unsettled] = ahead[ahead[unsettled]]
    on_cycle = np.unique(ahead[unsettled])  # 2^k >= n steps up from anywhere there, one is on the cycle
    by_time = on_cycle[np.lexsort((on_cycle, span_id[on_cycle], start_ns[on_cycle]))]
    rank = np.full(len(parent_row), len(parent_row), dtype=np.int64)
    rank[by_time] = np.arange(len(by_time))
    lowest = rank.copy()
    ahead = parent_row.copy()
    for _ in range(len(on_cycle).bit_length()):
        lowest[on_cycle] = np.minimum(lowest[on_cycle], lowest[ahead[on_cycle]])
        ahead[on_cycle] = ahead[ahead[on_cycle]]
    cut: Rows = on_cycle[lowest[on_cycle] == rank[on_cycle]]
    return cut
