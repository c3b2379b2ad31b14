"""Which entity saturates first: whose calls take longer when more of them are in flight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.pathtable import Walked
from perflab.analysis.utilisation import competing_calls, measure
from perflab.analysis.waiting import MIN_CALLS, MIN_CORRELATION, MIN_GROWTH, spearman
from perflab.analysis.walk import ON_PATH
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]

COLUMNS = (
    "entity", "calls", "quiet_ms", "busy_ms", "growth_ms", "correlation", "workers", "utilisation_ratio",
    "grows",
)  # fmt: skip


def growth_table(walked: Walked, before_ns: int) -> pd.DataFrame:
    """Compare each entity's calls when few and when many were in flight.

    Parameters
    ----------
    walked : Walked
        The walked span table.
    before_ns : int
        Only requests that began before this moment count.

    Returns
    -------
    pandas.DataFrame
        One row per entity with at least 50 calls on a path, the one that grows most first: ``entity``,
        ``calls``, ``quiet_ms busy_ms`` (mean exclusive time of a call in the third of calls with fewest and
        with most in flight), ``growth_ms`` (their difference), ``correlation`` (Spearman's, between
        exclusive time and calls in flight), ``workers utilisation_ratio`` (see
        `perflab.analysis.utilisation`), ``grows`` (clearly: by half, with a correlation of 0.3).
    """
    rows = walked.rows(ON_PATH)
    began = walked.tree.start_ns[walked.roots][walked.request[rows]] if len(walked.roots) else rows
    rows = rows[began < before_ns]
    by_code = np.argsort(walked.entities.code[rows], kind="stable")
    rows = rows[by_code]
    bounds = np.searchsorted(walked.entities.code[rows], np.arange(walked.entities.size + 1))
    found = [
        _growth(walked, code, rows[bounds[code] : bounds[code + 1]], before_ns)
        for code in np.flatnonzero(np.diff(bounds) >= MIN_CALLS).tolist()
    ]
    table = pd.DataFrame(found, columns=list(COLUMNS))
    return table.sort_values(
        ["grows", "growth_ms", "entity"], ascending=[False, False, True], ignore_index=True
    )


def _growth(walked: Walked, code: int, rows: Int64s, before_ns: int) -> dict[str, object]:
    calls = competing_calls(walked, code)
    is_early = calls.begin_ns < before_ns
    begin, finish, took_ns = calls.begin_ns[is_early], calls.finish_ns[is_early], calls.took_ns[is_early]
    starts, ends = np.sort(begin), np.sort(finish)
    began = walked.tree.start_ns[rows]
    in_flight = np.searchsorted(starts, began) - np.searchsorted(ends, began, side="right")
    took_ms = walked.walk.exclusive_ns[rows] / NS_PER_MS
    by_load = np.argsort(in_flight, kind="stable")
    third = max(1, len(rows) // 3)
    quiet, busy = float(took_ms[by_load[:third]].mean()), float(took_ms[by_load[-third:]].mean())
    correlation = spearman(took_ms, in_flight)
    served = measure(begin, finish, took_ns)
    return {
        "entity": walked.entities.names[code],
        "calls": len(rows),
        "quiet_ms": quiet,
        "busy_ms": busy,
        "growth_ms": busy - quiet,
        "correlation": correlation,
        "workers": served.workers,
        "utilisation_ratio": served.utilisation_ratio,
        "grows": bool(correlation >= MIN_CORRELATION and busy >= MIN_GROWTH * quiet),
    }
