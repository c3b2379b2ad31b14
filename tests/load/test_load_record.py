"""What a run writes down: requests, guards with their limits, services that were lost."""

from __future__ import annotations

from perflab.config import GuardRule, Secret, Target
from perflab.load.guard import Breach, Guard
from perflab.load.plan import Progress
from perflab.load.record import Record

TARGET = Target(
    addresses=("127.0.0.1:1",),
    control="/nowhere",
    control_key=Secret(env="KEY"),
    services={"cart": ("127.0.0.1:1",), "stock": ()},
)


def test_an_empty_record_is_complete() -> None:
    """A run that never came to sending has all keys, with zeros."""
    # WHEN nothing happened
    info = Record().as_info(TARGET, [])
    # THEN its requests are zero and its services attached
    assert info["requests"] == {
        "offered": 0,
        "sent": 0,
        "answered": 0,
        "late": 0,
        "missed": 0,
        "errors": 0,
        "error_outcomes": {},
    }
    assert info["services"] == [{"name": "cart", "state": "attached"}, {"name": "stock", "state": "attached"}]


def test_guards_are_written_with_limit_worst_and_trip() -> None:
    """A guard's row has its limit, the worst window and whether it tripped; no baseline means no limit."""
    # GIVEN a guard that tripped, and one whose baseline was never taken
    tripped = Guard(GuardRule(of="shadow", metric="p99_ms", below=100.0))
    waiting = Guard(GuardRule(of="real_users", metric="p99_ms", factor=2.0))
    record = Record(breach=Breach(tripped.rule, "too slow"), worst={"shadow p99_ms": 250.0}, lost={"stock"})
    # WHEN it is written down
    info = record.as_info(TARGET, [tripped, waiting])
    # THEN both rows are as they were
    assert info["guards"] == [
        {"of": "shadow", "metric": "p99_ms", "limit": 100.0, "worst": 250.0, "tripped": True},
        {"of": "real_users", "metric": "p99_ms", "limit": None, "worst": None, "tripped": False},
    ]
    assert [service["state"] for service in info["services"]] == ["attached", "lost"]


def test_a_run_that_was_broken_off_says_what_it_had_sent() -> None:
    """Without a result the last progress is what is known of the requests."""
    # GIVEN a run of which only progress was heard
    counted = {"due": 9, "offered": 9, "sent": 8, "missed": 1, "late": 2, "substituted": 0}
    progress = Progress(
        elapsed_ns=1,
        **counted,
        in_flight=2,
        waiting=0,
        outcomes={"answered": 5, "reset": 1, "missed": 1},
        errors=2,
        latencies=[],
        outstanding=[],
    )
    # WHEN it is written down
    requests = Record(progress=progress).as_info(TARGET, [])["requests"]
    # THEN it is as heard
    assert (requests["offered"], requests["sent"], requests["answered"], requests["errors"]) == (9, 8, 5, 2)


def test_a_service_that_came_back_is_told_from_one_that_is_lost() -> None:
    """A service that was silent for a while was neither well all the time nor lost."""
    # GIVEN two services that fell silent, one of which came back
    record = Record(lost={"cart"}, silent={"cart", "stock"})
    # THEN their states differ
    states = [service["state"] for service in record.as_info(TARGET, [])["services"]]
    assert states == ["lost", "silent for a while"]
