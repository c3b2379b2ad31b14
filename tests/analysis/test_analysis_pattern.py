"""Known troubles are recognised, and the advice fits the kind of place."""

from __future__ import annotations

import pytest
from made_shop import REDIS, SQL

from perflab.analysis.bottleneck import bottlenecks
from perflab.testing import S, spans


class TestPatterns:
    def row(self, inside: list[S], entity: str, requests: int = 40) -> dict[str, object]:
        """Return the ranking's row of an entity, of requests that all do the same inside."""
        trees = [
            S("shop", "GET /", 0, 100, "server", children=[moved(span, 0) for span in inside])
            for _ in range(requests)
        ]
        table = bottlenecks(spans(trees)).table
        return table[table["entity"] == entity].iloc[0].to_dict()

    def test_n_plus_one_queries(self):
        """One statement many times in a row under one parent."""
        inside = [
            S("shop", "SELECT item", 10 * place, 10 * place + 8, "client", attributes=SQL)
            for place in range(7)
        ]
        row = self.row(inside, "shop: SELECT item")
        assert row["pattern"] == "N+1 queries"
        assert "about 7 times in a row" in row["evidence"]
        assert "one statement" in row["advice"]

    def test_many_cache_calls(self):
        """The same of a cache is a chatty cache."""
        inside = [
            S("shop", "GET item", 10 * place, 10 * place + 8, "client", attributes=REDIS)
            for place in range(7)
        ]
        assert self.row(inside, "shop: GET item")["pattern"] == "chatty cache"

    @pytest.mark.parametrize(
        ("name", "attributes", "took_ms", "pattern", "advice"),
        [
            ("SELECT stock", SQL, 50, "slow query", "EXPLAIN"),
            ("SELECT stock", SQL, 1, "", "fewer"),
            ("SELECT stock", {}, 50, "slow query", "EXPLAIN"),
            ("COMMIT", SQL, 50, "commit", "disk"),
            ("SELECT stock", {**SQL, "db.query.text": "SELECT 1 FOR UPDATE"}, 50, "lock", "lock"),
            ("GET stock", REDIS, 50, "slow cache", "SLOWLOG"),
            ("POST bank", {"server.address": "bank"}, 50, "", "timeout"),
        ],
    )
    def test_a_leaf_gets_the_advice_that_fits(self, name, attributes, took_ms, pattern, advice):
        """By what is at its other end."""
        row = self.row([S("shop", name, 10, 10 + took_ms, "client", attributes=attributes)], f"shop: {name}")
        assert row["pattern"] == pattern
        assert advice in row["advice"]

    def test_own_time_is_to_be_profiled(self):
        """No span below says what it is."""
        row = self.row([], "shop: GET /")
        assert (row["pattern"], "profile" in row["advice"]) == ("", True)

    def test_calls_one_after_another_are_noted(self):
        """To different peers, which might be asked side by side; stores do not count."""
        peers = [S("shop", f"GET {name}", 10 * at, 10 * at + 8, "client") for at, name in enumerate("abc")]
        row = self.row(peers, "shop: GET a")
        assert row["pattern"] == "sequential calls"
        assert "one of 3 different calls" in row["evidence"]
        assert self.row(peers[:2], "shop: GET a")["pattern"] == ""


def moved(span: S, by: float) -> S:
    return S(
        span.service, span.name, span.start_ms + by, span.end_ms + by, span.kind, attributes=span.attributes
    )
