"""Calls that wait in a line for the next free worker, in machine code; `whatif_queue` tells what it means.

J. Kiefer and J. Wolfowitz, On the theory of queues with many servers, 1955: a call is served as soon as it
has come and the worker that is free first has nothing else to do. No distribution of times is assumed.
"""

from __future__ import annotations

import numpy as np

from perflab.compiled import INT, INTS, Int64s, compiled, entrance


@compiled
def _first_free(free: Int64s, workers: int) -> int:
    """Return the worker that is free first."""
    best = 0
    for worker in range(1, workers):
        if free[worker] < free[best]:
            best = worker
    return best


@entrance(INTS, INTS, INTS, INT)
def wait_in_line(order: Int64s, arrival: Int64s, service: Int64s, workers: int) -> Int64s:
    """Return what each call waits for a worker, first come, first served.

    Parameters
    ----------
    order : int64[calls]
        The calls in order of arrival.
    arrival, service : int64[calls]
        When each comes, and how long a worker is busy with it, in ns.
    workers : int

    Returns
    -------
    int64[calls]
    """
    wait = np.zeros(len(order), dtype=np.int64)
    free = np.full(workers, np.iinfo(np.int64).min, dtype=np.int64)
    for call in order:
        worker = _first_free(free, workers)
        if free[worker] > arrival[call]:
            wait[call] = free[worker] - arrival[call]
        free[worker] = arrival[call] + wait[call] + service[call]
    return wait


@entrance(INTS, INTS, INTS, INT)
def waited_in_line(order: Int64s, arrival: Int64s, finish: Int64s, workers: int) -> Int64s:
    """Return what each call must have waited for a worker, given when it was answered.

    Parameters
    ----------
    order : int64[calls]
        The calls in order of arrival.
    arrival, finish : int64[calls]
        In ns.
    workers : int

    Returns
    -------
    int64[calls]
        Never more than the call took: one that overtook others did not wait for them.
    """
    wait = np.zeros(len(order), dtype=np.int64)
    free = np.full(workers, np.iinfo(np.int64).min, dtype=np.int64)
    for call in order:
        worker = _first_free(free, workers)
        if free[worker] > arrival[call]:
            wait[call] = min(free[worker], finish[call]) - arrival[call]
        free[worker] = max(free[worker], finish[call])
    return wait
