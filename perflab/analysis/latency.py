"""Latency as a client would tell it: from when a request was due, with those nobody answered.

A generated request's latency runs from its due time, so that a generator that falls behind hides nothing
(no coordinated omission). Missed, timed-out and otherwise unanswered requests are rows in every percentile:
each counts as slower than every answered one, and a percentile that falls among them is a lower bound
(``p99_censored``; print ``>=``). Percentiles of a run with a rising rate are a blend of its steps:
`Latency.by_rate` has them step by step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perflab.analysis.entity import operation_name
from perflab.analysis.markup import html_result, show_counts
from perflab.analysis.population import MISSED, is_answered, is_generated, marked_traces
from perflab.analysis.quantile import CensoredSample
from perflab.trace.schema import check_spans
from perflab.trace.tree import link
from perflab.units import NS_PER_MS, NS_PER_S

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LATE_NS = NS_PER_MS
"""A request sent later than this after it was due was late."""

QUANTILES: Mapping[str, float] = MappingProxyType(
    {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
)
_FEW: Mapping[str, float] = MappingProxyType({"p50": 0.5, "p95": 0.95, "p99": 0.99})
_STEPS = 8
_MIN_PER_STEP = 20
_EXEMPLARS = 3
_SHOWN = ("endpoint", "n", "n_censored", "p50_ms", "p95_ms", "p99_ms", "max_ms", "error_ratio")
_NOT_ANSWERED_ERRORS = ("error.type", "http.response.status_code", "http.status_code")


@dataclass(frozen=True, eq=False)
class Latency:
    """Latency of requests.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per endpoint, most requests first: ``endpoint``, ``n``, ``n_censored`` (never answered),
        ``p50_ms p90_ms p95_ms p99_ms p999_ms max_ms``, for each quantile ``pXX_low_ms pXX_high_ms`` (95 %
        interval by order statistics; NaN where there are too few requests to bound it, or the bound lies
        among the unanswered) and ``pXX_censored`` (also ``max_censored``): true where the value is only a
        lower bound; ``errors``, ``error_ratio``, ``late``, ``missed``.
    overall : pandas.DataFrame
        One row like those of ``table`` over all requests, ``endpoint`` "all": pooled over endpoints and
        over whatever rates the run had.
    over_time : pandas.DataFrame
        One row per second in which a request was due: ``at_s`` (since the first was due),
        ``offered_per_s`` (sent or missed), ``answered``, ``errors``, ``late``, ``missed``, ``p50_ms p95_ms
        p99_ms max_ms`` and their ``_censored``.
    by_rate : pandas.DataFrame
        One row per eighth of the run, in order of time (fewer where an eighth would have less than 20
        requests): ``begin_s end_s offered_per_s`` (sent or missed), ``achieved_per_s`` (answers that came
        within the step), ``n``, ``p50_ms p95_ms p99_ms`` with ``_censored``, ``errors``, ``error_ratio``,
        ``late``, ``missed``.
    errors : pandas.DataFrame
        Most frequent first: ``endpoint outcome error n ratio exemplar_trace_ids``; ``error`` is the span's
        ``error.type`` or HTTP status, ``ratio`` of the endpoint's requests.
    counts : mapping of str to int
        ``requests answered unanswered errors late missed real_traces_left_out``.
    is_generated : bool
        Whether these are the load engine's requests; if not, roots of traces, whose latency is their
        duration.
    """

    table: pd.DataFrame
    overall: pd.DataFrame
    over_time: pd.DataFrame
    by_rate: pd.DataFrame
    errors: pd.DataFrame
    counts: Mapping[str, int]
    is_generated: bool

    def __repr__(self) -> str:
        return f"Latency({show_counts(self.counts) or 'no requests'})"

    def _repr_html_(self) -> str:
        return html_result(
            f"Latency of {self.counts['requests']:,} requests", self.table, _SHOWN, [show_counts(self.counts)]
        )


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests as arrays, in order of due time.

    Attributes
    ----------
    endpoint : object[n]
    due_ns, waited_ns : int64[n]
        When each was due, and its latency; of one nobody answered, how long it had waited.
    is_answered, is_error, is_late, is_missed : bool[n]
    row : int64[n]
        Row of the span table.
    """

    endpoint: npt.NDArray[Any]
    due_ns: Int64s
    waited_ns: Int64s
    is_answered: Mask
    is_error: Mask
    is_late: Mask
    is_missed: Mask
    row: Int64s

    def take(self, chosen: Any) -> Requests:
        """Return some of them."""
        return Requests(**{name: values[chosen] for name, values in vars(self).items()})


def latency(spans: pd.DataFrame) -> Latency:
    """Summarise how long requests took.

    Parameters
    ----------
    spans : pandas.DataFrame
        A span table. Where it holds the load engine's requests, only these count; else the roots of its
        traces do. Where it holds marked and real traces, only the marked ones are taken.

    Returns
    -------
    Latency
        Latency is ``start + duration - due``; of requests that were never due, the duration. For a request
        nobody answered it is how long it had waited, a lower bound. A request is an error if its outcome
        is anything but "answered" or, where it has none, its span's status is "error".

    Raises
    ------
    SchemaError
        If it is no span table.

    Examples
    --------
    >>> from perflab.testing import S, spans
    >>> rows = [S("perflab", "pay", 0, place, kind="client", outcome="answered", scheduled_ms=0)
    ...         for place in range(1, 100)]
    >>> lost = S("perflab", "pay", 0, 1000, kind="client", outcome="timeout", scheduled_ms=0)
    >>> found = latency(spans([*rows, lost])).table
    >>> found[["p50_ms", "p99_ms", "p99_censored", "max_ms", "max_censored"]].values.tolist()
    [[50.0, 99.0, False, 1000.0, True]]
    """
    check_spans(spans)
    requests, left_out, generated = take_requests(spans)
    everything = [("all", requests)] if len(requests.row) else []
    return Latency(
        table=_summaries(_by_endpoint(requests)),
        overall=_summaries(everything),
        over_time=_over_time(requests),
        by_rate=_by_rate(requests),
        errors=_errors(spans, requests),
        counts=MappingProxyType(
            {
                "requests": len(requests.row),
                "answered": int(requests.is_answered.sum()),
                "unanswered": int((~requests.is_answered).sum()),
                "errors": int(requests.is_error.sum()),
                "late": int(requests.is_late.sum()),
                "missed": int(requests.is_missed.sum()),
                "real_traces_left_out": left_out,
            }
        ),
        is_generated=generated,
    )


def take_requests(spans: pd.DataFrame) -> tuple[Requests, int, bool]:
    """Return the requests, how many real traces were left out, and whether the engine generated them."""
    forest = link(spans)
    is_kept = forest.head_row >= 0
    generated = is_kept & is_generated(spans)
    by_engine = bool(generated.any())
    is_root = is_kept & (forest.head_row == np.arange(len(spans))) & ~forest.is_orphan
    is_request = generated if by_engine else is_root
    marked = marked_traces(spans, forest)
    left_out = 0
    if marked.any():
        left_out = int((~marked).sum())
        is_request &= marked[forest.trace_code]

    start = spans["start_ns"].to_numpy()
    scheduled = spans["scheduled_ns"].to_numpy()
    due = np.where(scheduled > 0, scheduled, start)
    rows = np.flatnonzero(is_request)
    rows = rows[np.lexsort((spans["span_id"].to_numpy()[rows], forest.trace_code[rows], due[rows]))]
    outcome = np.asarray(spans["outcome"].array, dtype=object)[rows]
    failed = np.asarray(spans["status"].array == "error")[rows]
    has_outcome = outcome != ""
    missed = outcome == MISSED
    endpoint = np.asarray(spans["name"].array, dtype=object)[rows]
    if not by_engine:
        services = np.asarray(spans["service"].array, dtype=object)[rows]
        endpoint = np.array(
            [operation_name(service, name) for service, name in zip(services, endpoint, strict=True)],
            dtype=object,
        )
    duration = np.maximum(spans["duration_ns"].to_numpy()[rows], 0)
    return (
        Requests(
            endpoint=endpoint,
            due_ns=due[rows],
            waited_ns=start[rows] + duration - due[rows],
            is_answered=is_answered(spans)[rows],
            is_error=np.where(has_outcome, outcome != "answered", failed).astype(bool),
            is_late=(start[rows] - due[rows] > LATE_NS) & ~missed,
            is_missed=missed,
            row=rows,
        ),
        left_out,
        by_engine,
    )


def _by_endpoint(requests: Requests) -> list[tuple[str, Requests]]:
    codes, names = pd.factorize(requests.endpoint, sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: (-int(sizes[code]), str(names[code])))
    return [(str(names[code]), requests.take(codes == code)) for code in order]


def _summaries(groups: Sequence[tuple[str, Requests]]) -> pd.DataFrame:
    rows = [
        {
            "endpoint": name,
            "n": len(group.row),
            "n_censored": int((~group.is_answered).sum()),
            **_percentiles(group, QUANTILES, with_bounds=True),
            **_tallies(group),
        }
        for name, group in groups
    ]
    return _frame(rows, ["endpoint", "n", "n_censored", *_percentile_columns(QUANTILES, True), *_TALLIES])


def _over_time(requests: Requests) -> pd.DataFrame:
    origin = int(requests.due_ns[0]) if len(requests.row) else 0
    second = (requests.due_ns - origin) // NS_PER_S
    rows = []
    seconds, first = np.unique(second, return_index=True)
    ranges = pairwise([*first.tolist(), len(second)])
    for at, (begin, end) in zip(seconds.tolist(), ranges, strict=True):
        group = requests.take(slice(begin, end))
        tallies = _tallies(group)
        tallies.pop("error_ratio")
        rows.append(
            {
                "at_s": float(at),
                "offered_per_s": float(len(group.row)),
                "answered": int(group.is_answered.sum()),
                **tallies,
                **_percentiles(group, _FEW),
            }
        )
    columns = ["at_s", "offered_per_s", "answered", "errors", "late", "missed", *_percentile_columns(_FEW)]
    return _frame(rows, columns)


def _by_rate(requests: Requests) -> pd.DataFrame:
    columns = ["begin_s", "end_s", "offered_per_s", "achieved_per_s", "n", *_percentile_columns(_FEW)]
    size = len(requests.row)
    if size < 2 or requests.due_ns[-1] == requests.due_ns[0]:
        return _frame([], [*columns, *_TALLIES])
    steps = max(1, min(_STEPS, size // _MIN_PER_STEP))
    origin, last = int(requests.due_ns[0]), int(requests.due_ns[-1])
    # the last request is due within the last step, not on its end
    width_ns = -(-(last - origin + 1) // steps)
    step = (requests.due_ns - origin) // width_ns
    answer_step = (requests.due_ns + requests.waited_ns - origin) // width_ns
    rows = []
    for at in range(steps):
        group = requests.take(step == at)
        answers = int((requests.is_answered & (answer_step == at)).sum())
        rows.append(
            {
                "begin_s": at * width_ns / NS_PER_S,
                "end_s": (at + 1) * width_ns / NS_PER_S,
                "offered_per_s": len(group.row) / width_ns * NS_PER_S,
                "achieved_per_s": answers / width_ns * NS_PER_S,
                "n": len(group.row),
                **_percentiles(group, _FEW),
                **_tallies(group),
            }
        )
    return _frame(rows, [*columns, *_TALLIES])


def _errors(spans: pd.DataFrame, requests: Requests) -> pd.DataFrame:
    columns = ["endpoint", "outcome", "error", "n", "ratio", "exemplar_trace_ids"]
    failed = requests.take(requests.is_error)
    if not len(failed.row):
        return _frame([], columns)
    outcome = np.asarray(spans["outcome"].array, dtype=object)[failed.row]
    frame = pd.DataFrame(
        {
            "endpoint": failed.endpoint,
            "outcome": np.where(outcome == "", "error", outcome),
            "error": [_error_of(text) for text in spans["attributes"].iloc[failed.row].tolist()],
            "trace_id": np.asarray(spans["trace_id"].array, dtype=object)[failed.row],
        }
    )
    asked = pd.Series(requests.endpoint).value_counts()
    rows = [
        {
            "endpoint": endpoint,
            "outcome": outcome,
            "error": error,
            "n": len(group),
            "ratio": len(group) / int(asked[endpoint]),
            "exemplar_trace_ids": group["trace_id"].head(_EXEMPLARS).tolist(),
        }
        for (endpoint, outcome, error), group in frame.groupby(["endpoint", "outcome", "error"], sort=True)
    ]
    return _frame(sorted(rows, key=lambda row: -row["n"]), columns)


_TALLIES = ("errors", "error_ratio", "late", "missed")


def _tallies(group: Requests) -> dict[str, float]:
    errors = int(group.is_error.sum())
    return {
        "errors": errors,
        "error_ratio": errors / len(group.row) if len(group.row) else 0.0,
        "late": int(group.is_late.sum()),
        "missed": int(group.is_missed.sum()),
    }


def _percentiles(
    group: Requests, quantiles: Mapping[str, float], *, with_bounds: bool = False
) -> dict[str, Any]:
    sample = CensoredSample.of(group.waited_ns, group.is_answered)
    found: dict[str, Any] = {}
    for name, quantile in {**quantiles, "max": 1.0}.items():
        value, is_censored = sample.quantile(quantile)
        found[f"{name}_ms"], found[f"{name}_censored"] = value / NS_PER_MS, is_censored
        if with_bounds and name != "max":
            low, high = sample.bounds(quantile)
            found[f"{name}_low_ms"], found[f"{name}_high_ms"] = low / NS_PER_MS, high / NS_PER_MS
    return found


def _percentile_columns(quantiles: Mapping[str, float], with_bounds: bool = False) -> list[str]:
    names = [*quantiles, "max"]
    columns = [f"{name}_ms" for name in names]
    if with_bounds:
        columns += [f"{name}_{side}_ms" for name in quantiles for side in ("low", "high")]
    return columns + [f"{name}_censored" for name in names]


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns))


def _error_of(text: str) -> str:
    try:
        attributes = json.loads(text) if text else {}
    except ValueError:
        return ""
    found = [attributes[name] for name in _NOT_ANSWERED_ERRORS if attributes.get(name)]
    return str(found[0]) if found else ""
