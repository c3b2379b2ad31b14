"""Ranking entities by what removing their exclusive critical time would save, with intervals.

Also where the line is drawn between a bottleneck and a profile that is merely not quite level:

An entity *stands out* if it leads the ranking, alone or as one of at most three, and

- the lower end of its share's interval reaches the floor: 20 % of the time, and twice what an equal split
  among the entities with 1 % or more would give it, but never more than one half;
- the next entity after the leaders has less than two thirds of the last leader's share.

The floor rises for short profiles because the largest of five parts is a third by chance alone. Above one
half no other part can be as large. Two thirds is a convention: a smaller gap would change hands with the
next release.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import Resampling, interval
from perflab.analysis.criticalpath import CriticalPath
from perflab.analysis.pathtable import entity_table
from perflab.analysis.walk import ON_PATH
from perflab.units import NS_PER_MS

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ALL = "all"
"""What a ranking over all entry operations has in their place."""

MIN_SHARE = 0.20
MAX_FLOOR = 0.50
COUNTED_SHARE = 0.01
MIN_LEAD = 1.5
MAX_LEADERS = 3

_ESTIMATES = ("gain_ms", "low_ms", "high_ms", "share_low_ratio", "share_high_ratio", "calls_per_request")


def rank(path: CriticalPath, among: Mask, entry: str) -> pd.DataFrame:
    """Rank the entities on the critical paths of some requests.

    Parameters
    ----------
    path : CriticalPath
        The walked requests.
    among : bool[requests]
        Those to rank over; at least one.
    entry : str
        What to call them: an entry operation or "all".

    Returns
    -------
    pandas.DataFrame
        As ``CriticalPath.table`` over these requests, greatest gain first, with ``entry``, ``rank``,
        ``gain_ms`` (exclusive time per request), ``low_ms high_ms`` (its 95 % interval),
        ``share_low_ratio share_high_ratio``, ``calls_per_request`` and ``stands_out``.
    """
    table = entity_table(path.walked, ON_PATH, among)
    totals, blocks = resampled(path, among, table["entity"].tolist())
    total_ns = int(path.entries["duration_ns"].to_numpy()[among].sum())
    return add_estimates(table, totals, blocks, int(among.sum()), total_ns, entry)


def add_estimates(
    table: pd.DataFrame, totals: Floats, blocks: int, size: int, total_ns: int, entry: str
) -> pd.DataFrame:
    """Turn sums per entity into a ranking.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns of `perflab.analysis.pathtable.entity_table`, most time first; changed in place.
    totals : float64[rounds, 2 + entities]
        As of `resampled`, in the order of ``table``.
    blocks : int
        Blocks they were drawn from.
    size, total_ns : int
        How many requests there are, and their summed duration.
    entry : str
        What to call them.

    Returns
    -------
    pandas.DataFrame
        As of `rank`.
    """
    requests, duration, entities = totals[:, :1], totals[:, 1:2], totals[:, 2:]
    exclusive = table["exclusive_ns"].to_numpy()
    gain, share = exclusive / size / NS_PER_MS, exclusive / max(total_ns, 1)
    low, high = interval(entities / requests / NS_PER_MS, gain, blocks)
    share_low, share_high = interval(entities / np.maximum(duration, 1.0), share, blocks)
    table.insert(table.columns.get_loc("p99_ms") + 1, "share_ratio", share)
    table["entry"] = entry
    table["rank"] = np.arange(1, len(table) + 1)
    table["gain_ms"], table["low_ms"], table["high_ms"] = gain, np.maximum(low, 0.0), high
    table["share_low_ratio"] = np.maximum(share_low, 0.0)
    table["share_high_ratio"] = np.minimum(share_high, 1.0)
    table["calls_per_request"] = table["calls"] / size
    table["stands_out"] = set_apart(share, share_low)
    return table


def empty_ranking(path: CriticalPath) -> pd.DataFrame:
    """Return a ranking without rows."""
    table = path.table.head(0).reset_index(drop=True)
    return table.assign(
        entry=pd.Series(dtype="str"),
        rank=pd.Series(dtype="int64"),
        **{name: pd.Series(dtype="float64") for name in _ESTIMATES},
        stands_out=pd.Series(dtype="bool"),
    )


def resampled(path: CriticalPath, among: Mask, entities: Sequence[str], seed: int = 0) -> tuple[Floats, int]:
    """Return resampled sums over some requests.

    Parameters
    ----------
    path : CriticalPath
        The walked requests.
    among : bool[requests]
        Those to sum over; at least one.
    entities : sequence of str
        The entities to sum for; those on no path have sums of 0.
    seed : int
        What the draws depend on.

    Returns
    -------
    float64[rounds, 2 + entities]
        Requests, their duration (ns), the exclusive time of each entity (ns).
    int
        Blocks they were drawn from.
    """
    entries = path.entries
    number = np.cumsum(among) - 1
    resampling = Resampling.of(entries["start_ns"].to_numpy()[among], seed=seed)
    cell = resampling.cell_of(number[among])
    per_cell = np.zeros((resampling.cells, 2 + len(entities)))
    np.add.at(per_cell[:, 0], cell, 1.0)
    np.add.at(per_cell[:, 1], cell, entries["duration_ns"].to_numpy()[among])

    request = path.exclusive["request"].to_numpy()
    is_in = among[request]
    named = path.exclusive["entity"].array
    column = pd.Index(entities).get_indexer(named.categories)[named.codes[is_in]]
    is_wanted = column >= 0
    cells = resampling.cell_of(number[request[is_in]])[is_wanted]
    values = path.exclusive["exclusive_ns"].to_numpy()[is_in][is_wanted]
    np.add.at(per_cell, (cells, column[is_wanted] + 2), values)
    return resampling.sums(per_cell), resampling.blocks


def set_apart(share: Floats, share_low: Floats) -> Mask:
    """Return which of a ranking's entities stand out, by the rule above.

    Parameters
    ----------
    share, share_low : float64[n]
        Shares, greatest first, and the lower ends of their intervals.

    Examples
    --------
    >>> set_apart(np.array([0.6, 0.2, 0.1]), np.array([0.55, 0.17, 0.08])).tolist()
    [True, False, False]
    >>> set_apart(np.array([0.3, 0.25, 0.25, 0.2]), np.array([0.28, 0.22, 0.22, 0.18])).any()
    np.False_
    """
    apart = np.zeros(len(share), dtype=bool)
    counted = max(1, int((share >= COUNTED_SHARE).sum()))
    floor = min(MAX_FLOOR, max(MIN_SHARE, 2 / counted))
    for leaders in range(1, min(MAX_LEADERS, len(share)) + 1):
        if share_low[:leaders].min() < floor:
            break
        following = share[leaders] if leaders < len(share) else 0.0
        if share[leaders - 1] >= MIN_LEAD * following:
            apart[:leaders] = True
            break
    return apart
