"""The bottleneck: planted ones are named, level profiles and few traces are said to be so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_shop import shop, simple

from perflab.analysis.bottleneck import bottlenecks
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
