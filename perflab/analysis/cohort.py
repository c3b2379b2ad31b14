"""Cohorts: two parts of one span table, to be compared: by how long requests took, or how many ran.

Slow against fast tells what makes the tail, loaded against unloaded what gives way under load. Each entry
operation is split on its own. Cohorts differ by construction: that slow requests are slower is no finding,
*where* they are is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.criticalpath import CriticalPath, critical_path
from perflab.errors import AnalysisError

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FAST, UNLOADED = "fast", "unloaded"
COHORTS = (FAST, UNLOADED)
"""What may be asked for in place of a baseline."""

SLOW_RATIO = 0.1
FAST_RATIO = 0.5
MIN_SLOW = 20
MOST_SLOW_RATIO = 0.25
LOAD_RATIO = 1 / 3


def split_cohorts(spans: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Split a span table into what is looked at and what it is held against.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table.
    baseline : {'fast', 'unloaded'}
        "fast": of each entry operation the slowest tenth of its requests (at least 20, at most a quarter)
        against the fastest half. "unloaded": of each entry operation the third of its requests with most
        requests in flight when they began, of whatever operation, against the third with fewest.

    Returns
    -------
    looked_at, held_against : pandas.DataFrame
        Whole traces of ``spans``.
    note : str
        How they were chosen.

    Raises
    ------
    AnalysisError
        If there is no such cohort.
    SchemaError
        If it is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> table = spans([S("shop", "GET /", 100 * at, 100 * at + at, kind="server") for at in range(1, 101)])
    >>> slow, fast, note = split_cohorts(table, "fast")
    >>> int(slow["duration_ns"].min() / 1e6), int(fast["duration_ns"].max() / 1e6), len(slow), len(fast)
    (81, 50, 20, 50)
    """
    if baseline not in COHORTS:
        raise AnalysisError(
            f"there is no cohort {baseline!r}; a baseline is a span table, {FAST!r} or {UNLOADED!r}"
        )
    path = critical_path(spans)
    chosen, against = _by_duration(path) if baseline == FAST else _by_load(path)
    note = (
        "the slowest requests of each entry operation against its fastest half"
        if baseline == FAST
        else "the requests of each entry operation with most others in flight against those with fewest"
    )
    return (
        _traces(spans, path, chosen),
        _traces(spans, path, against),
        f"cohorts: {note} ({int(chosen.sum()):,} and {int(against.sum()):,}); they differ by construction",
    )


def _by_duration(path: CriticalPath) -> tuple[Mask, Mask]:
    place, size = _ranks(path, path.entries["duration_ns"].to_numpy())
    slow = np.maximum(SLOW_RATIO * size, np.minimum(MIN_SLOW, MOST_SLOW_RATIO * size))
    return place >= size - np.floor(slow), place < np.floor(FAST_RATIO * size)


def _by_load(path: CriticalPath) -> tuple[Mask, Mask]:
    begun = path.entries["start_ns"].to_numpy()
    ended = np.sort(begun + path.entries["duration_ns"].to_numpy())
    in_flight = np.searchsorted(np.sort(begun), begun) - np.searchsorted(ended, begun, side="right")
    place, size = _ranks(path, in_flight)
    part = np.floor(LOAD_RATIO * size)
    return place >= size - part, place < part


def _ranks(path: CriticalPath, values: Int64s) -> tuple[Int64s, Int64s]:
    """Return each request's place among its entry operation's, and how many those are."""
    entry: Any = path.entries["entry"].array.codes
    order = np.lexsort((np.arange(len(values)), values, entry))
    sizes = np.bincount(entry) if len(entry) else np.zeros(0, dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.arange(len(values)) - first[entry[order]]
    return place, sizes[entry]


def _traces(spans: pd.DataFrame, path: CriticalPath, chosen: Mask) -> pd.DataFrame:
    """Return the rows of the traces of some requests."""
    trace_id: Any = spans["trace_id"].array
    wanted = np.zeros(len(trace_id.categories), dtype=bool)
    wanted[path.entries["trace_id"].array.codes[chosen]] = True
    return spans[wanted[trace_id.codes]]
