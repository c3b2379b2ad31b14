"""What is said of a ranking: the answer in a sentence, and the evidence of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perflab.analysis.entity import EDGE
from perflab.analysis.ranking import ALL, MIN_LEAD


def evidence(row: Mapping[str, Any], pattern: str) -> str:
    """Say what a row of a ranking stands on.

    Parameters
    ----------
    row : mapping
        A row; with ``change``, if it is ranked by what differs from a baseline.
    pattern : str
        What is known besides of the kind of trouble it looks like.
    """
    where = f"between {row['caller']} and {row['callee']}" if row["kind"] == EDGE else f"in {row['service']}"
    if "change" in row:
        text = (
            f"against the baseline {row['change']}; now {row['share_ratio']:.0%} of the time "
            f"{_of_what(row['entry'])}, {where}; {row['calls_per_request']:.2g} calls per request on the "
            f"critical path, {row['mean_ms']:.3g} ms each, p99 {row['p99_ms']:.3g} ms"
        )
        return f"{text}; {pattern}" if pattern else text
    text = (
        f"{row['share_ratio']:.0%} of the time {_of_what(row['entry'])} "
        f"(95 % interval {row['share_low_ratio']:.0%} to {row['share_high_ratio']:.0%}), {where}; "
        f"{row['gain_ms']:.3g} ms per request ({row['low_ms']:.3g} to {row['high_ms']:.3g} ms); "
        f"{row['calls_per_request']:.2g} calls per request on the critical path, "
        f"{row['mean_ms']:.3g} ms each, p99 {row['p99_ms']:.3g} ms"
    )
    return f"{text}; {pattern}" if pattern else text


def _of_what(entry: str) -> str:
    return "of all requests" if entry == ALL else f"of {entry!r}"


def sentence_of_share(first: Mapping[str, Any] | None, table: pd.DataFrame) -> str:
    """Say what takes most time.

    Parameters
    ----------
    first : mapping or None
        The named bottleneck, see ``Bottlenecks.first``.
    table : pandas.DataFrame
        The ranking.
    """
    if first is None:
        if not len(table):
            return "Nothing stands out: there is no time to share."
        row = table.iloc[0]
        return (
            f"Nothing stands out: the largest part, {row['entity']}, is {row['share_ratio']:.0%} of the time "
            f"of all requests; without it a request would take {row['gain_ms']:.3g} ms less."
        )
    if "waits_at" in first:
        return (
            f"{first['entity']} holds requests up most: it is {first['holds_ratio']:.0%} of what the workers "
            f"behind {first['waits_at']} are busy with, and requests wait there {first['waits_ms']:.3g} ms "
            f"on average to be accepted; its own time is {first['gain_ms']:.3g} ms of an average request."
        )
    if "loops_in" in first:
        return (
            f"{first['entity']} holds requests up most, called over and over by {first['loops_in']}: "
            f"{first['calls_per_request']:.3g} calls and {first['gain_ms']:.3g} ms per request, and "
            f"{first['loop_ms']:.3g} ms more of {first['loops_in']}'s own time lie between these calls."
        )
    text = (
        f"{first['entity']} holds requests up most: {first['share_ratio']:.0%} of the time of all requests. "
        f"Without it an average request would take {first['gain_ms']:.3g} ms less "
        f"(95 % interval {first['low_ms']:.3g} to {first['high_ms']:.3g} ms)"
    )
    if first.get("in_entry_share_ratio", 0.0) >= MIN_LEAD * first["share_ratio"]:
        text += (
            f"; of {first['in_entry']!r} it is {first['in_entry_share_ratio']:.0%}, "
            f"{first['in_entry_gain_ms']:.3g} ms per request"
        )
    return text + "."


def sentence_of_change(first: Mapping[str, Any] | None, table: pd.DataFrame) -> str:
    """Say what got slower against a baseline.

    Parameters
    ----------
    first : mapping or None
        The named bottleneck, see ``Bottlenecks.first``.
    table : pandas.DataFrame
        The ranking.
    """
    if first is None:
        compared = table.dropna(subset=["gain_ms", "low_ms"])
        if compared.empty:
            return "Nothing stands out against the baseline: no entity is in both."
        row = compared.loc[compared["gain_ms"].abs().idxmax()]
        return (
            f"Nothing stands out against the baseline: the largest difference, in {row['entity']}, is "
            f"{row['gain_ms']:+.3g} ms per request (95 % interval {row['low_ms']:+.3g} to "
            f"{row['high_ms']:+.3g} ms)."
        )
    text = (
        f"{first['entity']} got slower most: as in the baseline, an average request would take "
        f"{first['gain_ms']:.3g} ms less ({_interval(first)})"
    )
    if "waits_at" in first:
        text += (
            f"; it is {first['holds_ratio']:.0%} of what the workers behind {first['waits_at']} are busy "
            f"with, and requests wait there {first['waits_ms']:.3g} ms longer to be accepted"
        )
    if "loops_in" in first:
        text += (
            f"; {first['loops_in']} calls it over and over, and {first['loop_ms']:.3g} ms more of its own "
            f"time lie between these calls"
        )
    others = int(table["stands_out"].sum()) - 1
    if others:
        text += f"; {others} other {'entities' if others > 1 else 'entity'} got slower, too"
    return f"{text}."


def _interval(first: Mapping[str, Any]) -> str:
    if first["low_ms"] != first["low_ms"]:
        return "no interval: an entry operation it is in has too few requests"
    return f"95 % interval {first['low_ms']:.3g} to {first['high_ms']:.3g} ms"
