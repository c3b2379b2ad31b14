"""Moves every tree onto the clock of its head, in machine code; `perflab.trace.skew` tells what it means."""

from __future__ import annotations

from perflab.compiled import CODES, INTS, Codes, Int64s, entrance


@entrance(INTS, INTS, INTS, INTS, CODES, INTS)
def move_trees(
    order: Int64s, parent_row: Int64s, raw_ns: Int64s, duration_ns: Int64s, pair: Codes, offset_ns: Int64s
) -> tuple[Int64s, int, int]:
    """Shift each call by its offset and centre what still sticks out, parents first.

    Parameters
    ----------
    order : int64[m]
        Rows, parents before children.
    parent_row, raw_ns, duration_ns : int64[n]
        A duration below 0 counts as 0.
    pair : int32[n]
        Of a callee on another host, the number of their pair; else -1.
    offset_ns : int64[pairs]
        The callee's clock minus the caller's.

    Returns
    -------
    start_ns : int64[n]
    shifted, centred : int
    """
    start = raw_ns.copy()
    shifted = centred = 0
    for row in order:
        parent = parent_row[row]
        if parent < 0:
            continue
        moved = raw_ns[row] + (start[parent] - raw_ns[parent])
        if pair[row] >= 0:
            moved -= offset_ns[pair[row]]
            room = max(duration_ns[parent], 0) - max(duration_ns[row], 0)
            early = moved - start[parent]
            if room >= 0 and (early < 0 or early > room):
                moved = start[parent] + room // 2
                centred += 1
        start[row] = moved
        shifted += moved != raw_ns[row]
    return start, shifted, centred
