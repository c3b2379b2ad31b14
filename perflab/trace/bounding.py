"""Bounds the offset of two hosts' clocks by the calls between them, in machine code.

`perflab.trace.skew` tells what it means.
"""

from __future__ import annotations

import numpy as np

from perflab.compiled import CODES, INT, INTS, SHORTS, Codes, Int64s, Shorts, entrance, number
from perflab.trace.schema import KINDS

_SERVER, _CLIENT = KINDS.index("server"), KINDS.index("client")


@entrance(INTS, SHORTS, CODES, INTS, INTS, INT)
def bound_offsets(
    parent_row: Int64s, kind: Shorts, host: Codes, start_ns: Int64s, duration_ns: Int64s, hosts: int
) -> tuple[Codes, Int64s, Int64s, Int64s, Int64s]:
    """Find the calls between hosts, and between what their offset lies.

    Parameters
    ----------
    parent_row : int64[n]
        -1 for heads.
    kind : int8[n]
        As in `perflab.trace.tree.Forest`, ``kind_rank``.
    host : int32[n]
        -1 where there is none.
    start_ns, duration_ns : int64[n]
        A duration below 0 counts as 0.
    hosts : int
        More than any of them.

    Returns
    -------
    pair : int32[n]
        Number of the pair of hosts, of SERVER spans whose parent is a CLIENT span on another host; else -1.
    keys : int64[pairs]
        Which hosts those are: ``(caller + 1) * hosts + callee + 1``.
    calls : int64[pairs]
        How many calls each pair has.
    highest, lowest : int64[pairs]
        How far the callee's clock is ahead of the caller's: not less, and not more, than this by any call.
    """
    count = 0
    rows = np.empty(len(parent_row) + 1, dtype=np.int32)
    for row in range(len(parent_row)):
        parent = max(parent_row[row], 0)
        is_call = (kind[row] == _SERVER) & (kind[parent] == _CLIENT) & (host[row] != host[parent])
        rows[count] = row
        count += is_call & (parent_row[row] >= 0)  # without a branch, which nothing would foretell
    keys = np.empty(count, dtype=np.int64)
    for at in range(count):
        keys[at] = (host[parent_row[rows[at]]] + 1) * hosts + host[rows[at]] + 1
    distinct = number(keys)
    pair, calls = np.full(len(parent_row), -1, dtype=np.int32), np.zeros(len(distinct), dtype=np.int64)
    extreme = np.iinfo(np.int64)
    highest, lowest = np.full(len(distinct), extreme.min), np.full(len(distinct), extreme.max)
    for at in range(count):
        row, one = rows[at], keys[at]
        parent = parent_row[row]
        pair[row] = one
        early = start_ns[row] - start_ns[parent]
        calls[one] += 1
        highest[one] = max(highest[one], early + max(duration_ns[row], 0) - max(duration_ns[parent], 0))
        lowest[one] = min(lowest[one], early)
    return pair, distinct, calls, highest, lowest
