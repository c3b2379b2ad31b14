"""How busy what serves an entity's calls is, as far as spans alone can tell: from its calls in flight.

Workers are not in the spans, but a queue shows: a call that finds all ``c`` workers busy waits, so its
duration grows with the calls it finds in flight from the ``c``-th on, and not before. Where that bend is
seen, the number of workers is known, and so is the part of them that was busy.

Where no bend is seen, the time with at least one call in flight bounds utilisation from above: it would be
that much with a single worker, and less with more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import EDGE
from perflab.analysis.pathtable import Walked
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]

MIN_CALLS = 50
_MIN_GAIN = 8.0
"""By how much the logarithm of the likelihood must rise for a bend to be believed: odds of 3,000 to 1."""


@dataclass(frozen=True)
class Utilisation:
    """How busy what serves some calls is.

    Attributes
    ----------
    calls : int
        Calls looked at.
    in_flight_mean : float
        Over time.
    busy_ratio : float
        Part of the time with a call in flight: utilisation is no more than this.
    workers : int
        How many calls are served at once; 0 where no call was seen to wait for others.
    utilisation_ratio : float
        Mean part of the workers that is busy; NaN where their number is not known.
    wait_ms : float
        What an average call waits for a worker; 0 where their number is not known.
    """

    calls: int
    in_flight_mean: float
    busy_ratio: float
    workers: int
    utilisation_ratio: float
    wait_ms: float


def measure(begin_ns: Int64s, finish_ns: Int64s, took_ns: Int64s | None = None) -> Utilisation:
    """Estimate the utilisation of what serves some calls.

    Parameters
    ----------
    begin_ns, finish_ns : int64[calls]
        When each was sent and answered: waiting for a worker is in between.
    took_ns : int64[calls], optional
        What of that is to grow when workers are busy; left out, all of it.

    Returns
    -------
    Utilisation
        Of ``c`` workers with exponential times of service a call that finds ``n`` others takes ``S`` on
        average if ``n < c``, else ``S (n + 1) / c``; ``S`` and ``c`` are of maximum likelihood. Traffic
        that is not in the table is not seen.

    Examples
    --------
    >>> begin = np.arange(0, 1000, 10)
    >>> found = measure(begin, begin + 4)
    >>> found.workers, round(found.busy_ratio, 2)
    (0, 0.4)
    """
    calls = len(begin_ns)
    starts, ends = np.sort(begin_ns), np.sort(finish_ns)
    if not calls or ends[-1] == starts[0]:
        return Utilisation(calls, 0.0, 0.0, 0, math.nan, 0.0)
    moments = np.concatenate([starts, ends])
    order = np.argsort(moments, kind="stable")
    in_flight = np.cumsum(np.repeat([1, -1], calls)[order])[:-1]
    for_ns = np.diff(moments[order])
    total = float(for_ns.sum())
    workers, wait_ns = _count_workers(
        begin_ns, finish_ns - begin_ns if took_ns is None else took_ns, starts, ends
    )
    return Utilisation(
        calls=calls,
        in_flight_mean=float((in_flight * for_ns).sum()) / total,
        busy_ratio=float(for_ns[in_flight > 0].sum()) / total,
        workers=workers,
        utilisation_ratio=float((np.minimum(in_flight, workers) * for_ns).sum()) / total / workers
        if workers
        else math.nan,
        wait_ms=wait_ns / NS_PER_MS,
    )


def _count_workers(begin: Int64s, took_ns: Int64s, starts: Int64s, ends: Int64s) -> tuple[int, float]:
    """Return how many calls in flight make the next one wait, and for how long (ns); 0, 0 where none does."""
    found = np.searchsorted(starts, begin) - np.searchsorted(ends, begin, side="right")
    found = np.maximum(found, 0)
    took = np.maximum(took_ns, 1).astype(np.float64)
    if len(begin) < MIN_CALLS or not found.any():
        return 0, 0.0
    most = int(found.max())
    calls = np.bincount(found, minlength=most + 1).astype(np.float64)
    sums = np.bincount(found, weights=took, minlength=most + 1)
    others = np.arange(most + 1)
    losses, means = [], []
    for workers in range(1, most + 2):
        waits = np.maximum(1.0, (others + 1) / workers)
        mean = (sums / waits).sum() / calls.sum()
        means.append(mean)
        losses.append(calls.sum() * math.log(mean) + float((calls * np.log(waits)).sum()))
    best = int(np.argmin(losses))
    if losses[-1] - losses[best] < _MIN_GAIN:
        return 0, 0.0
    return best + 1, float(took.mean() - means[best])


def utilisations(walked: Walked, entities: Sequence[str]) -> pd.DataFrame:
    """Estimate the utilisation of what serves each entity.

    Parameters
    ----------
    walked : Walked
        The walked span table. All its calls count, marked and real: they meet at the same workers.
    entities : sequence of str
        Names of entities.

    Returns
    -------
    pandas.DataFrame
        One row per entity: ``entity calls in_flight_mean busy_ratio workers utilisation_ratio wait_ms``.
        Of an edge, the calls to its callee; of an operation that calls nobody who is traced, its own calls;
        of any other, the calls to its service, whose wait is in the edges to it and not in the entity, so
        that ``wait_ms`` is 0. What several operations share unseen (statements to one database) is busier
        than each of them shows.
    """
    rows = []
    for name in entities:
        calls = competing_calls(walked, walked.entities.names.index(name))
        found = vars(measure(calls.begin_ns, calls.finish_ns, calls.took_ns))
        rows.append({"entity": name} | found | {"wait_ms": found["wait_ms"] if calls.is_inside else 0.0})
    return pd.DataFrame(rows, columns=["entity", *Utilisation.__dataclass_fields__])


@dataclass(frozen=True, eq=False)
class Calls:
    """The calls that compete with an entity's for the same workers.

    Attributes
    ----------
    begin_ns, finish_ns : int64[calls]
        When each was sent and answered, as its caller saw it where there is one.
    took_ns : int64[calls]
        What grows with a wait for workers. Of calls to a traced service the gap, on top of the mean time
        of service: what a callee waits for further on is no wait for its own workers.
    is_inside : bool
        Whether the entity's own time has that wait in it.
    row, caller_row : int64[calls]
        The rows of the spans that were served, and of those that called them: themselves, if none did.
    """

    begin_ns: Int64s
    finish_ns: Int64s
    took_ns: Int64s
    is_inside: bool
    row: Int64s
    caller_row: Int64s


def competing_calls(walked: Walked, code: int) -> Calls:
    """Return the calls that meet an entity's at the same workers."""
    entity = walked.entities.table.iloc[code]
    tree = walked.tree
    rows = np.flatnonzero((walked.entities.code == code) & (walked.forest.head_row >= 0))
    is_edge = entity["kind"] == EDGE
    if not is_edge and rows.size and bool(np.asarray(walked.spans["kind"].array[rows] == "client").all()):
        begin, finish = tree.start_ns[rows], tree.end_ns[rows]
        return Calls(begin, finish, finish - begin, True, rows, rows)
    callee, caller = _calls_to(walked, entity["callee"] if is_edge else entity["service"])
    served = tree.end_ns[callee] - tree.start_ns[callee]
    begin, finish = tree.start_ns[caller], tree.end_ns[caller]
    mean = round(float(served.mean())) if len(served) else 0
    return Calls(begin, finish, finish - begin - served + mean, is_edge, callee, caller)


def _calls_to(walked: Walked, service: str) -> tuple[Int64s, Int64s]:
    """Return the spans that were called in a service, and those that called them: themselves, if none did."""
    parent = walked.forest.parent_row
    services = walked.spans["service"].array
    codes = np.asarray(services.codes, dtype=np.int64)
    inside = np.asarray(services == service) & (walked.forest.head_row >= 0)
    rows = np.flatnonzero(inside & ((parent < 0) | (codes != codes[parent])))
    return rows, np.where(walked.tree.is_call[rows], parent[rows], rows)
