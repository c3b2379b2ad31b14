"""How far the clocks of hosts are apart, and spans on one clock.

Spans of one trace come from several machines whose clocks differ by milliseconds; a call may seem to
begin before it was sent. The offset of a pair of hosts is estimated from all calls between them: whatever
the network does, a callee's span lies within its caller's, so each call bounds the offset from both
sides. The bounds most calls agree on are kept (Marzullo's algorithm, as in RFC 5905, section 11.2.1) and
their middle taken, which is the minimum-gap estimate ``(min forward gap - min backward gap) / 2`` of NTP
wherever all calls agree. A call that outlived its caller has one wrong bound and is outvoted.

Raw times are never altered: what comes back is a derived copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.trace.schema import check_spans
from perflab.trace.tree import Forest, link

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Start times on the clock of each tree's head.

    Attributes
    ----------
    start_ns : int64[n]
        Derived start of every row of the span table; durations stay what they are.
    shifted : int
        Spans whose derived start differs from the raw one.
    centred : int
        Callees that still stuck out of their caller and were put in its middle.
    """

    start_ns: Int64s
    shifted: int
    centred: int


def clock_offsets(spans: pd.DataFrame, forest: Forest | None = None) -> pd.DataFrame:
    """Estimate the clock offset of every pair of hosts that call each other.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    forest : Forest, optional
        ``link(spans)``, where it is there already.

    Returns
    -------
    pandas.DataFrame
        One row per pair, sorted by hosts: ``caller_host``, ``callee_host``, ``calls`` (CLIENT->SERVER
        pairs of spans), ``agreeing`` (calls that fit into their caller at this offset) and
        ``offset_ns`` (callee's clock minus caller's).

    Raises
    ------
    SchemaError
        If it is no span table.

    Notes
    -----
    Of a call with caller ``[cs, ce]`` and callee ``[ss, se]`` the offset lies in
    ``[se - ce, ss - cs]``. Calls longer than their caller fit at no offset; where there are only such,
    the smallest ``ss - cs`` is taken. The offset is taken to be constant over the table, and the fastest
    call to spend equal time on both ways: an error of at most half of its gap, which no data can remove.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> server = S("stock", "GET /", 1010, 1050, kind="server", host="b")
    >>> table = spans([S("order", "GET stock", 0, 100, kind="client", host="a", children=[server])])
    >>> clock_offsets(table)["offset_ns"].tolist()  # 980 ms
    [980000000]
    """
    check_spans(spans)
    calls = _Calls.of(spans, link(spans) if forest is None else forest)
    names = ("caller_host", "callee_host", "calls", "agreeing", "offset_ns")
    dtypes = ("str", "str", "int64", "int64", "int64")
    table = pd.DataFrame(sorted(calls.pairs), columns=names)
    return table.astype(dict(zip(names, dtypes, strict=True)))


def align(spans: pd.DataFrame, forest: Forest, clocks: pd.DataFrame | None = None) -> Alignment:
    """Put each tree's spans on the clock of its head.

    Every cross-host CLIENT->SERVER subtree is shifted by its pair's offset; a callee that still sticks
    out of its caller, though it is not longer, is centred there, its subtree with it.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    forest : Forest
        ``link(spans)``.
    clocks : pandas.DataFrame, optional
        Offsets that are known, as from `clock_offsets`; pairs of hosts that are not there are estimated.

    Returns
    -------
    Alignment
        Shifting all times of one host by any amount changes no start relative to its tree's head.
    """
    raw = spans["start_ns"].to_numpy()
    calls = _Calls.of(spans, forest, clocks)
    if not calls.pairs:
        return Alignment(raw.copy(), 0, 0)
    from perflab.compiled import in_one_piece
    from perflab.trace.aligning import move_trees

    start, shifted, centred = move_trees(
        in_one_piece(forest.order),
        in_one_piece(forest.parent_row),
        in_one_piece(raw),
        in_one_piece(spans["duration_ns"]),
        calls.pair,
        np.array([pair[-1] for pair in calls.pairs], dtype=np.int64),
    )
    return Alignment(start, shifted, centred)


@dataclass(frozen=True, eq=False)
class _Calls:
    """The cross-host calls: the number of each one's pair at the callee's row, else -1, and the pairs.

    Of a pair: its hosts, how many calls there are and how many agree on the offset, and that.
    """

    pair: npt.NDArray[np.int32]
    pairs: list[tuple[str, str, int, int, int]]

    @classmethod
    def of(cls, spans: pd.DataFrame, forest: Forest, clocks: pd.DataFrame | None = None) -> _Calls:
        from perflab.compiled import in_one_piece
        from perflab.trace.bounding import bound_offsets

        host = spans["host"].array
        names = [*host.categories.astype(object), ""]  # the last one for no host at all
        start, duration = in_one_piece(spans["start_ns"]), in_one_piece(spans["duration_ns"])
        codes = in_one_piece(host.codes, np.int32)
        parent_row = in_one_piece(forest.parent_row)
        pair, *found = bound_offsets(parent_row, forest.kind_rank, codes, start, duration, len(names))
        known = _known(clocks)
        pairs = []
        for at, (key, calls, highest, lowest) in enumerate(
            zip(*(some.tolist() for some in found), strict=True)
        ):
            hosts = names[key // len(names) - 1], names[key % len(names) - 1]
            if hosts in known:
                agreed = known[hosts]
            elif highest <= lowest:  # one offset fits all
                agreed = calls, (highest + lowest) // 2
            else:
                agreed = _agreed_offset(
                    start, np.maximum(duration, 0), parent_row, np.flatnonzero(pair == at)
                )
            pairs.append((*hosts, calls, *agreed))
        return cls(pair, pairs)


def _known(clocks: pd.DataFrame | None) -> dict[tuple[str, str], tuple[int, int]]:
    """Return how many calls agree on the offset of each pair of hosts, and the offset."""
    if clocks is None:
        return {}
    columns = ("caller_host", "callee_host", "agreeing", "offset_ns")
    rows = zip(*(clocks[name].tolist() for name in columns), strict=True)
    return {(caller, callee): (agreeing, offset) for caller, callee, agreeing, offset in rows}


def _agreed_offset(start: Int64s, duration: Int64s, parent_row: Int64s, rows: Int64s) -> tuple[int, int]:
    """Return on what offset most calls agree: how many, and the middle of where their bounds overlap."""
    callers = parent_row[rows]
    most = start[rows] - start[callers]
    least = most + duration[rows] - duration[callers]
    fits = least <= most
    if not fits.any():
        return 0, int(most.min())
    points = np.concatenate([least[fits], most[fits]])
    steps = np.repeat([1, -1], int(fits.sum()))
    order = np.lexsort((-steps, points))  # at one point intervals open before others close
    points, overlap = points[order], np.cumsum(steps[order])
    best = int(overlap.max())
    opens = np.flatnonzero(overlap == best)  # the next point closes one of them
    width = points[opens + 1] - points[opens]
    narrowest = opens[int(np.argmin(width))]
    return best, int(points[narrowest] + points[narrowest + 1]) // 2
