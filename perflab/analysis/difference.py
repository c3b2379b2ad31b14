"""What differs between two sets of traces, per entry operation and entity.

A difference in time per request is split into what it is made of: more calls, slower calls, or an entity
that only one side has. Whether it is more than chance is told by Welch's t test on block-bootstrap errors,
and over all entities at once by Benjamini-Hochberg [1]_, so that of the differences called real at most 5 %
are expected to be false. What both sides share within themselves but not with each other (another day,
another machine) is not in these errors.

References
----------
.. [1] Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, 1995.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.bootstrap import false_discovery, interval, p_values
from perflab.analysis.criticalpath import CriticalPath
from perflab.analysis.ranking import resampled
from perflab.units import NS_PER_MS

Floats = npt.NDArray[np.float64]

FALSE_DISCOVERY_RATE = 0.05
SMALLEST_MS = 0.05
SMALLEST_RATIO = 0.01

_COLUMNS = {
    "entry": "str",
    "entity": "str",
    "before_ms": "float64",
    "after_ms": "float64",
    "delta_ms": "float64",
    "low_ms": "float64",
    "high_ms": "float64",
    "calls_before": "float64",
    "calls_after": "float64",
    "more_calls_ms": "float64",
    "slower_calls_ms": "float64",
    "structure_ms": "float64",
    "structure": "str",
    "p_value": "float64",
    "q_value": "float64",
    "differs": "bool",
    "evidence": "str",
}
_ONLY_BEFORE, _ONLY_AFTER = "only in the baseline", "not in the baseline"


def empty_differences() -> pd.DataFrame:
    """Return a table of differences without rows."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _COLUMNS.items()})


def compare_paths(
    before: CriticalPath, after: CriticalPath, min_requests: int
) -> tuple[pd.DataFrame, list[str]]:
    """Compare exclusive critical time per request, entry operation by entry operation.

    Parameters
    ----------
    before, after : CriticalPath
        The baseline and what is held against it.
    min_requests : int
        Requests an entry operation needs on both sides.

    Returns
    -------
    differences : pandas.DataFrame
        Greatest absolute difference first: ``entry entity``; ``before_ms after_ms delta_ms`` (exclusive
        time per request) with ``low_ms high_ms`` (95 % interval of the difference); ``calls_before
        calls_after`` (per request, on the path); ``more_calls_ms`` (calls added, at the baseline's time of
        a call), ``slower_calls_ms`` (calls there are, each slower) and ``structure_ms`` (all of it, where
        ``structure`` says that one side lacks the entity), which sum to ``delta_ms``; ``p_value``,
        ``q_value`` (adjusted over all rows); ``differs``: ``q_value`` <= 0.05 and the difference is at
        least 0.05 ms and 1 % of the operation's mean duration; ``evidence``, a sentence.
    refused : list of str
        Entry operations that were not compared, and why.
    """
    sides = (before.entries["entry"].value_counts(), after.entries["entry"].value_counts())
    tables, refused = [], []
    for entry in sorted(set(sides[0].index) | set(sides[1].index)):
        sizes = [int(side.get(entry, 0)) for side in sides]
        if not any(sizes):
            continue
        if min(sizes) < min_requests:
            refused.append(
                f"{entry}: not compared, {sizes[0]} requests in the baseline and {sizes[1]} here, "
                f"{min_requests} of each are needed"
            )
        else:
            tables.append(_compare_entry(before, after, str(entry)))
    if not tables:
        return empty_differences(), refused
    table = pd.concat(tables, ignore_index=True)
    table["q_value"] = false_discovery(table["p_value"].to_numpy())
    smallest = np.maximum(SMALLEST_MS, SMALLEST_RATIO * table.pop("duration_ms"))
    table["differs"] = (table["q_value"] <= FALSE_DISCOVERY_RATE) & (table["delta_ms"].abs() >= smallest)
    table["evidence"] = [_sentence(row) for row in table.to_dict("records")]
    order = table["delta_ms"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order, list(_COLUMNS)].reset_index(drop=True).astype(_COLUMNS), refused


def _compare_entry(before: CriticalPath, after: CriticalPath, entry: str) -> pd.DataFrame:
    masks = [np.asarray(side.entries["entry"].array == entry) for side in (before, after)]
    sums = [_sums(side, among) for side, among in zip((before, after), masks, strict=True)]
    names = sorted(set(sums[0].index) | set(sums[1].index))
    old, new = (side.reindex(names, fill_value=0) for side in sums)
    sizes = [int(among.sum()) for among in masks]
    means = [
        side["exclusive_ns"].to_numpy() / n / NS_PER_MS for side, n in zip((old, new), sizes, strict=True)
    ]
    calls = [side["calls"].to_numpy() / n for side, n in zip((old, new), sizes, strict=True)]
    delta = means[1] - means[0]
    rounds, blocks = [], []
    for seed, (side, among) in enumerate(zip((before, after), masks, strict=True)):
        totals, drawn = resampled(side, among, names, seed=seed)
        blocks.append(drawn)
        rounds.append(totals[:, 2:] / totals[:, :1] / NS_PER_MS)
    low, high = interval(rounds[1] - rounds[0], delta, min(blocks))
    is_new, is_gone = calls[0] == 0, calls[1] == 0
    is_both = ~is_new & ~is_gone
    per_call = means[0] / np.where(is_new, 1.0, calls[0])
    more = np.where(is_both, (calls[1] - calls[0]) * per_call, 0.0)
    return pd.DataFrame(
        {
            "entry": entry,
            "entity": names,
            "before_ms": means[0],
            "after_ms": means[1],
            "delta_ms": delta,
            "low_ms": low,
            "high_ms": high,
            "calls_before": calls[0],
            "calls_after": calls[1],
            "more_calls_ms": more,
            "slower_calls_ms": np.where(is_both, delta - more, 0.0),
            "structure_ms": np.where(is_both, 0.0, delta),
            "structure": np.where(is_new, _ONLY_AFTER, np.where(is_gone, _ONLY_BEFORE, "")),
            "p_value": p_values(delta, [side.std(axis=0) for side in rounds], blocks),
            "duration_ms": before.entries["duration_ns"].to_numpy()[masks[0]].mean() / NS_PER_MS,
        }
    )


def _sums(path: CriticalPath, among: npt.NDArray[np.bool_]) -> pd.DataFrame:
    chosen = path.exclusive[among[path.exclusive["request"].to_numpy()]]
    chosen = chosen.assign(entity=chosen["entity"].astype("str"))
    return chosen.groupby("entity")[["exclusive_ns", "calls"]].sum()


def _sentence(row: dict[str, object]) -> str:
    change = (
        f"{row['delta_ms']:+.3g} ms per request ({row['low_ms']:+.3g} to {row['high_ms']:+.3g} ms), "
        f"from {row['before_ms']:.3g} to {row['after_ms']:.3g} ms"
    )
    if row["structure"]:
        return f"{change}: {row['structure']}"
    return (
        f"{change}: {row['more_calls_ms']:+.3g} ms by the number of calls ({row['calls_before']:.2g} to "
        f"{row['calls_after']:.2g} per request), {row['slower_calls_ms']:+.3g} ms by their speed"
    )
