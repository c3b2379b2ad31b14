"""What changed in latency and errors, per entry operation and over all requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from perflab.analysis.drawn import CANNOT_SAY, ERRORS, SAME, Interval, Pair, verdict_of
from perflab.analysis.side import ALL, Side, measure_requests

MARGIN_RATIO = 0.05
MARGIN_MS = 0.05
MARGIN_ERRORS = 0.001

QUANTITIES: Mapping[str, str] = {"p50": "p50", "p95": "p95", "p99": "p99", "error_ratio": ERRORS}
"""What is compared, and the metric it is."""

_COLUMNS = {
    **dict.fromkeys(("entry", "quantity", "unit"), "str"),
    **dict.fromkeys(("before", "after", "delta", "low", "high"), "float64"),
    **dict.fromkeys(("change_ratio", "change_low_ratio", "change_high_ratio"), "float64"),
    **dict.fromkeys(("requests_before", "requests_after"), "int64"),
    **dict.fromkeys(("p_value", "q_value"), "float64"),
    **dict.fromkeys(("verdict", "evidence"), "str"),
}


def measure_latency(before: Side, after: Side) -> dict[tuple[str, str], Pair]:
    """Return both sides' measures by entry operation (and "all") and quantity."""
    entries = sorted(before.entries | after.entries)
    metrics = tuple(QUANTITIES.values())
    found = {}
    for entry in [ALL, *entries] if entries else []:
        pairs = measure_requests(before, after, entry, metrics)
        found.update({(entry, quantity): pairs[metric] for quantity, metric in QUANTITIES.items()})
    return found


def latency_changes(
    pairs: Mapping[tuple[str, str], Pair], p_value: pd.Series, q_value: pd.Series
) -> pd.DataFrame:
    """Return one row per measure.

    Parameters
    ----------
    pairs : mapping
        As from `measure_latency`.
    p_value, q_value : sequence of float
        Of each.

    Returns
    -------
    pandas.DataFrame
        As ``Comparison.latency``.
    """
    rows = [
        {"entry": entry, "quantity": quantity, **_row(pair, quantity, q), "p_value": p, "q_value": q}
        for ((entry, quantity), pair), p, q in zip(pairs.items(), p_value, q_value, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def show_change(pair: Pair, change: Interval, *, as_ratio: bool = True) -> str:
    """Say how much something changed, with its interval.

    Parameters
    ----------
    pair : Pair
        Both sides.
    change : Interval
        ``pair.change()``, or ``pair.difference()``.
    as_ratio : bool
        Which of the two it is.
    """
    values = f"from {show_level(pair, pair.before.value)} to {show_level(pair, pair.after.value)}"

    def show(value: float) -> str:
        if math.isnan(value):
            return "unknown"
        return f"{100 * value:+.3g} %" if as_ratio else ("+" * (value >= 0)) + show_level(pair, value)

    if math.isnan(change.estimate):
        return values
    if math.isnan(change.low) and math.isnan(change.high):
        return f"{show(change.estimate)}, {values}"
    return f"{show(change.estimate)} ({show(change.low)} to {show(change.high)}), {values}"


def show_level(pair: Pair, value: float) -> str:
    """Write a value in the unit of a pair, an open end as unknown."""
    if math.isnan(value):
        return "unknown"
    return f"{value:.3g} ms" if pair.unit == "ms" else f"{value:.3g}"


def _row(pair: Pair, quantity: str, q_value: float) -> dict[str, Any]:
    delta, change = pair.difference(), pair.change()
    lesser = min(pair.before.value, pair.after.value)
    if pair.is_proportional:
        judged, margin = pair.log_ratio(), max(math.log1p(MARGIN_RATIO), math.log1p(MARGIN_MS / lesser))
    else:
        judged, margin = delta, MARGIN_MS if pair.unit == "ms" else max(MARGIN_ERRORS, MARGIN_RATIO * lesser)
    verdict = verdict_of(judged, margin, q_value)
    is_ratio = not math.isnan(change.estimate)
    shown = show_change(pair, change if is_ratio else delta, as_ratio=is_ratio)
    reason = pair.why_not(quantity) or _reason(judged, margin, verdict)
    return {
        "unit": pair.unit,
        "before": pair.before.value,
        "after": pair.after.value,
        "delta": delta.estimate,
        "low": delta.low,
        "high": delta.high,
        "change_ratio": change.estimate,
        "change_low_ratio": change.low,
        "change_high_ratio": change.high,
        "requests_before": pair.before.size,
        "requests_after": pair.after.size,
        "verdict": verdict,
        "evidence": f"{quantity} {shown}" + (f"; {reason}" if reason else ""),
    }


def _reason(change: Interval, margin: float, verdict: str) -> str:
    """Say what a verdict of no change rests on."""
    if verdict == SAME:
        return "no more than makes no difference in practice"
    if verdict != CANNOT_SAY:
        return ""
    if change.low > 0 or change.high < 0:
        return "there may be a change, but not surely one that matters, or one beyond chance"
    return "the interval is too wide to tell" if abs(change.estimate) <= margin else "this may be chance"
