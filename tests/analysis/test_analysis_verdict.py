"""What is said of a ranking."""

from __future__ import annotations

import pandas as pd

from perflab.analysis.verdict import evidence, sentence_of_change, sentence_of_share

ROW = {
    "entity": "order -> stock",
    "kind": "edge",
    "caller": "order",
    "callee": "stock",
    "service": "order",
    "entry": "all",
    "share_ratio": 0.4,
    "share_low_ratio": 0.35,
    "share_high_ratio": 0.45,
    "gain_ms": 8.0,
    "low_ms": 7.0,
    "high_ms": 9.0,
    "calls_per_request": 2.0,
    "mean_ms": 4.0,
    "p99_ms": 9.5,
    "stands_out": True,
}


def test_evidence_has_the_numbers_and_what_is_known_besides():
    """Share, gain, calls; the pattern after a semicolon."""
    assert evidence(ROW, "") == (
        "40% of the time of all requests (95 % interval 35% to 45%), between order and stock; 8 ms per "
        "request (7 to 9 ms); 2 calls per request on the critical path, 4 ms each, p99 9.5 ms"
    )
    own = {**ROW, "kind": "operation", "entry": "shop: GET /"}
    assert evidence(own, "about 9 calls in a row").startswith(
        "40% of the time of 'shop: GET /' (95 % interval 35% to 45%), in order; 8 ms"
    )
    assert evidence(own, "about 9 calls in a row").endswith("p99 9.5 ms; about 9 calls in a row")


def test_evidence_of_a_change_begins_with_it():
    """The rest is how it is now."""
    assert evidence({**ROW, "change": "of 'a' +4 ms"}, "chatty") == (
        "against the baseline of 'a' +4 ms; now 40% of the time of all requests, between order and stock; 2 "
        "calls per request on the critical path, 4 ms each, p99 9.5 ms; chatty"
    )


def test_the_answer_without_a_baseline():
    """Named, named for a queue, for one operation, or nothing."""
    table = pd.DataFrame([ROW])
    assert sentence_of_share(ROW, table) == (
        "order -> stock holds requests up most: 40% of the time of all requests. Without it an average "
        "request would take 8 ms less (95 % interval 7 to 9 ms)."
    )
    entry = {**ROW, "in_entry": "shop: pay", "in_entry_share_ratio": 0.8, "in_entry_gain_ms": 30.0}
    assert sentence_of_share(entry, table).endswith("; of 'shop: pay' it is 80%, 30 ms per request.")
    queue = {**ROW, "waits_at": "gateway -> order", "waits_ms": 20.0, "holds_ratio": 0.7}
    assert "it is 70% of what the workers behind gateway -> order are busy with" in sentence_of_share(
        queue, table
    )
    assert sentence_of_share(None, table).startswith(
        "Nothing stands out: the largest part, order -> stock, is 40%"
    )
    assert sentence_of_share(None, table.head(0)) == "Nothing stands out: there is no time to share."


def test_the_answer_against_a_baseline():
    """What got slower most, how many more did, or the largest difference there is."""
    table = pd.DataFrame([ROW, {**ROW, "entity": "x"}, {**ROW, "entity": "y", "stands_out": False}])
    first = "order -> stock got slower most: as in the baseline, an average request would take 8 ms less"
    assert sentence_of_change(ROW, table.head(1)) == f"{first} (95 % interval 7 to 9 ms)."
    assert sentence_of_change(ROW, table).endswith("; 1 other entity got slower, too.")
    queue = {**ROW, "waits_at": "gateway -> order", "waits_ms": 20.0, "holds_ratio": 0.7}
    assert "requests wait there 20 ms longer to be accepted" in sentence_of_change(queue, table)
    few = {**ROW, "low_ms": float("nan"), "high_ms": float("nan")}
    assert sentence_of_change(few, table.head(1)) == (
        f"{first} (no interval: an entry operation it is in has too few requests)."
    )
    faster = pd.DataFrame([ROW, {**ROW, "entity": "x", "gain_ms": -9.0, "low_ms": -10.0, "high_ms": -8.0}])
    assert sentence_of_change(None, faster) == (
        "Nothing stands out against the baseline: the largest difference, in x, is -9 ms per request (95 % "
        "interval -10 to -8 ms)."
    )
    unknown = table.assign(gain_ms=float("nan"))
    assert (
        sentence_of_change(None, unknown) == "Nothing stands out against the baseline: no entity is in both."
    )
