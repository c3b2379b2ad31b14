"""What got slower against a baseline comes first; what only moved, drifted or is chance does not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_shop import beside, shop
from queueing import Beside, Call, One, Station, System, Work, poisson, simulate

from perflab.analysis.bottleneck import NAMED, NOTHING, bottlenecks
from perflab.analysis.regression import Drift, find_regressions, put_first, rank_by_regression
from perflab.testing import S, spans

SPLITS = 60
"""Random splits of fault-free traces that are compared."""


@pytest.fixture(scope="module")
def before() -> pd.DataFrame:
    """Return a run without a fault."""
    return shop(seed=1, requests=600)


class TestNaming:
    @pytest.mark.parametrize(
        ("entity", "ms"),
        [
            ("stock: SELECT stock", 4),
            ("catalogue: GET product", 3),
            ("gateway -> cart", 3),
            ("payment: POST bank", 30),
            ("order: POST /orders", 8),
        ],
    )
    def test_a_fault_is_first_however_small_a_part_it_is(self, before, entity, ms):
        """Ranked by what it adds, where it would be far from first by its own time."""
        after = shop(seed=2, requests=600, slow={entity: ms})
        found = bottlenecks(after, baseline=before)
        assert (found.answer, found.table["entity"].iloc[0]) == (NAMED, entity)
        assert found.first["entity"] == entity
        calls = found.table["calls_per_request"].iloc[0]
        assert found.table["gain_ms"].iloc[0] == pytest.approx(ms * calls, rel=0.35)
        assert found.table["low_ms"].iloc[0] <= ms * calls <= found.table["high_ms"].iloc[0]
        assert found.sentence.startswith(f"{entity} got slower most: as in the baseline")
        assert found.table["evidence"].iloc[0].startswith("against the baseline of 'perflab: ")

    def test_two_faults_are_both_ahead_of_the_rest(self, before):
        """By what they add; both stand out."""
        after = shop(seed=2, requests=600, slow={"stock: SELECT stock": 20, "gateway -> cart": 4})
        found = bottlenecks(after, baseline=before)
        assert found.table["entity"].head(2).tolist() == ["stock: SELECT stock", "gateway -> cart"]
        assert found.table["stands_out"].tolist() == [True, True, *[False] * (len(found.table) - 2)]
        assert found.sentence.endswith("; 1 other entity got slower, too.")
        assert found.table["rank"].tolist() == list(range(1, len(found.table) + 1))

    def test_what_got_faster_is_no_bottleneck(self, before):
        """The mended run against the one with the fault."""
        slow = shop(seed=2, requests=600, slow={"stock: SELECT stock": 20})
        found = bottlenecks(before, baseline=slow)
        assert (found.answer, found.first) == (NOTHING, None)
        assert not found.table["stands_out"].any()
        assert "stock: SELECT stock, is -" in found.sentence

    def test_an_entry_operation_tells_its_own(self, before):
        """``by_entry`` is ranked against the baseline, too."""
        after = shop(seed=2, requests=600, slow={"payment: POST bank": 30})
        by_entry = bottlenecks(after, baseline=before).by_entry
        firsts = by_entry[by_entry["rank"] == 1].set_index("entry")
        pay = firsts.loc["perflab: pay"]
        assert (pay["entity"], bool(pay["stands_out"])) == ("payment: POST bank", True)
        assert not firsts.drop(index="perflab: pay")["stands_out"].any()

    def test_an_operation_with_few_requests_is_ranked_but_not_named(self):
        """A dozen of payments, all very slow: first, with nothing said of chance."""
        before, after = (shop(seed=seed, requests=110, slow=slow) for seed, slow in
                         ((1, {}), (2, {"payment: POST bank": 300})))  # fmt: skip
        found = bottlenecks(after, baseline=before)
        first = found.table.iloc[0]
        assert (first["entity"], bool(first["stands_out"])) == ("payment: POST bank", False)
        assert first["gain_ms"] > 20
        assert np.isnan(first["low_ms"])
        assert "(too few for an interval)" in first["evidence"]
        assert (found.answer, "perflab: pay" in set(found.differences["entry"])) == (NOTHING, False)
        assert "nan" not in found.sentence

    def test_too_little_to_compare_is_ranked_as_without_a_baseline(self, before):
        """And said to be."""
        found = bottlenecks(before, baseline=shop(seed=1, requests=10))
        assert "nothing could be compared with the baseline: ranked as without one" in found.refused
        pd.testing.assert_frame_equal(found.table, bottlenecks(before).table)


class TestWhatIsNoRegression:
    def test_a_change_of_mix(self):
        """Twice as many of the slow operation, none of which is slower."""
        rare = [S("shop", "GET /fast", 100 * at, 100 * at + 10 + at % 5, kind="server") for at in range(200)]
        slow = [S("shop", "GET /slow", 50_000 + 300 * at, 50_200 + 300 * at + at % 7, kind="server")
                for at in range(200)]  # fmt: skip
        found = bottlenecks(spans(rare[:50] + slow), baseline=spans(rare + slow[:50]))
        assert found.answer == NOTHING
        assert found.table["gain_ms"].abs().max() < 1.0

    def test_a_path_that_moves_between_calls_side_by_side(self):
        """Two calls beside each other change places; no request is longer for it."""
        found = bottlenecks(beside(12, 20), baseline=beside(20, 12))
        assert found.differences.set_index("entity").loc["shop: b", "differs"]
        assert (found.answer, found.first) == (NOTHING, None)

    def test_a_machine_that_is_slower_altogether(self, before):
        """All entities a tenth slower: none of them is to blame."""
        slower = before.assign(
            start_ns=before["start_ns"].min() + (before["start_ns"] - before["start_ns"].min()) * 11 // 10,
            duration_ns=before["duration_ns"] * 11 // 10,
        )
        found = bottlenecks(slower, baseline=before)
        assert found.differences["differs"].any()
        assert (found.answer, found.first) == (NOTHING, None)

    def test_chance(self, before):
        """Random halves of one run, by trace and by stretches of time: at most 5 % name anything."""
        number = before["trace_id"].cat.codes.to_numpy()
        rng = np.random.default_rng(5)
        named = 0
        for split in range(SPLITS):
            size = 1 if split % 2 else 25  # single traces, or some seconds of them
            in_first = rng.random(number.max() // size + 1) < 0.5
            chosen = in_first[number // size]
            named += bottlenecks(before[chosen], baseline=before[~chosen]).answer == NAMED
        assert named <= 0.05 * SPLITS


class TestQueues:
    def test_what_holds_the_workers_is_put_before_the_queue_it_makes(self):
        """A callee that got slower has a queue before it; the callee comes first, the edge after it."""
        system = System(
            (Station("stock", 8, workers=1, shape=4.0, traced=True), Station("cart", 5, 4, 4.0, traced=True)),
            One((Work(3), Beside((Call("cart"),)), Call("stock"), Work(2))),
        )
        arrivals = poisson(60, 1500, seed=3)
        quiet = simulate(system, arrivals, seed=4)
        busy = simulate(system, arrivals, seed=5, factors={"stock: serve": 1.75})
        found = bottlenecks(busy, baseline=quiet)
        assert found.first["entity"] == "stock: serve"
        assert found.first["waits_at"] == "front -> stock"
        assert found.table["entity"].head(2).tolist() == ["stock: serve", "front -> stock"]
        assert "requests wait there" in found.sentence


class TestParts:
    def test_drift_is_the_middle_of_what_all_do(self):
        """One that doubled does not change it; with few entities nothing is called drift."""
        rows = pd.DataFrame({"before_ms": [10.0] * 7, "after_ms": [10.9, 11.0, 11.0, 11.0, 11.1, 11.0, 20.0]})
        drift = Drift.of(rows)
        assert drift.median_ratio == pytest.approx(1.1)
        assert 1.1 <= drift.most_ratio < 1.2
        assert Drift.of(rows.head(4)) == Drift(1.0, 1.0)

    def test_what_is_added_is_weighed_by_the_mix_and_bounded_by_the_requests(self):
        """By hand: 4 ms in a quarter of the requests, which are only 3 ms longer, and -1 ms in the rest."""
        rows = {
            "entry": ["a", "b"],
            "entity": ["x", "x"],
            "before_ms": [1.0, 5.0],
            "after_ms": [5.0, 4.0],
            "delta_ms": [4.0, -1.0],
            "low_ms": [3.0, -2.0],
            "high_ms": [5.0, 0.0],
            "margin_ms": [0.1, 0.1],
            "request_delta_ms": [3.0, 2.0],
            "request_low_ms": [2.0, 1.0],
            "request_margin_ms": [0.5, 0.5],
            "p_value": [0.001, 0.5],
            "differs": [True, False],
            "evidence": ["+4", "-1"],
        }
        (found,) = find_regressions(pd.DataFrame(rows), {"a": 10, "b": 30}).to_dict("records")
        assert found["added_ms"] == pytest.approx(0.25 * 3 - 0.75 * 1)
        assert not found["regressed"]  # no request is longer for it, all in all
        (found,) = find_regressions(pd.DataFrame(rows), {"a": 30, "b": 10}).to_dict("records")
        assert found["added_ms"] == pytest.approx(0.75 * 3 - 0.25 * 1)
        half_width = np.hypot(0.75 * 1, 0.25 * 1)
        assert found["low_ms"] == pytest.approx(found["added_ms"] - half_width)
        assert found["high_ms"] == pytest.approx(found["added_ms"] + half_width)
        assert found["regressed"]
        assert found["evidence"] == "of 'a' +4"

    def test_entities_that_were_not_compared_come_last(self):
        """Without numbers of a difference, which they do not have."""
        table = pd.DataFrame(
            {
                "entity": ["a", "b", "c"],
                "exclusive_ns": [9, 5, 1],
                "gain_ms": 1.0,
                "low_ms": 1.0,
                "high_ms": 1.0,
            }
        )
        compared = pd.DataFrame(
            {"entity": ["b", "c"], "added_ms": [-1.0, 2.0], "low_ms": 0.0, "high_ms": 3.0,
             "regressed": [False, True], "evidence": ["faster", "slower"]}
        )  # fmt: skip
        ranked = rank_by_regression(table, compared)
        assert ranked["entity"].tolist() == ["c", "b", "a"]
        assert ranked["stands_out"].tolist() == [True, False, False]
        assert ranked["change"].tolist() == ["slower", "faster", "in nothing that could be compared"]
        assert np.isnan(ranked["gain_ms"].iloc[2])
        assert put_first(ranked, "b")[["entity", "rank"]].values.tolist() == [["b", 1], ["c", 2], ["a", 3]]
