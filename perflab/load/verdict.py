"""What a run amounts to, in one word and one sentence, from what was measured.

``leaked`` before ``refused`` before ``stopped`` before ``failed`` before ``passed``: the gravest counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perflab.load.guard import Breach
from perflab.shadow.preflight import Hole
from perflab.trace.schema import GENERATOR_SERVICE
from perflab.traffic.scenario import Scenario, Thresholds
from perflab.units import NS_PER_MS

EVERY = "all"
_UNANSWERED = ("missed", "timeout", "connect_timeout", "refused", "reset", "malformed")


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


def decide(
    *,
    leaks: Sequence[Mapping[str, Any]],
    holes: Sequence[Hole],
    breach: Breach | None,
    stopped: str,
    thresholds: Sequence[Mapping[str, Any]],
    stores: Sequence[Mapping[str, Any]],
    refusals: Sequence[Mapping[str, Any]],
) -> Verdict:
    """Decide what a run amounts to.

    Parameters
    ----------
    leaks, stores
        As ``isolation.json`` has them.
    holes : sequence of Hole
        Open ones that forbade the run.
    breach : Breach, optional
        The guard that stopped it.
    stopped : str
        Another reason it was stopped for, ``""`` for none.
    thresholds
        From `judge_thresholds`.
    refusals
        Marked work the agents refused while the run went on.
    """
    if leaks:
        leak = leaks[0]
        return Verdict(
            "leaked",
            f"Shadow work reached production: {leak['store']}, {leak['where']} ({leak['what']}), "
            f"trace {leak['trace_id'] or 'unknown'}.",
        )
    if holes:
        more = f"; and {len(holes) - 1} more" if len(holes) > 1 else ""
        return Verdict("refused", _sentence(f"{holes[0].why}{_traced(holes[0].trace_id)}{more}"))
    if breach is not None:
        return Verdict("stopped", f"A guard stopped the run: {breach.reason}.")
    if stopped:
        return Verdict("stopped", _sentence(stopped))
    if refusals:
        first = refusals[0]
        return Verdict(
            "failed",
            f"{len(refusals)} pieces of shadow work were refused, first in {first['service']}: "
            f"{first['store']}, {first['what']}{_traced(first['trace_id'])}.",
        )
    unproven = [store for store in stores if not store["proven"]]
    if unproven:
        why = [*unproven[0].get("reasons", []), *unproven[0].get("not_checked", [])]
        return Verdict("failed", f"Isolation of {unproven[0]['name']} is not proven: {'; '.join(why)}.")
    broken = [row for row in thresholds if not row["passed"]]
    if broken:
        return Verdict("failed", _sentence(_broken(broken[0])))
    return Verdict("passed", "Every threshold held, no guard tripped, and isolation is proven.")


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
    latency = latency.astype("float64").mask(requests["outcome"].isin(_UNANSWERED), math.inf).sort_values()
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
