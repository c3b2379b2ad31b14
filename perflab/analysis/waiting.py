"""Waiting to be accepted: edges whose gap grows with load, and who is to blame.

The gap of an edge holds the network and the callee's accept queue, and no span tells one from the other. A
queue does: it is longer when more calls are in flight. Where it is, the edge shows the harm but is not the
cause: workers of the callee are busy, and what they are busy with holds everyone up who waits for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import EDGE
from perflab.analysis.pathtable import Walked
from perflab.analysis.walk import ON_PATH
from perflab.units import NS_PER_MS

MIN_CALLS = 50
MIN_CORRELATION = 0.3
MIN_GROWTH = 1.5
MIN_HOLD = 0.5
"""Share of the callee's time, waiting at further edges aside, that makes an entity the one that holds it."""


@dataclass(frozen=True)
class Growth:
    """How an edge's gap goes with the calls to its callee that are in flight.

    Attributes
    ----------
    calls : int
        Calls compared.
    correlation : float
        Spearman's, between gap and calls in flight as it began; NaN where there is nothing to compare.
    quiet_ms, busy_ms : float
        Mean gap in the third of calls with fewest and with most in flight.
    """

    calls: int
    correlation: float
    quiet_ms: float
    busy_ms: float

    @property
    def is_known(self) -> bool:
        """Whether there were enough calls, and calls enough at once, to tell."""
        return self.calls >= MIN_CALLS and not math.isnan(self.correlation)

    @property
    def grows(self) -> bool:
        """Whether the gap is clearly longer when more is in flight."""
        grown = self.busy_ms >= MIN_GROWTH * self.quiet_ms
        return self.is_known and self.correlation >= MIN_CORRELATION and grown


@dataclass(frozen=True)
class Holder:
    """What keeps the workers of an edge's callee busy.

    Attributes
    ----------
    entity : str
        Its name.
    share_ratio : float
        Of the time spent in the callee and below it, waiting at further growing edges aside.
    """

    entity: str
    share_ratio: float


class Waiting:
    """Looks at the edges of walked traces.

    Parameters
    ----------
    walked : Walked
        The walked span table.
    """

    def __init__(self, walked: Walked) -> None:
        self.walked = walked
        self.rows = walked.rows(ON_PATH)
        self.code = walked.entities.code[self.rows]
        self.growth = cache(self._growth)

    def holder(self, edge: str) -> Holder | None:
        """Return what holds the callee's workers, if one entity has at least half of their time.

        Parameters
        ----------
        edge : str
            An edge whose gap grows.
        """
        names = self.walked.entities.names
        code = names.index(edge)
        sums = self._time_below(code)
        kinds = self.walked.entities.table["kind"].tolist()
        for other in np.flatnonzero(sums).tolist():
            if kinds[other] == EDGE and self.growth(other).grows:
                sums[other] = 0
        total = int(sums.sum())
        longest = int(np.argmax(sums))
        if not total or sums[longest] < MIN_HOLD * total:
            return None
        return Holder(names[longest], int(sums[longest]) / total)

    def _growth(self, code: int) -> Growth:
        """Compare an edge's gap with the calls to its callee in flight when each began."""
        walked = self.walked
        rows = self.rows[self.code == code]
        callee = walked.entities.table["callee"]
        to_callee = (callee == callee.iloc[code]).to_numpy()
        calls = np.flatnonzero(to_callee[walked.entities.code] & (walked.request >= 0))
        starts, ends = np.sort(walked.tree.start_ns[calls]), np.sort(walked.tree.end_ns[calls])
        began = walked.tree.start_ns[rows]
        in_flight = np.searchsorted(starts, began) - np.searchsorted(ends, began, side="right")
        gap_ms = walked.walk.exclusive_ns[rows] / NS_PER_MS
        by_load = np.argsort(in_flight, kind="stable")
        third = max(1, len(rows) // 3)
        return Growth(
            calls=len(rows),
            correlation=spearman(gap_ms, in_flight),
            quiet_ms=float(gap_ms[by_load[:third]].mean()),
            busy_ms=float(gap_ms[by_load[-third:]].mean()),
        )

    def _time_below(self, edge: int) -> npt.NDArray[np.int64]:
        """Return per entity its exclusive time in and below the callees of an edge."""
        walked = self.walked
        calls = self.rows[self.code == edge]
        inside = set(walked.entities.callee_row[calls].tolist())
        below = np.zeros(len(self.rows), dtype=bool)
        parents = walked.forest.parent_row[self.rows].tolist()
        for place, (row, parent) in enumerate(zip(self.rows.tolist(), parents, strict=True)):
            if row in inside or parent in inside:
                inside.add(row)
                below[place] = True
        sums = np.zeros(walked.entities.size, dtype=np.int64)
        np.add.at(sums, self.code[below], walked.walk.exclusive_ns[self.rows[below]])
        return sums


def spearman(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Return Spearman's correlation; NaN where there is nothing to compare."""
    if len(first) < 3 or (first == first[0]).all() or (second == second[0]).all():
        return math.nan
    return float(np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1])
