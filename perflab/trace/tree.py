"""Who called whom: links a span table into trees, as arrays over its rows.

The structure is derived, never stored in the table, where it would go stale on the first filter. The links
are found in machine code (`perflab.trace.linking`), a few times per span and without recursion, however deep
a trace is. Whatever is broken in the input (duplicated rows, absent parents, cycles) gets a defined place and
is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.errors import SchemaError
from perflab.trace.schema import check_spans, rank_kinds

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
    kind_rank : int8[n]
        The place of the row's kind in `perflab.trace.schema.KINDS`; one that is not there comes after them,
        none at all last.
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
    kind_rank: npt.NDArray[np.int8]
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
    from perflab.compiled import in_one_piece
    from perflab.trace.linking import link_rows

    numbers = np.empty((4, len(spans)), dtype=np.int64)
    trace_code, parent_row, head_row, order = numbers
    traces = _number_traces(spans["trace_id"].array, trace_code)
    kind = spans["kind"].array
    parent_id = spans["parent_span_id"].to_numpy()
    placed, trace_offsets, depth, kind_rank, is_orphan, doubles, cycles = link_rows(
        trace_code,
        traces,
        in_one_piece(spans["span_id"], np.uint64),
        in_one_piece(parent_id, np.uint64),
        in_one_piece(kind.codes, np.int32),
        _preference(kind),
        rank_kinds(kind),
        in_one_piece(spans["start_ns"]),
        numbers[1:],
    )
    return Forest(
        parent_row=parent_row,
        depth=depth,
        head_row=head_row,
        order=order[:placed],
        trace_code=trace_code,
        trace_offsets=trace_offsets,
        kind_rank=kind_rank,
        is_orphan=is_orphan,
        duplicate_rows=doubles,
        traces=traces,
        roots=int((parent_id == 0).sum() - (parent_id[doubles] == 0).sum()),
        orphans=int(is_orphan.sum()) - cycles,
        duplicates=len(doubles),
        cycles=cycles,
    )


def _number_traces(trace_id: pd.Categorical, found: Rows) -> int:
    """Write the number of each row's trace to ``found``; return how many there are."""
    codes = trace_id.codes
    if codes.size == 0:
        return 0
    if codes.min() < 0:
        raise SchemaError(f"row {int(np.argmin(codes))} of the span table has no trace id")
    from perflab.compiled import translate

    found[:] = codes
    used = np.flatnonzero(np.bincount(found, minlength=len(trace_id.categories)))
    if len(used) == len(trace_id.categories) and _is_sorted(trace_id.categories):
        return len(used)
    number = np.empty(len(trace_id.categories), dtype=np.int64)
    by_text = np.argsort(trace_id.categories[used].to_numpy(dtype=object), kind="stable")
    number[used[by_text]] = np.arange(len(used))
    translate(found, number)
    return len(used)


def _is_sorted(texts: pd.Index) -> bool:
    """Tell whether distinct texts are in order: most tables have them so, and seeing it costs little."""
    import pyarrow
    import pyarrow.compute

    array = pyarrow.array(texts)
    is_before = pyarrow.compute.less(array.slice(0, len(array) - 1), array.slice(1))
    return bool(pyarrow.compute.all(is_before).as_py())


def _preference(kind: pd.Categorical) -> Rows:
    """Return how late each kind comes in the choice among rows that share an id; no kind is the last."""
    last = len(_PARENT_PREFERENCE)
    places = [
        _PARENT_PREFERENCE.index(text) if text in _PARENT_PREFERENCE else last for text in kind.categories
    ]
    return np.array([*places, last], dtype=np.int64)
