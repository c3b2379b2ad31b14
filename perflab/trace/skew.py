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
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.trace.schema import check_spans
from perflab.trace.tree import Forest, link

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Start times on the clock of each tree's head.

    Attributes
    ----------
    start_ns : int64[n]
        Derived start of every row of the span table; durations stay what they are.
    pairs : pandas.DataFrame
        As `clock_offsets` returns it.
    shifted : int
        Spans whose derived start differs from the raw one.
    centred : int
        Callees that still stuck out of their caller and were put in its middle.
    """

    start_ns: Int64s
    pairs: pd.DataFrame
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
    return calls.pairs


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
    if not calls.rows.size:
        return Alignment(raw.copy(), calls.pairs, 0, 0)
    duration = np.maximum(spans["duration_ns"].to_numpy(), 0)
    offset = np.zeros(len(raw), dtype=np.int64)
    offset[calls.rows] = calls.pairs["offset_ns"].to_numpy()[calls.pair]
    is_call = np.zeros(len(raw), dtype=bool)
    is_call[calls.rows] = True

    from perflab.compiled import in_one_piece
    from perflab.trace.aligning import move_trees

    start, shifted, centred = move_trees(
        in_one_piece(forest.order),
        in_one_piece(forest.parent_row),
        in_one_piece(raw),
        duration,
        offset,
        is_call,
    )
    return Alignment(start, calls.pairs, shifted, centred)


@dataclass(frozen=True, eq=False)
class _Calls:
    """The cross-host calls: the callee's rows, the number of each one's pair, and the pairs."""

    rows: Int64s
    pair: Int64s
    pairs: pd.DataFrame

    @classmethod
    def of(cls, spans: pd.DataFrame, forest: Forest, clocks: pd.DataFrame | None = None) -> _Calls:
        kind = spans["kind"].array
        host = spans["host"].array
        parent_row = forest.parent_row
        is_call = (parent_row >= 0) & np.asarray(kind == "server")
        is_call &= np.asarray(kind == "client")[parent_row]
        is_call &= host.codes != host.codes[parent_row]
        callee = np.flatnonzero(is_call)
        caller = parent_row[callee]

        pair, pairs = _number_pairs(host, caller, callee)
        known = _known(clocks)
        hosts = list(zip(pairs["caller_host"].tolist(), pairs["callee_host"].tolist(), strict=True))
        if all(two in known for two in hosts):
            found = [known[two] for two in hosts]
        else:
            start = spans["start_ns"].to_numpy()
            duration = np.maximum(spans["duration_ns"].to_numpy(), 0)
            most = start[callee] - start[caller]
            least = most + duration[callee] - duration[caller]
            by_pair = np.argsort(pair, kind="stable")
            bounds = np.searchsorted(pair[by_pair], np.arange(len(pairs) + 1)).tolist()
            found = [
                known.get(two) or _agreed_offset(least[by_pair[begin:end]], most[by_pair[begin:end]])
                for two, (begin, end) in zip(hosts, pairwise(bounds), strict=True)
            ]
        pairs["agreeing"] = np.array([agreeing for agreeing, _ in found], dtype=np.int64)
        pairs["offset_ns"] = np.array([offset for _, offset in found], dtype=np.int64)
        return cls(callee, pair, pairs)


def _known(clocks: pd.DataFrame | None) -> dict[tuple[str, str], tuple[int, int]]:
    """Return how many calls agree on the offset of each pair of hosts, and the offset."""
    if clocks is None:
        return {}
    columns = ("caller_host", "callee_host", "agreeing", "offset_ns")
    rows = zip(*(clocks[name].tolist() for name in columns), strict=True)
    return {(caller, callee): (agreeing, offset) for caller, callee, agreeing, offset in rows}


def _number_pairs(host: pd.Categorical, caller: Int64s, callee: Int64s) -> tuple[Int64s, pd.DataFrame]:
    """Return the number of each call's pair of hosts, and the pairs with how many calls each has."""
    names = np.array([*host.categories, ""], dtype=object)  # the last one for no host at all
    width = len(names)
    key = (host.codes[caller] % width).astype(np.int64) * width + host.codes[callee] % width
    found, used = pd.factorize(key)
    pairs = pd.DataFrame({"caller_host": names[used // width], "callee_host": names[used % width]})
    by_name = pairs.sort_values(["caller_host", "callee_host"]).index.to_numpy()
    place = np.empty(len(used), dtype=np.int64)
    place[by_name] = np.arange(len(used))
    pair: Int64s = place[found]
    pairs = pairs.iloc[by_name].reset_index(drop=True)
    pairs["calls"] = np.bincount(pair, minlength=len(used))
    return pair, pairs


def _agreed_offset(least: Int64s, most: Int64s) -> tuple[int, int]:
    """Return how many of the intervals ``[least, most]`` overlap at best, and the middle of where."""
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
