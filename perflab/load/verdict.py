"""What a run amounts to, in one word and one sentence, from what was measured.

``leaked`` before ``refused`` before ``stopped`` before ``failed`` before ``passed``: the gravest counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perflab.analysis.population import is_answered
from perflab.load.record import Record
from perflab.shadow.fleet import Fleet
from perflab.trace.schema import GENERATOR_SERVICE
from perflab.traffic.scenario import Scenario, Thresholds
from perflab.units import NS_PER_MS

EVERY = "all"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One word and one sentence; ``exit_code`` is what the command line exits with."""

    word: str
    reason: str

    @property
    def exit_code(self) -> int:
        """0 when passed, else 1."""
        return 0 if self.word == "passed" else 1


def judge_thresholds(scenario: Scenario, spans: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare what was measured with the scenario's thresholds.

    Parameters
    ----------
    scenario : Scenario
        Thresholds of endpoints, and of all together.
    spans : pandas.DataFrame
        Span table with the generator's requests; other rows are left out.

    Returns
    -------
    list of dict
        ``endpoint metric limit value passed``; ``value`` is ms or a ratio, None where no request was
        made or where the quantile lies among requests never answered (then it did not pass).
    """
    requests = spans[spans["service"] == GENERATOR_SERVICE]
    rows = _judge(EVERY, scenario.thresholds, requests)
    for endpoint in scenario.endpoints:
        rows += _judge(endpoint.name, endpoint.thresholds, requests[requests["name"] == endpoint.name])
    return rows


def decide(record: Record, refusals: Sequence[Mapping[str, Any]]) -> Verdict:
    """Decide what a run amounts to.

    Parameters
    ----------
    record : Record
        What it found out; with its thresholds judged and its proof made.
    refusals : sequence of mapping
        Marked work the agents refused at a store or a peer while the run went on.
    """
    leaks, holes = record.isolation["leaks"], record.holes
    if leaks:
        leak = leaks[0]
        return Verdict(
            "leaked",
            f"Shadow work reached production: {leak['store']}, {leak['where']} ({leak['what']}), "
            f"trace {leak['trace_id'] or 'unknown'}.",
        )
    if record.killed_by:
        return Verdict("stopped", f"The run was killed by {record.killed_by}.")
    if holes:
        more = f"; and {len(holes) - 1} more" if len(holes) > 1 else ""
        return Verdict("refused", _sentence(f"{holes[0].why}{_traced(holes[0].trace_id)}{more}"))
    if record.breach is not None:
        return Verdict("stopped", f"A guard stopped the run: {record.breach.reason}.")
    if record.result is not None and record.result.stopped:
        return Verdict("stopped", _sentence(record.result.stopped))
    failure = _undone(record, refusals) or _unproven(record.isolation["stores"]) or _unmet(record)
    if failure:
        return Verdict("failed", failure)
    proof = (
        "isolation is proven" if record.isolation["stores"] else "there was no store to prove isolation of"
    )
    return Verdict("passed", f"Every threshold held, no guard tripped, and {proof}.")


def refused_marks(fleet: Fleet, accepted: Collection[str]) -> dict[str, int]:
    """Return ``<service>: <why>`` -> marks refused on the way in, without those of accepted holes."""
    return {
        f"{service}: {kind}": count
        for service, judged in sorted(fleet.marks().items())
        for kind, count in sorted(judged.items())
        if kind != "marked" and f"{service}: {kind}" not in accepted
    }


def _undone(record: Record, refusals: Sequence[Mapping[str, Any]]) -> str:
    """Say what of the work was not done or not watched, "" if nothing."""
    if refusals:
        first = refusals[0]
        return (
            f"{len(refusals)} pieces of shadow work were refused, first in {first['service']}: "
            f"{first['store']}, {first['what']}{_traced(first['trace_id'])}."
        )
    if record.refused_marks:
        where, count = next(iter(record.refused_marks.items()))
        return f"{count} marks were not accepted, so that work was not done; first {where}."
    if record.lost:
        return f"The agent of {', '.join(sorted(record.lost))} fell silent while the run went on."
    if record.result is None or not record.result.sent:
        return "No request was sent."
    if record.real_users.get("during", {}).get("n") == 0:
        return "No real user was seen while load was sent, so whether they were harmed cannot be said."
    return ""


def _unproven(stores: Sequence[Mapping[str, Any]]) -> str:
    for store in stores:
        if not store["proven"]:
            why = [*store.get("reasons", []), *store.get("not_checked", [])]
            return f"Isolation of {store['name']} is not proven: {'; '.join(why)}."
    return ""


def _unmet(record: Record) -> str:
    broken = [row for row in record.thresholds if not row["passed"]]
    return _sentence(_broken(broken[0])) if broken else ""


def _judge(name: str, thresholds: Thresholds, requests: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for metric, limit in thresholds.limits().items():
        value = _measure(metric, requests)
        passed = value is not None and value <= limit
        rows.append({"endpoint": name, "metric": metric, "limit": limit, "value": value, "passed": passed})
    return rows


def _measure(metric: str, requests: pd.DataFrame) -> float | None:
    if requests.empty:
        return None
    if metric == "error_ratio":
        return float((requests["outcome"] != "answered").mean())
    latency = requests["start_ns"] + requests["duration_ns"] - requests["scheduled_ns"]
    latency = latency.astype("float64").mask(~is_answered(requests), math.inf).sort_values()
    ratio = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}[metric]
    value = float(latency.iloc[max(math.ceil(ratio * len(latency)) - 1, 0)]) / NS_PER_MS
    return value if math.isfinite(value) else None


def _broken(row: Mapping[str, Any]) -> str:
    of = "all requests" if row["endpoint"] == EVERY else f"{row['endpoint']!r}"
    if row["value"] is None:
        return (
            f"threshold of {of}: {row['metric']} could not be reached by any answer (limit {row['limit']:g})"
        )
    return f"threshold of {of}: {row['metric']} was {row['value']:.4g}, the limit is {row['limit']:g}"


def _traced(trace_id: str) -> str:
    return f" (trace {trace_id})" if trace_id.strip("0") else ""


def _sentence(text: str) -> str:
    """Write a reason as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
