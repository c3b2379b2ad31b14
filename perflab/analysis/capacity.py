"""How much a system takes: where latency bends, what contention costs, and which entity saturates first.

The run is cut into windows of equal length. Latency against the offered rate has a knee where requests begin
to wait for each other. Throughput against the mean number of requests in flight follows the Universal
Scalability Law of N. J. Gunther; the three are tied by Little's law ``N = X R`` in each window.

A run that never came near the limits does not tell where they are: then "not reached" is the answer, and the
highest rate that was achieved is all that is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.capacity_fit import Scalability, fit_knees, fit_scalability
from perflab.analysis.capacity_growth import growth_table
from perflab.analysis.criticalpath import critical_path
from perflab.analysis.latency import Requests, take_requests
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.quantile import nearest_rank
from perflab.errors import AnalysisError
from perflab.units import NS_PER_MS, NS_PER_S

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

REACHED, NOT_REACHED, TOO_FEW = "reached", "not reached", "not enough requests"
BELOW = "below the lowest rate"
"""The knee is somewhere below the rates of the run: latency rises from the first."""

MIN_WINDOWS = 12
MIN_RISE = 1.5
"""How many times longer latency must be at the highest rates for a knee to be believed..."""

MIN_RISE_LOW = 1.2
"""...and at the lower end of its interval."""

MIN_LOSS = 1.1
"""How many times longer a request must take for contention at the lower end of its interval."""

_WINDOWS = 60
_PER_WINDOW = 40
_MIN_PER_WINDOW = 8
_ROUNDS = 300
_BLOCK = 3
_ROWS = {
    "knee_per_s": "rate from which mean latency rises",
    "peak_throughput_per_s": "highest throughput by the Universal Scalability Law",
    "lambda_per_s": "throughput of one request in flight",
    "sigma": "contention",
    "kappa": "coherence",
    "in_flight_at_peak": "requests in flight at that throughput",
    "achieved_per_s": "highest throughput seen",
    "headroom_ratio": "what is left above the stated peak",
}
_SHOWN = ("quantity", "answer", "value", "low", "high", "meaning")


@dataclass(frozen=True, eq=False)
class Capacity:
    """What a run tells of a system's limits.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per quantity: ``quantity``, ``value``, ``low high`` (95 % interval by bootstrap over blocks of
        windows), ``answer`` ("reached", "not reached", "below the lowest rate" or "not enough requests";
        value and interval are NaN where it is not the first), ``meaning``. Quantities: ``knee_per_s
        peak_throughput_per_s lambda_per_s sigma kappa in_flight_at_peak achieved_per_s`` and, where a peak
        is stated, ``headroom_ratio``. A peak throughput beyond twice what was achieved is "not reached".
    windows : pandas.DataFrame
        One row per window of the run: ``begin_s end_s n offered_per_s achieved_per_s in_flight_mean mean_ms
        p50_ms p95_ms``. Latency is from when a request was due; one nobody answered counts as long as it
        waited.
    entities : pandas.DataFrame
        Whose calls take longer when more are in flight, up to the knee, see
        `perflab.analysis.capacity_growth.growth_table`.
    saturates_first : str or None
        The entity whose exclusive time per call grows most, if one clearly does.
    sentence : str
        The answer in plain English.
    counts : mapping of str to int
        ``requests unanswered missed windows real_traces_left_out``.
    """

    table: pd.DataFrame
    windows: pd.DataFrame
    entities: pd.DataFrame
    saturates_first: str | None
    sentence: str
    counts: Mapping[str, int] = field(repr=False)

    def value(self, quantity: str) -> float:
        """Return a quantity's value; NaN where it was not reached."""
        found = self.table.loc[self.table["quantity"] == quantity, "value"]
        return float(found.iloc[0]) if len(found) else math.nan

    def answer(self, quantity: str) -> str:
        """Return a quantity's answer."""
        return str(self.table.loc[self.table["quantity"] == quantity, "answer"].iloc[0])

    def __repr__(self) -> str:
        return f"Capacity({self.sentence})"

    def _repr_html_(self) -> str:
        return html_result(self.sentence, self.table, _SHOWN, [show_counts(self.counts)])


def fit_capacity(spans: pd.DataFrame, peak_per_s: float | None = None) -> Capacity:
    """Find the limits of a system from a run whose rate changed.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds the load engine's requests, only these count; else the roots of its
        traces do. Where it holds marked and real traces, only the marked ones are taken.
    peak_per_s : float, optional
        The rate the system has to bear, in requests per second: what is left above it is told.

    Returns
    -------
    Capacity
        A ramp or stairs tell most. The law is one of steady states: a run that goes on far past saturation
        shows queues that grow with time, and its latency there tells of the run's length.

    Raises
    ------
    AnalysisError
        If ``peak_per_s`` is no number above 0.
    SchemaError
        If ``spans`` is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> found = fit_capacity(spans([S("shop", "GET /", at, at + 5) for at in range(0, 10_000, 10)]))
    >>> found.answer("knee_per_s"), round(found.value("achieved_per_s")), found.saturates_first
    ('not reached', 100, None)
    """
    if peak_per_s is not None and not (math.isfinite(peak_per_s) and peak_per_s > 0):
        raise AnalysisError(f"the stated peak is {peak_per_s!r}, should be requests per second, above 0")
    requests, left_out, _ = take_requests(spans)
    windows = _cut(requests)
    usable = windows[(windows["n"] >= _MIN_PER_WINDOW) & (windows["achieved_per_s"] > 0)]
    usable = usable[usable["mean_ms"] > 0]
    rows = _rows(usable, peak_per_s)
    knee = rows["knee_per_s"]
    walked = critical_path(spans).walked
    entities = growth_table(walked, _reached_at(windows, requests, knee))
    growing = entities.loc[entities["grows"].astype(bool), "entity"].tolist()
    first = str(growing[0]) if growing else None
    table = pd.DataFrame([{"quantity": name} | row | {"meaning": _ROWS[name]} for name, row in rows.items()])
    return Capacity(
        table=table,
        windows=windows,
        entities=entities,
        saturates_first=first,
        sentence=_sentence(rows, first, len(requests.row), peak_per_s),
        counts=MappingProxyType(
            {
                "requests": len(requests.row),
                "unanswered": int((~requests.is_answered).sum()),
                "missed": int(requests.is_missed.sum()),
                "windows": len(usable),
                "real_traces_left_out": left_out,
            }
        ),
    )


def _cut(requests: Requests) -> pd.DataFrame:
    """Return the windows of a run."""
    columns = ["begin_s", "end_s", "n", "offered_per_s", "achieved_per_s", "in_flight_mean"]
    columns += ["mean_ms", "p50_ms", "p95_ms"]
    size = len(requests.row)
    count = min(_WINDOWS, size // _PER_WINDOW)
    if count < 1 or requests.due_ns[-1] == requests.due_ns[0]:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    origin = int(requests.due_ns[0])
    due = requests.due_ns - origin
    end = due + np.maximum(requests.waited_ns, 0)
    width = -(-(int(due[-1]) + 1) // count)
    edges = np.arange(count + 1) * width
    offered = np.diff(np.searchsorted(due, edges))
    over = np.sort(end[requests.is_answered])
    sent = ~requests.is_missed
    first = np.searchsorted(due, edges)
    rows = []
    for at in range(count):
        waited = np.sort(requests.waited_ns[first[at] : first[at + 1]]) / NS_PER_MS
        rows.append(
            {
                "begin_s": edges[at] / NS_PER_S,
                "end_s": edges[at + 1] / NS_PER_S,
                "n": int(offered[at]),
                "mean_ms": float(waited.mean()) if len(waited) else math.nan,
                "p50_ms": _nearest(waited, 0.5),
                "p95_ms": _nearest(waited, 0.95),
            }
        )
    table = pd.DataFrame(rows)
    table["offered_per_s"] = offered / width * NS_PER_S
    table["achieved_per_s"] = np.diff(np.searchsorted(over, edges)) / width * NS_PER_S
    table["in_flight_mean"] = np.diff(_time_in_flight(due[sent], end[sent], edges)) / width
    return table[columns]


def _nearest(ascending: Floats, quantile: float) -> float:
    return float(ascending[nearest_rank(len(ascending), quantile) - 1]) if len(ascending) else math.nan


def _time_in_flight(begin: Int64s, end: Int64s, edges: Int64s) -> Floats:
    """Return the summed time that requests had been in flight by each edge."""

    def passed(moments: Int64s) -> Floats:
        ascending = np.sort(moments)
        sums = np.concatenate([[0.0], np.cumsum(ascending, dtype=np.float64)])
        count = np.searchsorted(ascending, edges)
        total: Floats = count * edges - sums[count]
        return total

    return passed(begin) - passed(end)


def _draws(windows: int) -> Floats:
    """Return how often each round counts each window: all once, then circular blocks of consecutive ones."""
    rng = np.random.default_rng(0)
    begins = rng.integers(0, windows, size=(_ROUNDS, -(-windows // _BLOCK)))
    drawn = (begins[:, :, None] + np.arange(_BLOCK)).reshape(_ROUNDS, -1) % windows
    flat = (drawn + windows * np.arange(_ROUNDS)[:, None]).ravel()
    counts = np.bincount(flat, minlength=_ROUNDS * windows).reshape(_ROUNDS, windows)
    return np.concatenate([np.ones((1, windows)), counts]).astype(np.float64)


def _rows(windows: pd.DataFrame, peak_per_s: float | None) -> dict[str, dict[str, Any]]:
    quantities = [name for name in _ROWS if name != "headroom_ratio" or peak_per_s is not None]
    if len(windows) < MIN_WINDOWS:
        return {name: _row(TOO_FEW) for name in quantities}
    weights = _draws(len(windows))
    achieved = windows["achieved_per_s"].to_numpy()
    rows = {"knee_per_s": _knee(windows, weights)}
    rows |= _scalability(windows["in_flight_mean"].to_numpy(), achieved, weights)
    rows["achieved_per_s"] = _row(REACHED, np.full(2, achieved.max()))
    if peak_per_s is not None:
        known = [rows[name] for name in ("knee_per_s", "peak_throughput_per_s", "achieved_per_s")]
        limit = next(row for row in known if row["answer"] == REACHED)
        rows["headroom_ratio"] = _row(REACHED) | {
            name: limit[name] / peak_per_s - 1 for name in ("value", "low", "high")
        }
        if limit is rows["achieved_per_s"]:
            rows["headroom_ratio"]["answer"] = NOT_REACHED
    return {name: rows[name] for name in quantities}


def _row(answer: str, rounds: Floats | None = None) -> dict[str, Any]:
    """Return a row of the table: the first of the rounds is the estimate."""
    if rounds is None:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "answer": answer}
    value = float(rounds[0])
    # the order statistics as they are: some rounds may be infinite
    low, high = np.quantile(rounds[1:], [0.025, 0.975], method="nearest")
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value), "answer": answer}


def _knee(windows: pd.DataFrame, weights: Floats) -> dict[str, Any]:
    rate = windows["offered_per_s"].to_numpy()
    if np.ptp(rate) == 0:
        return _row(NOT_REACHED)
    knees = fit_knees(rate, np.maximum(windows["mean_ms"].to_numpy(), 1e-6), weights)
    rise = _row(REACHED, knees.rise)
    if rise["value"] < MIN_RISE or rise["low"] < MIN_RISE_LOW:
        return _row(NOT_REACHED)
    if knees.at[0] <= np.sort(rate)[1]:
        return _row(BELOW)
    return _row(REACHED, knees.at)


def _scalability(in_flight: Floats, achieved: Floats, weights: Floats) -> dict[str, dict[str, Any]]:
    law = fit_scalability(np.maximum(in_flight, 1e-9), achieved, weights)
    rows = {
        "lambda_per_s": _row(REACHED, law.rate),
        "sigma": _row(REACHED, law.contention),
        "kappa": _row(REACHED, law.coherence),
    }
    if _is_straight(law, float(in_flight.max())):
        return {name: _row(NOT_REACHED) for name in ("sigma", "kappa", "peak_throughput_per_s",
                "in_flight_at_peak")} | {"lambda_per_s": rows["lambda_per_s"]}  # fmt: skip
    peak, best = _row(REACHED, law.peak), _row(REACHED, law.best_in_flight)
    if peak["value"] > 2 * achieved.max():
        peak, best = _row(NOT_REACHED), _row(NOT_REACHED)
    return rows | {"peak_throughput_per_s": peak, "in_flight_at_peak": best}


def _is_straight(law: Scalability, most: float) -> bool:
    """Tell whether contention and coherence together may as well be 0 over the run."""
    return bool(most <= 1 or _row(REACHED, law.loss(most))["low"] < MIN_LOSS)


def _reached_at(windows: pd.DataFrame, requests: Requests, knee: Mapping[str, Any]) -> int:
    """Return the moment after which the rate was above the knee, if it was."""
    never = int(np.iinfo(np.int64).max)
    if knee["answer"] != REACHED:
        return never
    over = windows.index[windows["offered_per_s"] > knee["high"]]
    calm = windows.index[windows["offered_per_s"] <= knee["high"]]
    later = [at for at in over if not (calm > at).any()]
    if not later:
        return never
    return int(requests.due_ns[0]) + round(float(windows.loc[later[0], "begin_s"]) * NS_PER_S)


def _sentence(
    rows: Mapping[str, Mapping[str, Any]], first: str | None, requests: int, peak_per_s: float | None
) -> str:
    knee, peak, most = rows["knee_per_s"], rows["peak_throughput_per_s"], rows["achieved_per_s"]
    if knee["answer"] == TOO_FEW:
        needed = MIN_WINDOWS * _PER_WINDOW
        return f"Not enough requests: {requests}, about {needed} over changing rates are needed."
    parts: list[str] = []
    if knee["answer"] == REACHED:
        parts.append(f"Latency bends at {_with_interval(knee)} requests per second")
    elif knee["answer"] == BELOW:
        parts.append("Latency rises from the lowest rate on: the knee is below it")
    else:
        parts.append(f"The knee was not reached, at up to {most['value']:.4g} answers per second")
    if peak["answer"] == REACHED:
        parts.append(f"throughput levels off at {_with_interval(peak)} per second")
    else:
        parts.append("throughput does not level off within the run")
    if first:
        parts.append(f"{first} saturates first")
    if peak_per_s is not None:
        parts.append(_headroom(rows["headroom_ratio"], peak_per_s))
    return "; ".join(parts) + "."


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.4g} (95 % interval {row['low']:.4g} to {row['high']:.4g})"


def _headroom(row: Mapping[str, Any], peak_per_s: float) -> str:
    least = "at least " if row["answer"] == NOT_REACHED and row["value"] >= 0 else ""
    side = "above" if row["value"] >= 0 else "below"
    text = f"that is {least}{abs(row['value']):.0%} {side} the stated peak of {peak_per_s:.4g}"
    if row["answer"] == NOT_REACHED and row["value"] < 0:
        text = f"the run went only to {1 + row['value']:.0%} of the stated peak of {peak_per_s:.4g}"
    return text
