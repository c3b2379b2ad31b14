"""Moves every tree onto the clock of its head, in machine code; `perflab.trace.skew` tells what it means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perflab.compiled import FLAGS, INTS, Int64s, entrance

Mask = npt.NDArray[np.bool_]


@entrance(INTS, INTS, INTS, INTS, INTS, FLAGS)
def move_trees(
    order: Int64s, parent_row: Int64s, raw_ns: Int64s, duration_ns: Int64s, offset_ns: Int64s, is_call: Mask
) -> tuple[Int64s, int, int]:
    """Shift each call by its offset and centre what still sticks out, parents first.

    Parameters
    ----------
    order : int64[m]
        Rows, parents before children.
    parent_row, raw_ns, duration_ns, offset_ns : int64[n]
        ``duration_ns`` is not negative; ``offset_ns`` is the callee's clock minus the caller's.
    is_call : bool[n]
        A callee on another host.

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
        moved = raw_ns[row] + (start[parent] - raw_ns[parent]) - offset_ns[row]
        if is_call[row]:
            room, early = duration_ns[parent] - duration_ns[row], moved - start[parent]
            if room >= 0 and (early < 0 or early > room):
                moved = start[parent] + room // 2
                centred += 1
        start[row] = moved
        shifted += moved != raw_ns[row]
    return start, shifted, centred
