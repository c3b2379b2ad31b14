"""The verdict: the gravest finding counts, thresholds are judged with what was never answered."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from perflab.config import GuardRule
from perflab.load.guard import Breach
from perflab.load.plan import Result
from perflab.load.record import Record
from perflab.load.recording import OUTCOMES
from perflab.load.verdict import decide, judge_thresholds, refused_marks
from perflab.shadow.fleet import Fleet
from perflab.shadow.preflight import Hole
from perflab.trace.schema import span_table
from perflab.traffic.scenario import Endpoint, Scenario, Thresholds

MS = 1_000_000
PROVEN = {"name": "postgres", "proven": True}
UNPROVEN = {"name": "redis", "proven": False, "reasons": ["1 change is unattributed"], "not_checked": []}
LEAK = {"store": "postgres", "where": "orders", "what": "insert", "trace_id": "ab" * 16}
BREACH = Breach(GuardRule(of="real_users", metric="p99_ms", below=100.0), "p99 was 900 ms")
HOLE = Hole("stock: hook psycopg is off", "in service 'stock', hook psycopg is off")
BROKEN = {"endpoint": "pay", "metric": "p99_ms", "limit": 100.0, "value": 250.0, "passed": False}
REFUSAL = {"service": "stock", "store": "postgres", "what": "killed", "trace_id": "0" * 32}


def _result(sent: int = 10, stopped: str = "") -> Result:
    """Return the result of a generator whose requests were all answered."""
    times = dict.fromkeys(("p50_ms", "p99_ms", "p999_ms", "max_ms", "lateness_p99_ms", "cpu_s"), 1.0)
    counts = dict.fromkeys(("late", "missed", "substituted", "not_begun", "connections"), 0)
    kinds: dict[str, Any] = {"outcomes": {"answered": sent}, "errors": {}, "missed_reasons": {}}
    all_sent = {"offered": sent, "sent": sent, "answered": sent}
    return Result(stopped=stopped, start_ns=0, duration_ns=1, **all_sent, **counts, **kinds, **times)


def _decide(**found: Any) -> tuple[str, str]:
    """Decide a run of which nothing bad is known but what is given."""
    proof = {"leaks": found.pop("leaks", []), "stores": found.pop("stores", [PROVEN])}
    refusals = found.pop("refusals", [])
    verdict = decide(Record(isolation=proof, **{"result": _result(), **found}), refusals)
    return verdict.word, verdict.reason


@pytest.mark.parametrize(
    ("found", "word", "said"),
    [
        ({}, "passed", "isolation is proven"),
        ({"thresholds": [BROKEN]}, "failed", "'pay': p99_ms was 250, the limit is 100"),
        (
            {"stores": [PROVEN, UNPROVEN]},
            "failed",
            "Isolation of redis is not proven: 1 change is unattributed.",
        ),
        ({"refusals": [REFUSAL]}, "failed", "stock: postgres, killed"),
        ({"result": _result(stopped="kill switch")}, "stopped", "Kill switch."),
        ({"refused_marks": {"worker: refused: stale": 3}}, "failed", "3 marks were not accepted"),
        ({"lost": {"worker", "cart"}}, "failed", "The agent of cart, worker fell silent"),
        ({"result": _result(sent=0)}, "failed", "No request was sent."),
        ({"real_users": {"during": {"n": 0}}}, "failed", "No real user was seen"),
        ({"real_users": {"during": {"n": 7}}}, "passed", "isolation is proven"),
        ({"stores": []}, "passed", "there was no store to prove isolation of"),
        ({"breach": BREACH}, "stopped", "p99 was 900 ms"),
        ({"killed_by": "ann@here", "holes": [HOLE]}, "stopped", "The run was killed by ann@here."),
        ({"holes": [HOLE, HOLE]}, "refused", "hook psycopg is off; and 1 more."),
        ({"leaks": [LEAK]}, "leaked", "postgres, orders (insert), trace abababab"),
    ],
)
def test_each_finding_has_its_word(found: dict[str, Any], word: str, said: str) -> None:
    """Every kind of finding decides the verdict and is told in a sentence."""
    # WHEN there is one finding
    decided, reason = _decide(**found)
    # THEN it decides, and is told
    assert decided == word
    assert said in reason


def test_the_gravest_finding_counts() -> None:
    """A leak outranks a hole, a hole a stop, a stop a failed threshold."""
    # GIVEN findings, gravest first
    findings: list[tuple[str, dict[str, Any]]] = [
        ("leaked", {"leaks": [LEAK]}),
        ("refused", {"holes": [HOLE]}),
        ("stopped", {"breach": BREACH}),
        ("failed", {"thresholds": [BROKEN]}),
    ]
    for at, (word, _) in enumerate(findings):
        # WHEN it comes with all that are less grave
        together: dict[str, Any] = {}
        for _, found in findings[at:]:
            together.update(found)
        # THEN it decides
        assert _decide(**together)[0] == word


def _requests(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    """Build generated requests from (endpoint, outcome, latency in ms)."""
    count = len(rows)
    return span_table(
        {
            "trace_id": [f"{at + 1:032x}" for at in range(count)],
            "span_id": range(1, count + 1),
            "service": ["perflab"] * count,
            "name": [name for name, _, _ in rows],
            "kind": ["client"] * count,
            "start_ns": [1_000 * MS] * count,
            "duration_ns": [latency * MS for _, _, latency in rows],
            "scheduled_ns": [1_000 * MS] * count,
            "outcome": [outcome for _, outcome, _ in rows],
        }
    )


def test_thresholds_are_judged_per_endpoint_and_for_all() -> None:
    """Percentiles by nearest rank from due to end; an endpoint's own threshold sees its own requests."""
    # GIVEN ten answers of 10, 20 ... 100 ms of one endpoint, and one of 500 ms of another
    spans = _requests([("a", "answered", 10 * at) for at in range(1, 11)] + [("b", "answered", 500)])
    scenario = Scenario(
        name="s",
        endpoints=(
            Endpoint(name="a", url="/", thresholds=Thresholds(p50="50ms", p99="90ms")),
            Endpoint(name="b", url="/"),
        ),
        thresholds=Thresholds(p99="1s", errors=0.0),
    )
    # WHEN they are judged
    rows = {(row["endpoint"], row["metric"]): row for row in judge_thresholds(scenario, spans)}
    # THEN values and results are as by hand
    assert (rows["a", "p50_ms"]["value"], rows["a", "p50_ms"]["passed"]) == (50.0, True)
    assert (rows["a", "p99_ms"]["value"], rows["a", "p99_ms"]["passed"]) == (100.0, False)
    assert (rows["all", "p99_ms"]["value"], rows["all", "p99_ms"]["passed"]) == (500.0, True)
    assert rows["all", "error_ratio"]["passed"]


@pytest.mark.parametrize(
    "outcome", [name for name in OUTCOMES if name not in ("", "answered", "check_failed")]
)
def test_unanswered_requests_cannot_pass_a_percentile(outcome: str) -> None:
    """A quantile that lies among requests never answered has no value and does not pass."""
    # GIVEN one answer and one request without
    spans = _requests([("a", "answered", 10), ("a", outcome, 0)])
    scenario = Scenario(name="s", endpoints=(Endpoint(name="a", url="/"),), thresholds=Thresholds(p99="1s"))
    # WHEN p99 is judged
    (row,) = judge_thresholds(scenario, spans)
    # THEN it did not pass
    assert (row["value"], row["passed"]) == (None, False)


def test_refused_marks_are_counted_but_for_accepted_holes() -> None:
    """Marks judged other than marked are counted by service and reason; what was accepted is left out."""
    # GIVEN an agent that accepted two marks and refused three, for two reasons
    fleet = Fleet()
    report = {
        "process": "p1",
        "service": "worker",
        "pid": 1,
        "hooks": {},
        "uncovered": [],
        "control": {"live": [7]},
        "marks": {"marked": 2, "refused: expired": 1, "refused: hole": 2},
        "claims": [],
        "sessions": [],
        "unmarked": {"latency": {}, "errors": 0},
    }
    fleet.receive(json.dumps(report).encode())
    # THEN the reason that was not accepted is counted
    assert refused_marks(fleet, ["worker: refused: hole"]) == {"worker: refused: expired": 1}
