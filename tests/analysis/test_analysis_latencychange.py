"""Latency rows: what is measured of which requests, and what is said of it."""

from __future__ import annotations

import pytest

from perflab.analysis.latencychange import latency_changes, measure_latency, show_change
from perflab.analysis.side import Side
from perflab.testing import S, spans


def side(took_ms: float, size: int = 100, *, failing: int = 0, name: str = "GET /") -> Side:
    """Return requests of nearly one duration, ``failing`` of them, evenly spread, failing."""
    return Side.of(
        spans(
            [
                S("shop", name, 50 * at, 50 * at + took_ms + at % 5 / 100, "server",
                  status="error" if at * failing % size < failing else "unset")
                for at in range(size)
            ]
        )
    )  # fmt: skip


def changed(before: Side, after: Side, q_value: float = 0.0):
    pairs = measure_latency(before, after)
    given = [q_value] * len(pairs)
    return latency_changes(pairs, given, given).set_index(["entry", "quantity"])


def test_twice_as_slow():
    """From 10 to 20 ms is +100 %, of all requests and of their operation; p99 needs more of them."""
    found = changed(side(10), side(20))
    assert [entry for entry, _ in found.index] == ["all"] * 4 + ["shop: GET /"] * 4
    row = found.loc[("shop: GET /", "p50")]
    assert (row["before"], row["after"], row["delta"]) == pytest.approx((10.02, 20.02, 10.0))
    assert row["change_ratio"] == pytest.approx(20.02 / 10.02 - 1)
    assert row["change_low_ratio"] <= row["change_ratio"] <= row["change_high_ratio"]
    assert (row["verdict"], row["unit"], row["requests_after"]) == ("worse", "ms", 100)
    assert found.loc[("all", "p99"), "verdict"] == "cannot say"
    assert "p99 needs 368 of each" in found.loc[("all", "p99"), "evidence"]


def test_the_margin_is_alike_up_and_down():
    """Up to 1.05 times, and down to 1/1.05, is the same; 0.05 ms are, too."""
    for before, after in ((100, 104), (104, 100), (0.2, 0.24)):
        assert changed(side(before), side(after)).loc[("all", "p50"), "verdict"] == "same"
    assert changed(side(100), side(106)).loc[("all", "p50"), "verdict"] == "worse"
    assert changed(side(106), side(100)).loc[("all", "p50"), "verdict"] == "better"


def test_errors():
    """None became ten in a hundred: there is no ratio of that, but a difference."""
    row = changed(side(10), side(10, failing=10)).loc[("all", "error_ratio")]
    assert (row["before"], row["after"], row["unit"], row["verdict"]) == (0, 0.1, "ratio", "worse")
    assert row["change_ratio"] != row["change_ratio"]
    assert row["evidence"].startswith("error_ratio +0.1 (+0.")
    none = changed(side(10), side(10)).loc[("all", "error_ratio")]
    assert (none["verdict"], none["evidence"].split("; ")[1]) == (
        "cannot say",
        "the interval is too wide to tell",
    )


def test_an_operation_of_one_side():
    """It has a row, and nothing to compare it with."""
    found = changed(side(10), side(10, name="GET /new"))
    row = found.loc[("shop: GET /new", "p50")]
    assert (row["requests_before"], row["verdict"]) == (0, "cannot say")
    assert row["evidence"].startswith("p50 from unknown to 10 ms; too few requests: 0 before and 100 after")


def test_changes_are_shown_with_their_interval():
    """As a percentage or in ms."""
    pair = measure_latency(side(10), side(20))[("all", "p50")]
    assert show_change(pair, pair.change()).startswith("+99.8 % (+99.")
    assert show_change(pair, pair.difference(), as_ratio=False).endswith("ms), from 10 ms to 20 ms")
