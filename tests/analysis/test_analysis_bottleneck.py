"""The bottleneck: planted ones are named, level profiles and few traces are said to be so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_shop import REDIS, SQL, shop

from perflab.analysis.bottleneck import bottlenecks
from perflab.analysis.ranking import set_apart
from perflab.testing import S, spans
from perflab.trace.schema import concat_spans, empty_spans

NATURAL = {"stock: SELECT stock": 10.0}


class TestNaming:
    @pytest.mark.parametrize(
        "entity",
        [
            "catalogue: GET /products",
            "gateway: POST /pay",
            "stock: UPDATE stock",
            "cart: HGETALL cart",
            "order -> stock",
            "perflab -> gateway",
            "payment: POST bank",
        ],
    )
    @pytest.mark.parametrize("delay_ms", [100, 300])
    def test_a_planted_delay_is_named(self, entity, delay_ms):
        """Beside the shop's own hotspot, on a rare operation as well as on a frequent one."""
        found = bottlenecks(shop(1, slow={**NATURAL, entity: delay_ms}))
        assert found.answer == "named"
        assert found.first["entity"] == entity
        assert entity in found.sentence
        assert found.first["stands_out"] is True

    def test_a_natural_hotspot_is_named(self):
        """A statement of 10 ms in an operation of 40 ms."""
        found = bottlenecks(shop(2, slow=NATURAL))
        assert found.first["entity"] == "stock: SELECT stock"
        assert found.first["in_entry"] == "perflab: order"
        assert found.first["in_entry_share_ratio"] > 0.3
        assert "'perflab: order'" in found.sentence

    def test_nothing_stands_out_of_a_level_profile(self):
        """Over 50 seeds, none above 20 %: the false rate is 0."""
        named = [
            found.first["entity"] for found in (bottlenecks(shop(s, 300)) for s in range(50)) if found.first
        ]
        assert named == []

    def test_it_says_what_is_largest_when_nothing_stands_out(self):
        """And what it would buy."""
        found = bottlenecks(shop(3))
        assert found.answer == "nothing stands out"
        assert "the largest part, perflab -> gateway, is" in found.sentence

    def test_a_place_that_ruins_a_rare_operation_is_named_for_that_operation(self):
        """It stands out in its entry's ranking, not over all requests."""
        found = bottlenecks(shop(4, 1500, slow={"payment: INSERT payment": 12.0}))
        pay = found.by_entry[(found.by_entry["entry"] == "perflab: pay") & found.by_entry["stands_out"]]
        assert pay["entity"].tolist() == ["payment: INSERT payment"]
        assert found.answer == "nothing stands out"


class TestNumbers:
    def test_gain_is_exclusive_time_per_request(self):
        """And shares are of all time; by hand on equal requests."""
        found = bottlenecks(spans([simple(20 * place) for place in range(40)]))
        row = found.first
        assert (row["gain_ms"], row["low_ms"], row["high_ms"]) == pytest.approx((7, 7, 7))
        assert row["share_ratio"] == pytest.approx(0.7)
        assert (row["rank"], row["calls_per_request"], row["entry"]) == (1, 1.0, "all")

    def test_intervals_hold_the_truth_as_often_as_they_say(self):
        """Of 60 runs of one law, 95 % intervals have the true mean in at least 54 (chance: 1 in 100)."""
        truth = 2 * np.exp(0.4**2 / 2)  # gateway's own time per request, lognormal
        inside = 0
        for seed in range(60):
            row = (
                bottlenecks(shop(seed, 200))
                .by_entry.set_index(["entry", "entity"])
                .loc[("perflab: browse", "gateway: POST /browse")]
            )
            inside += row["low_ms"] <= truth <= row["high_ms"]
        assert inside >= 54

    def test_the_same_table_gives_the_same_numbers(self):
        """Row order and duplicates change nothing, nor does chance."""
        table = shop(5, 100)
        again = concat_spans([table, table]).sample(frac=1, random_state=1)
        first, second = bottlenecks(table).table, bottlenecks(again).table
        assert first.to_json() == second.to_json()

    def test_the_columns_callers_rely_on_are_there(self):
        """The contract with the report, the command line and the notebooks, for all three tables."""
        wanted = {
            *("entity", "kind", "service", "name", "caller", "callee", "calls", "exclusive_ns", "mean_ms"),
            *("p50_ms", "p95_ms", "p99_ms", "share_ratio", "exemplar_trace_ids"),
            *("rank", "gain_ms", "low_ms", "high_ms", "pattern", "evidence", "advice"),
            *("entry", "stands_out"),
        }
        for found in (bottlenecks(shop(1, 50)), bottlenecks(empty_spans())):
            assert wanted <= set(found.table.columns)
            assert wanted <= set(found.by_entry.columns)
        json.dumps(bottlenecks(shop(1, slow=NATURAL)).first, allow_nan=False)


class TestTooFew:
    def test_29_requests_are_not_ranked(self):
        """30 are; the message says how many there were."""
        requests = [simple(20 * place) for place in range(30)]
        few, enough = bottlenecks(spans(requests[:29])), bottlenecks(spans(requests))
        assert (few.answer, few.first, len(few.table)) == ("not enough traces", None, 0)
        assert "29 answered requests, 30 are needed" in few.sentence
        assert enough.answer == "named"

    def test_no_span_at_all(self):
        """An answer, not an exception."""
        assert bottlenecks(empty_spans()).answer == "not enough traces"

    def test_an_operation_with_19_requests_has_no_ranking_of_its_own(self):
        """It counts in the pooled one, and the refusal says why."""
        rare = [S("stock", "GET /rare", 20 * place, 20 * place + 5, "server") for place in range(19)]
        found = bottlenecks(spans([*(simple(20 * place) for place in range(40)), *rare]))
        assert set(found.by_entry["entry"]) == {"stock: GET /stock"}
        assert any("stock: GET /rare" in why and "19" in why for why in found.refused)

    def test_unanswered_requests_do_not_count(self):
        """They have no critical path."""
        lost = [
            S(
                "perflab",
                "pay",
                20 * place,
                20 * place + 9,
                "client",
                outcome="timeout",
                scheduled_ms=20 * place,
            )
            for place in range(40)
        ]
        found = bottlenecks(spans(lost))
        assert (found.answer, found.counts["unanswered"]) == ("not enough traces", 40)


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

    def test_a_gap_that_grows_with_load_is_a_queue_and_its_holder_is_named(self):
        """Four workers and too many requests: they wait at the edge for what keeps the workers busy."""
        found = bottlenecks(saturated(workers=4, service_ms=80))
        edge = found.table.iloc[0]
        assert (edge["entity"], edge["pattern"]) == ("web -> shop", "waiting to be accepted")
        assert "grows with the calls in flight" in edge["evidence"]
        assert found.first["entity"] == "shop: SELECT stock"
        assert found.first["waits_at"] == "web -> shop"
        assert "web -> shop" in found.sentence

    def test_a_gap_that_does_not_grow_is_the_network(self):
        """The same traffic with workers enough and a slow line."""
        found = bottlenecks(saturated(workers=10_000, service_ms=5, line_ms=60))
        assert (found.first["entity"], found.first["pattern"]) == ("web -> shop", "network or connect")
        assert "waits_at" not in found.first


class TestStandingOut:
    @pytest.mark.parametrize(
        ("shares", "apart"),
        [
            ([0.6, 0.2, 0.1, 0.1], 1),
            ([0.4, 0.38, 0.1, 0.06, 0.06], 0),  # two of five: 40 % is what twice an equal split is
            ([0.42, 0.41, 0.06, 0.06, 0.05], 2),
            ([0.95, 0.05], 1),
            ([1.0], 1),
            ([0.22, 0.2, *[0.058] * 10], 2),
            ([0.19, *[0.06] * 13], 0),
            ([0.3, 0.25, *[0.05] * 9], 2),
            ([0.3, 0.25, 0.2, 0.19, 0.06], 0),
        ],
    )
    def test_the_rule_by_hand(self, shares, apart):
        """The floor, the lead and the group of leaders."""
        values = np.array(shares)
        assert set_apart(values, values).sum() == apart

    def test_the_lower_end_of_the_interval_counts(self):
        """A wide interval is no finding."""
        assert not set_apart(np.array([0.6, 0.1]), np.array([0.3, 0.05])).any()

    def test_no_entity(self):
        """Nothing to stand out."""
        assert set_apart(np.array([]), np.array([])).tolist() == []


def simple(at: float) -> S:
    query = S("stock", "SELECT stock", at + 2, at + 9, kind="client", attributes=SQL)
    return S("stock", "GET /stock", at, at + 10, kind="server", children=[query])


def moved(span: S, by: float) -> S:
    return S(
        span.service, span.name, span.start_ms + by, span.end_ms + by, span.kind, attributes=span.attributes
    )


def saturated(workers: int, service_ms: float, line_ms: float = 1.0, requests: int = 600):
    """Return a ramp into a service with few workers: who comes when all are busy waits in the gap."""
    rng = np.random.default_rng(7)
    rate_per_ms = np.linspace(0.01, 0.1, requests)
    at = np.cumsum(rng.exponential(1, requests) / rate_per_ms)
    free = [0.0] * workers
    trees = []
    for begin in at.tolist():
        line = line_ms * float(rng.uniform(0.9, 1.1))
        took = service_ms * float(rng.uniform(0.8, 1.2))
        worker = free.index(min(free))
        start = max(begin + line, free[worker])
        free[worker] = end = start + took
        query = S("shop", "SELECT stock", start + 1, end - 1, "client", attributes=SQL)
        server = S("shop", "GET /", start, end, "server", children=[query])
        trees.append(S("web", "GET shop", begin, end + line, "client", children=[server]))
    return spans(trees)
