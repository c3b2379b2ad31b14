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

from perflab.analysis.bootstrap import false_discovery, interval, p_values, paired_seeds
from perflab.analysis.criticalpath import CriticalPath
from perflab.analysis.ranking import resampled
from perflab.units import NS_PER_MS

Floats = npt.NDArray[np.float64]

FALSE_DISCOVERY_RATE = 0.05
SMALLEST_MS = 0.05
SMALLEST_RATIO = 0.01
PRACTICAL_RATIO = 0.05

_COLUMNS = {
    "entry": "str",
    "entity": "str",
    "before_ms": "float64",
    "after_ms": "float64",
    "delta_ms": "float64",
    "low_ms": "float64",
    "high_ms": "float64",
    "margin_ms": "float64",
    "effect_size": "float64",
    "request_delta_ms": "float64",
    "request_low_ms": "float64",
    "request_high_ms": "float64",
    "request_margin_ms": "float64",
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
    before: CriticalPath, after: CriticalPath, min_requests: int, *, with_few: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """Compare exclusive critical time per request, entry operation by entry operation.

    Parameters
    ----------
    before, after : CriticalPath
        The baseline and what is held against it.
    min_requests : int
        Requests an entry operation needs on both sides.
    with_few : bool
        Whether entry operations with fewer have rows all the same, with NaN for what cannot be told.

    Returns
    -------
    differences : pandas.DataFrame
        Greatest absolute difference first: ``entry entity``; ``before_ms after_ms delta_ms`` (exclusive
        time per request) with ``low_ms high_ms`` (95 % interval of the difference); ``margin_ms`` (a
        difference that makes none in practice: the greatest of 0.05 ms, 5 % of the lesser of the two, and
        1 % of the operation's mean duration); ``effect_size`` (the difference over the pooled standard
        deviation of a request's exclusive time, Cohen's d; NaN where no request differs from another);
        ``request_delta_ms`` (by how much the operation's requests as a whole are longer, which is the sum
        over its entities), ``request_low_ms request_high_ms`` (its 95 % interval) and ``request_margin_ms``
        (5 % of the lesser mean, at least 0.05 ms);
        ``calls_before calls_after`` (per request, on the path); ``more_calls_ms`` (calls added, at the
        baseline's time of a call), ``slower_calls_ms`` (calls there are, each slower) and ``structure_ms``
        (all of it, where ``structure`` says that one side lacks the entity), which sum to ``delta_ms``;
        ``p_value``,
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
        if with_few or min(sizes) >= min_requests:
            tables.append(_compare_entry(before, after, str(entry), min(sizes) >= min_requests))
    if not tables:
        return empty_differences(), refused
    table = pd.concat(tables, ignore_index=True)
    table["q_value"] = np.nan
    is_told = table["p_value"].notna()
    table.loc[is_told, "q_value"] = false_discovery(table.loc[is_told, "p_value"].to_numpy())
    smallest = np.maximum(SMALLEST_MS, SMALLEST_RATIO * table.pop("duration_ms"))
    table["differs"] = (table["q_value"] <= FALSE_DISCOVERY_RATE) & (table["delta_ms"].abs() >= smallest)
    table["evidence"] = [_sentence(row) for row in table.to_dict("records")]
    order = table["delta_ms"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order, list(_COLUMNS)].reset_index(drop=True).astype(_COLUMNS), refused


def _compare_entry(before: CriticalPath, after: CriticalPath, entry: str, is_enough: bool) -> pd.DataFrame:
    masks = [np.asarray(side.entries["entry"].array == entry) for side in (before, after)]
    sums = [_sums(side, among) for side, among in zip((before, after), masks, strict=True)]
    names = sorted(set(sums[0].index) | set(sums[1].index))
    sides = [side.reindex(names, fill_value=0) for side in sums]
    sizes = [int(among.sum()) for among in masks]
    means, spreads, calls = zip(*map(_moments, sides, sizes), strict=True)
    delta = means[1] - means[0]
    durations = [
        side.entries["duration_ns"].to_numpy()[among]
        for side, among in zip((before, after), masks, strict=True)
    ]
    mean_durations = [_mean_ms(of_side) for of_side in durations]
    low = high = p_value = np.full(len(names), np.nan)
    request_delta = mean_durations[1] - mean_durations[0]
    request_low = request_high = float("nan")
    if is_enough:
        seeds = paired_seeds(*[(len(of_side), int(of_side.sum())) for of_side in durations])
        rounds, blocks = _rounds((before, after), masks, names, seeds)
        low, high = interval(rounds[1] - rounds[0], delta, min(blocks))
        p_value = p_values(delta, [side.std(axis=0) for side in rounds], blocks)
        request_rounds = (rounds[1].sum(axis=1) - rounds[0].sum(axis=1))[:, None]
        bounds = interval(request_rounds, np.array([request_delta]), min(blocks))
        request_low, request_high = (float(bound[0]) for bound in bounds)
    margin = np.maximum(
        PRACTICAL_RATIO * np.fmin(means[0], means[1]),
        SMALLEST_RATIO * np.fmin(mean_durations[0], mean_durations[1]),
    )
    is_new, is_gone = calls[0] == 0, calls[1] == 0
    is_both = ~is_new & ~is_gone
    more = np.where(is_both, (calls[1] - calls[0]) * means[0] / np.where(is_new, 1.0, calls[0]), 0.0)
    return pd.DataFrame(
        {
            "entry": entry,
            "entity": names,
            "before_ms": means[0],
            "after_ms": means[1],
            "delta_ms": delta,
            "low_ms": low,
            "high_ms": high,
            "margin_ms": np.maximum(SMALLEST_MS, margin),
            "effect_size": _effect(delta, spreads, sizes),
            "request_delta_ms": request_delta,
            "request_low_ms": request_low,
            "request_high_ms": request_high,
            "request_margin_ms": max(
                SMALLEST_MS, PRACTICAL_RATIO * float(np.fmin(mean_durations[0], mean_durations[1]))
            ),
            "calls_before": calls[0],
            "calls_after": calls[1],
            "more_calls_ms": more,
            "slower_calls_ms": np.where(is_both, delta - more, 0.0),
            "structure_ms": np.where(is_both, 0.0, delta),
            "structure": np.where(is_new, _ONLY_AFTER, np.where(is_gone, _ONLY_BEFORE, "")),
            "p_value": p_value,
            "duration_ms": mean_durations[0],
        }
    )


def _rounds(
    paths: tuple[CriticalPath, CriticalPath],
    masks: list[npt.NDArray[np.bool_]],
    names: list[str],
    seeds: tuple[int, int],
) -> tuple[list[Floats], list[int]]:
    """Return the resampled exclusive times per request (ms) of both sides, and of how many blocks."""
    rounds, blocks = [], []
    for side, among, seed in zip(paths, masks, seeds, strict=True):
        totals, drawn = resampled(side, among, names, seed=seed)
        blocks.append(drawn)
        rounds.append(totals[:, 2:] / totals[:, :1] / NS_PER_MS)
    return rounds, blocks


def _moments(sums: pd.DataFrame, size: int) -> tuple[Floats, Floats, Floats]:
    """Return per entity the mean (ms) and variance (ms²) of a request's exclusive time, and its calls."""
    if not size:
        nothing = np.full(len(sums), np.nan)
        return nothing, nothing, nothing
    mean = sums["exclusive_ns"].to_numpy() / size / NS_PER_MS
    variance = np.maximum(sums["square_ms"].to_numpy() / size - mean**2, 0.0)
    # what is left of equal times by rounding is none
    return mean, np.where(variance > 1e-9 * mean**2, variance, 0.0), sums["calls"].to_numpy() / size


def _effect(delta: Floats, variances: tuple[Floats, ...], sizes: list[int]) -> Floats:
    pooled = np.sqrt(
        sum(size * variance for size, variance in zip(sizes, variances, strict=True)) / sum(sizes)
    )
    effect: Floats = np.where(
        pooled > 0, delta / np.where(pooled > 0, pooled, 1.0), np.where(delta, np.nan, 0.0)
    )
    return effect


def _mean_ms(duration_ns: npt.NDArray[np.int64]) -> float:
    return float(duration_ns.mean()) / NS_PER_MS if len(duration_ns) else float("nan")


def _sums(path: CriticalPath, among: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Return ``exclusive_ns calls square_ms`` of the entities on the paths of some requests, by name."""
    is_in = among[path.exclusive["request"].to_numpy()]
    entity = path.exclusive["entity"].array
    code = np.asarray(entity.codes, dtype=np.int64)[is_in]
    exclusive = path.exclusive["exclusive_ns"].to_numpy()[is_in]
    sums = np.zeros((2, len(entity.categories)), dtype=np.int64)
    np.add.at(sums[0], code, exclusive)
    np.add.at(sums[1], code, path.exclusive["calls"].to_numpy()[is_in])
    squares = np.bincount(code, weights=(exclusive / NS_PER_MS) ** 2, minlength=len(entity.categories))
    columns = {"exclusive_ns": sums[0], "calls": sums[1], "square_ms": squares}
    table = pd.DataFrame(columns, index=entity.categories.astype(object))
    return table[table["calls"] > 0]


def _sentence(row: dict[str, object]) -> str:
    is_few = row["low_ms"] != row["low_ms"]
    interval = "too few for an interval" if is_few else f"{row['low_ms']:+.3g} to {row['high_ms']:+.3g} ms"
    how = f"from {row['before_ms']:.3g} to {row['after_ms']:.3g} ms"
    change = f"{row['delta_ms']:+.3g} ms per request ({interval}), {how}"
    if row["structure"]:
        return f"{change}: {row['structure']}"
    return (
        f"{change}: {row['more_calls_ms']:+.3g} ms by the number of calls ({row['calls_before']:.2g} to "
        f"{row['calls_after']:.2g} per request), {row['slower_calls_ms']:+.3g} ms by their speed"
    )
