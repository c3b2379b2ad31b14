"""Preflight: every place where marked work would not be isolated, by the name a scenario accepts it with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from attached_stage import stage_in, until

from perflab.shadow.fleet import Fleet
from perflab.shadow.preflight import Hole, Hop, static_holes, travelled_holes, unaccepted

TRACE = "ab" * 16
ANSWERED = {"endpoint": "buy", "outcome": "answered", "status": 200, "reason": "", "trace_id": TRACE}


def fleet_of(*reports: dict[str, Any]) -> Fleet:
    fleet = Fleet()
    for number, more in enumerate(reports):
        given = {
            "process": str(number),
            "service": "shop",
            "pid": 1,
            "sequence": 1,
            "control": {"live": []},
            "hooks": {},
            "uncovered": [],
            "claims": [],
            "sessions": [],
            "marks": {},
            "unmarked": {"latency": {}, "errors": 0},
        }
        fleet.receive(json.dumps(given | more).encode())
    return fleet


def hop(span_id: int, parent: int, service: str, kind: str, peer: str = "", shadow: bool = True) -> Hop:
    return Hop(TRACE, span_id, parent, service, kind, shadow, peer)


CHAIN = (
    hop(1, 9, "gateway", "server"),
    hop(2, 1, "gateway", "client", "cart"),
    hop(3, 2, "cart", "server"),
    hop(4, 3, "cart", "client", "bank"),
    hop(5, 3, "cart", "client"),
)


def names(holes: list[Hole]) -> list[str]:
    return [hole.name for hole in holes]


def test_services_without_an_agent_and_holes_of_those_with_one_are_found():
    """Before anything is sent: who does not report, what is off, and what is not covered."""
    fleet = fleet_of(
        {"hooks": {"redis": {"state": "off", "version": "5", "reason": ""}}},
        {"service": "cart", "uncovered": ["pg8000"]},
    )
    holes = static_holes(fleet, ["shop", "cart", "stock"])
    assert names(holes) == [
        "stock: no agent",
        "cart: driver pg8000 is not covered",
        "shop: hook redis is off",
    ]
    assert [hole.service for hole in holes] == ["stock", "cart", "shop"]
    assert holes[0].why.endswith("start it with perflab attach --service stock")
    assert static_holes(fleet_of({}), ["shop"]) == []


def test_a_whole_journey_has_no_hole():
    """Marked from end to end, with peers outside and stores at its leaves."""
    assert travelled_holes(fleet_of({"marks": {"marked": 4}}), CHAIN, [ANSWERED], {"gateway", "cart"}) == []


def test_where_the_mark_was_lost_is_named():
    """A span of a marked trace without the mark, and a call whose callee shows nothing."""
    lost = [*CHAIN[:2], hop(3, 2, "cart", "server", shadow=False)]
    assert names(travelled_holes(fleet_of(), lost, [ANSWERED], {"gateway", "cart"})) == ["cart: mark lost"]
    holes = travelled_holes(fleet_of(), CHAIN[:2], [ANSWERED], {"gateway", "cart"})
    assert names(holes) == ["gateway -> cart: trace lost"]
    assert (holes[0].service, holes[0].trace_id) == ("cart", TRACE)
    other_trace = [*CHAIN[:2], Hop("cd" * 16, 3, 2, "cart", "server", True, "")]
    assert names(travelled_holes(fleet_of(), other_trace, [], {"gateway", "cart"})) == [
        "gateway -> cart: trace lost"
    ]
    own = [*CHAIN[:2], hop(3, 2, "gateway", "internal")]
    assert names(travelled_holes(fleet_of(), own, [], {"cart"})) == ["gateway -> cart: trace lost"]


def test_refusals_and_refused_marks_are_holes():
    """What agents refused on the way is named with its store and trace."""
    refusal = {"store": "10.0.0.9:25", "what": "denied", "trace_id": TRACE, "time_ns": 1}
    fleet = fleet_of({"refusals": [refusal, refusal], "marks": {"marked": 1, "refused: expired": 2}})
    holes = travelled_holes(fleet, [], [ANSWERED], {"shop"})
    assert names(holes) == ["shop: 10.0.0.9:25", "shop: refused: expired"]
    assert holes[0].as_dict() == {
        "name": "shop: 10.0.0.9:25",
        "why": "service 'shop' may not use 10.0.0.9:25: denied",
        "service": "shop",
        "store": "10.0.0.9:25",
        "trace_id": TRACE,
    }


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({"outcome": "timeout", "status": 0, "reason": "no answer in 10 s"}, "timeout, no answer in 10 s"),
        ({"outcome": "check_failed", "status": 503, "reason": ""}, "check_failed, status 503"),
    ],
)
def test_requests_that_failed_are_holes(sample: dict[str, Any], said: str):
    """An endpoint whose preflight request was not answered as it should was not seen through."""
    holes = travelled_holes(fleet_of(), [], [ANSWERED | sample], set())
    assert names(holes) == [f"endpoint buy: {sample['outcome']}"]
    assert holes[0].why.endswith(said)


def test_a_hole_is_accepted_by_its_whole_name():
    """Only the exact name of a hole accepts it."""
    holes = [Hole("shop: hook redis is off", "why"), Hole("cart: no agent", "why")]
    assert unaccepted(holes, ["shop: hook redis is off", "cart"]) == holes[1:]
    assert unaccepted(holes, []) == holes


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_a_service_that_runs_without_the_agent_is_a_hole(tmp_path_factory: Any, option: str) -> None:
    """Whatever kept the agent out, the service does not report: the preflight says so by its name."""
    with stage_in(tmp_path_factory.mktemp("stage")) as stage:
        # Given a service with the agent's environment whose Python ignores it, and one that is attached
        code = "import sys; print('perflab.shadow.agent' in sys.modules, flush=True); sys.stdin.read()"
        words = [sys.executable, option, "-c", code]
        with subprocess.Popen(
            words,
            env=stage.environment(service="cart"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as alone:
            assert alone.stdout is not None
            assert alone.stdout.readline() == "False\n"
            stage.interactive("sys.stdin.read()")
            until(lambda: stage.receiver.fleet.services() == {"shop"}, "the other one reports")
            # Then it is named
            assert names(static_holes(stage.receiver.fleet, ["cart", "shop"])) == ["cart: no agent"]
