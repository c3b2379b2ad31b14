"""What a process counts: nothing is lost or doubled, from any thread."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.shadow import ledger as module
from perflab.shadow.ledger import CLAIMS_KEPT, Ledger, bucket_middle_ns, bucket_of, holes_of


def test_a_report_holds_everything() -> None:
    """Cumulative counters, and the claims and refusals since the last one."""
    # Given
    ledger = Ledger()
    ledger.hooks["redis"] = {"state": "on", "version": "8", "reason": ""}
    ledger.uncovered.add("pymysql")
    ledger.claim("orders", '[["item", "insert", 1]]', 1, 2)
    ledger.refuse("orders", "why", 0xAB)
    for _ in range(2):
        ledger.session("orders", "shadow", "shop_shadow", shadow=True)
    ledger.outbound("bank", "stub")
    ledger.mark("marked")
    ledger.unmarked_request(2_000_000, failed=False)
    ledger.unmarked_request(2_000_000, failed=True)
    ledger.step_aside("sql")
    # When
    report = ledger.take()
    # Then
    refusal = report["refusals"].pop()
    assert (refusal["trace_id"], refusal["store"], refusal["what"]) == (f"{0xAB:032x}", "orders", "why")
    assert report == {
        "hooks": ledger.hooks,
        "uncovered": ["pymysql"],
        "claims": [{"store": "orders", "fingerprint": '[["item", "insert", 1]]', "begin_ns": 1, "end_ns": 2}],
        "claims_lost": 0,
        "refusals": [],
        "sessions": [
            {
                "store": "orders",
                "user": "shadow",
                "database": "shop_shadow",
                "shadow": True,
                "marked_calls": 2,
            }
        ],
        "outbound": [{"name": "bank", "action": "stub", "marked_calls": 1}],
        "marks": {"marked": 1},
        "unmarked": {"latency": {str(bucket_of(2_000_000)): 2}, "errors": 1},
        "stepped_aside": {"sql": 1},
    }
    # And: counters stay, claims went with the report
    again = ledger.take()
    assert (again["claims"], again["refusals"]) == ([], [])
    assert again["marks"] == {"marked": 1}


@given(st.lists(st.sampled_from(["claim", "take", "lose"]), max_size=40))
def test_claims_arrive_once_and_in_order(steps: list[str]) -> None:
    """Whatever reports are lost on the way and given back."""
    # Given
    ledger, made, arrived = Ledger(), 0, []
    # When
    for step in steps:
        if step == "claim":
            ledger.claim("s", str(made), made, made)
            made += 1
        else:
            report = ledger.take()
            if step == "lose":
                ledger.claim("s", str(made), made, made)  # made while the report was under way
                made += 1
                ledger.give_back(report)
            else:
                arrived += [claim["fingerprint"] for claim in report["claims"]]
    arrived += [claim["fingerprint"] for claim in ledger.take()["claims"]]
    # Then
    assert arrived == [str(number) for number in range(made)]


def test_claims_beyond_the_bound_are_counted() -> None:
    """Memory is bounded; what is lost is said, so that the audit does not take it for a leak silently."""
    # Given
    ledger = Ledger()
    for number in range(CLAIMS_KEPT + 3):
        ledger.claim("s", "f", number, number)
    # Then
    report = ledger.take()
    assert (len(report["claims"]), report["claims_lost"]) == (CLAIMS_KEPT, 3)
    # When: a full report comes back to a ledger that has gone on
    ledger.claim("s", "f", 0, 0)
    ledger.give_back(report)
    assert ledger.take()["claims_lost"] == 4


def test_threads_lose_nothing() -> None:
    """Every method counts under one lock."""
    # Given
    ledger, taken = Ledger(), []

    def work() -> None:
        for number in range(500):
            ledger.claim("s", "f", number, number)
            ledger.session("s", "u", "d", shadow=True)
            ledger.step_aside("x")
            if number % 50 == 0:
                taken.append(ledger.take())

    threads = [threading.Thread(target=work) for _ in range(4)]
    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.append(ledger.take())
    # Then
    assert sum(len(report["claims"]) for report in taken) == 2000
    assert taken[-1]["sessions"][0]["marked_calls"] == 2000
    assert taken[-1]["stepped_aside"] == {"x": 2000}


def test_a_forked_child_knows_the_same_holes() -> None:
    """It has counted nothing, and covers no more than its parent."""
    ledger = Ledger()
    ledger.hooks["redis"] = {"state": "failed", "version": "8", "reason": "x"}
    ledger.uncovered.add("pymysql")
    ledger.claim("s", "f", 1, 2)
    child = ledger.successor()
    assert (
        child.holes("cart")
        == ledger.holes("cart")
        == {
            "cart: hook redis is failed",
            "cart: driver pymysql is not covered",
        }
    )
    assert child.take()["claims"] == []
    child.uncovered.add("kafka")
    assert "kafka" not in ledger.uncovered


def test_holes() -> None:
    """Named as a scenario accepts them."""
    hooks = {"redis": {"state": "off"}, "flask": {"state": "on"}}
    assert holes_of("cart", hooks, ["kafka"]) == {
        "cart: hook redis is off",
        "cart: driver kafka is not covered",
    }


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_buckets(one_ns: int, other_ns: int) -> None:
    """A bucket's middle is within 2 % of what is in it, and longer durations never have lower buckets."""
    assert bucket_middle_ns(bucket_of(one_ns)) == pytest.approx(max(one_ns, 1000), rel=0.0202)
    if one_ns <= other_ns:
        assert bucket_of(one_ns) <= bucket_of(other_ns)
    assert bucket_of(0) == bucket_of(1000) == 0
    assert module.REFUSALS_KEPT < CLAIMS_KEPT
