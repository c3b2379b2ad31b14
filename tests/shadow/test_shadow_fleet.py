"""The controller's view of the agents: reports added up, once each, and only what belongs to this run."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import SpanFormatError
from perflab.shadow.fleet import LOST_AFTER_S, Fleet, Window, between
from perflab.shadow.ledger import bucket_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(clock: Clock) -> Fleet:
    return Fleet(clock)


def report(process: str = "p1", service: str = "shop", sequence: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "process": process,
        "service": service,
        "pid": 7,
        "sequence": sequence,
        "time_ns": 10**18,
        "agent_version": "1",
        "control": {"age_s": 0.1, "live": [5], "problem": ""},
        "hooks": {"flask": {"state": "on", "version": "3", "reason": ""}},
        "uncovered": [],
        "claims": [],
        "claims_lost": 0,
        "refusals": [],
        "sessions": [],
        "outbound": [],
        "marks": {},
        "unmarked": {"latency": {}, "errors": 0},
        "stepped_aside": {},
    } | more


def send(fleet: Fleet, *reports: dict[str, Any]) -> None:
    for item in reports:
        assert fleet.receive(json.dumps(item).encode()) == {"ok": True}


def claim(number: int) -> dict[str, Any]:
    return {"store": "shop", "fingerprint": "f", "begin_ns": number, "end_ns": number + 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        json.dumps(report(claims=[1])).encode(),
        json.dumps(report(claims=None)).encode(),
        json.dumps(report(control=3)).encode(),
        json.dumps(report(hooks=[])).encode(),
        json.dumps(report(unmarked={"latency": {"x": 1}, "errors": 0})).encode(),
        json.dumps(report(refusals=[{"store": 1}])).encode(),
        json.dumps(report(sessions=[{"store": [1], "marked_calls": 1}])).encode(),
        json.dumps(report(outbound=[{"name": "a", "marked_calls": "many"}])).encode(),
        json.dumps({name: value for name, value in report().items() if name != "marks"}).encode(),
    ],
)
def test_what_is_no_report_is_refused_and_changes_nothing(fleet: Fleet, body: bytes):
    """Anyone can post to a collector: garbage is told so, and asked nothing later."""
    with pytest.raises(SpanFormatError, match="not an agent's report"):
        fleet.receive(body)
    assert (fleet.services(), fleet.claims, fleet.holes()) == (set(), [], set())


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_no_value_of_a_field_breaks_the_questions(value: Any):
    """A report is refused whole or can be asked everything."""
    for name in report():
        fleet = Fleet()
        try:
            fleet.receive(json.dumps(report() | {name: value}).encode())
        except SpanFormatError:
            continue
        _ = fleet.holes(), fleet.marks(), fleet.sessions(), fleet.outbound(), fleet.versions()
        _ = fleet.stepped_aside(), fleet.real_users("shop").summary(), fleet.believing(5), fleet.claims_lost


def test_processes_of_a_service_are_added_up(fleet: Fleet):
    """Marks, sessions, outbound calls and failures of all processes of a service are one sum."""
    session = {"store": "shop", "user": "shadow", "database": "d", "shadow": True, "marked_calls": 2}
    call = {"name": "bank", "action": "stub", "marked_calls": 1}
    ours = {"name": "cart", "action": "service", "marked_calls": 9}
    counted = {
        "marks": {"marked": 3},
        "sessions": [session],
        "outbound": [call, ours],
        "stepped_aside": {"x": 1},
    }
    send(fleet, report("p1", **counted), report("p2", **counted), report("p3", "cart", marks={"marked": 1}))
    assert fleet.marks() == {"shop": Counter(marked=6), "cart": Counter(marked=1)}
    assert fleet.sessions() == [session | {"service": "shop"}] * 2
    assert fleet.outbound() == [call | {"marked_calls": 2}]
    assert fleet.stepped_aside() == Counter(x=2)
    assert fleet.versions()["shop"] == {"perflab": "1", "flask": "3"}


def test_counters_are_those_of_the_last_report(fleet: Fleet):
    """Cumulative counters replace each other; they are not summed over reports."""
    send(fleet, report(sequence=1, marks={"marked": 3}), report(sequence=2, marks={"marked": 5}))
    assert fleet.marks() == {"shop": Counter(marked=5)}


def test_what_was_counted_before_we_listened_is_left_out(fleet: Fleet, clock: Clock):
    """Earlier runs' refused marks, sessions and refusals say nothing of this run."""
    # Given a process that has been reporting to others for long
    session = {"store": "shop", "user": "app", "database": "d", "shadow": False, "marked_calls": 4}
    old = {
        "marks": {"marked": 90, "refused: expired": 2},
        "sessions": [session],
        "claims_lost": 3,
        "stepped_aside": {"x": 9},
    }
    refusal = {"store": "s", "what": "w", "trace_id": "0" * 32}
    clock.now_s += 2
    recent, ancient = 10**18 - 10**9, 10**18 - 3 * 10**9
    refusals = [refusal | {"time_ns": recent}, refusal | {"time_ns": ancient}]
    # When we hear of it, and again
    send(fleet, report(sequence=700, refusals=refusals, **old))
    assert (fleet.marks(), fleet.sessions(), fleet.claims_lost) == ({"shop": Counter()}, [], 0)
    send(fleet, report(sequence=701, **(old | {"marks": {"marked": 91, "refused: expired": 2}})))
    # Then only what came since counts, and only refusals since
    assert fleet.marks() == {"shop": Counter(marked=1)}
    assert fleet.stepped_aside() == Counter()
    assert fleet.refusals == [refusal | {"time_ns": recent, "service": "shop"}]


def test_claims_that_come_again_count_once(fleet: Fleet):
    """A report taken for undelivered is in the next one again: its claims must not be counted twice."""
    # Given a report that arrived though its sender does not know, and two more that hold it again
    send(fleet, report(sequence=1, claims=[claim(1), claim(2)]))
    send(fleet, report(sequence=2, claims=[claim(1), claim(2), claim(3)]))
    send(fleet, report(sequence=3, claims=[claim(1), claim(2), claim(3)]))
    # When the sender goes on with new ones, and another process has equal ones
    send(fleet, report(sequence=4, claims=[claim(4)]), report("p2", claims=[claim(4)]))
    # Then each is there once for each process
    assert [item["begin_ns"] for item in fleet.claims] == [1, 2, 3, 4, 4]
    assert {item["service"] for item in fleet.claims} == {"shop"}


def test_reports_that_are_late_add_nothing(fleet: Fleet):
    """An older report that arrives after a newer one does not turn counters back."""
    late = report(sequence=1, marks={"marked": 1}, claims=[claim(1)])
    send(fleet, report(sequence=2, marks={"marked": 2}, claims=[claim(1), claim(2)]), late)
    assert fleet.marks() == {"shop": Counter()}  # the first we heard was its second
    assert len(fleet.claims) == 2


def test_claims_lost_are_summed(fleet: Fleet):
    """What agents had no room to keep is known, so that nothing is called proven that is not."""
    send(fleet, report("p1", claims_lost=2), report("p2", claims_lost=3))
    assert fleet.claims_lost == 5


def test_believing_is_all_processes_and_lost_is_none(fleet: Fleet, clock: Clock):
    """A service believes when every living process does; it is lost when none has reported lately."""
    silent = {"control": {"live": []}}
    send(fleet, report("p1"), report("p2", **silent), report("p3", "cart"))
    assert fleet.believing(5) == {"cart"}
    assert fleet.believing(6) == set()
    assert fleet.lost(["shop", "cart", "absent"]) == ["absent"]
    # When the one that did not believe dies, and shop's other one goes on
    clock.now_s += LOST_AFTER_S + 0.1
    send(fleet, report("p1", sequence=2))
    assert fleet.believing(5) == {"shop", "cart"}
    assert fleet.lost(["shop", "cart"]) == ["cart"]
    assert fleet.services() == {"shop", "cart"}


def test_holes_are_those_of_every_process(fleet: Fleet):
    """One process with a hook off or an uncovered driver is a hole of its service."""
    send(
        fleet,
        report("p1"),
        report("p2", hooks={"redis": {"state": "failed", "version": "5", "reason": "r"}}),
        report("p3", "cart", uncovered=["pg8000"]),
    )
    assert fleet.holes() == {"shop: hook redis is failed", "cart: driver pg8000 is not covered"}


def test_windows_are_differences(fleet: Fleet):
    """Real users' requests between two moments are those of the later less those of the earlier."""
    earlier = Window(Counter({1: 2, 5: 1}), 1)
    later = Window(Counter({1: 5, 5: 1, 9: 1}), 3)
    assert between(later, earlier) == Window(Counter({1: 3, 9: 1}), 2)
    assert between(earlier, earlier).summary() == {"n": 0, "p50_ms": 0.0, "p99_ms": 0.0, "error_ratio": 0.0}
    send(fleet, report("p1", unmarked={"latency": {"3": 2}, "errors": 1}))
    send(fleet, report("p2", unmarked={"latency": {"3": 1, "4": 1}, "errors": 0}))
    assert fleet.real_users("shop") == Window(Counter({3: 3, 4: 1}), 1)
    assert fleet.real_users("cart").count == 0


@given(st.lists(st.integers(1_000, 10**11), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_within_two_percent(durations_ns: list[int], ratio: float):
    """A percentile of the histogram is that of the durations themselves, within its bucket's 2 %."""
    window = Window(Counter(bucket_of(duration) for duration in durations_ns), 0)
    rank = next(n for n in range(1, len(durations_ns) + 1) if n >= ratio * len(durations_ns))
    exact_ms = sorted(durations_ns)[rank - 1] / 1e6
    assert window.quantile_ms(ratio) == pytest.approx(exact_ms, rel=0.0201)
