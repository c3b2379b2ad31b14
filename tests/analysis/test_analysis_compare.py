"""Comparisons: what changed is found and told apart from chance, whichever way the data lie."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_shop import beside, shop

import perflab as pf
from perflab.errors import AnalysisError, SchemaError
from perflab.testing import S, spans
from perflab.trace.schema import concat_spans

CHANGED = ("better", "worse")


def request(
    at: float, took: float, *, queries: int = 1, shadow: bool = False, name: str = "SELECT stock"
) -> S:
    """Return a request with some sequential queries."""
    inside = [
        S("stock", name, at + 1 + place * (took + 1), at + 1 + place * (took + 1) + took, "client")
        for place in range(queries)
    ]
    return S("stock", "GET /", at, at + 2 + queries * (took + 1), "server", children=inside, shadow=shadow)


def requests(seed: int, size: int, **options) -> pd.DataFrame:
    """Return requests with queries of random times."""
    rng = np.random.default_rng(seed)
    took = rng.lognormal(1, 0.4, size).tolist()
    return spans([request(100 * place, ms, **options) for place, ms in enumerate(took)])


def changes(found: pf.compare) -> list[list[str]]:
    """Return what is called better or worse."""
    told = [*found.table[["entity", "verdict"]].values.tolist()]
    told += found.latency[["quantity", "verdict"]].values.tolist()
    return [row for row in told if row[1] in CHANGED]


def generated(lost: int) -> pd.DataFrame:
    """Return generated requests of which ``lost`` in ten got no answer."""
    trees = []
    for number in range(200):
        at, is_lost = 50 * number, number % 10 < lost
        end = at + (1000 if is_lost else 10 + number % 7)
        outcome = "timeout" if is_lost else "answered"
        trees.append(S("perflab", "pay", at, end, "client", outcome=outcome, scheduled_ms=at))
    return spans(trees)


class TestWhatChanged:
    def test_a_slowdown_of_one_entity_is_worse_and_slower(self):
        """The planted 3 ms are found where they are, as slower calls, and the operation's p50 with them."""
        # Given two runs, one with a slow statement
        before, after = shop(1, 600), shop(2, 600, slow={"stock: SELECT stock": 3})
        # When they are compared
        found = pf.compare(before, after)
        # Then that statement, and nothing else, is worse
        told = found.table[found.table["verdict"].isin(CHANGED)]
        assert told[["entry", "entity", "verdict"]].values.tolist() == [
            ["perflab: order", "stock: SELECT stock", "worse"]
        ]
        row = told.iloc[0]
        assert row["low_ms"] <= 3 <= row["high_ms"]
        assert (row["more_calls_ms"], row["slower_calls_ms"], row["structure_ms"]) == (0, row["delta_ms"], 0)
        assert row["effect_size"] > 2
        median = found.latency.set_index(["entry", "quantity"]).loc[("perflab: order", "p50")]
        assert median["verdict"] == "worse"
        assert median["change_low_ratio"] < 3 / 18.5 < median["change_high_ratio"]
        assert found.answer == "worse"
        assert "stock: SELECT stock in perflab: order is worse by" in found.sentence

    def test_more_calls(self):
        """Two statements that became five are more calls, not slower ones."""
        found = pf.compare(requests(1, 80, queries=2), requests(2, 80, queries=5))
        row = found.table.set_index("entity").loc["stock: SELECT stock"]
        assert (row["verdict"], row["calls_before"], row["calls_after"]) == ("worse", 2, 5)
        assert row["more_calls_ms"] == pytest.approx(1.5 * row["before_ms"])
        assert row["more_calls_ms"] > 5 * abs(row["slower_calls_ms"])

    def test_changed_structure(self):
        """What went and what came is in the table and in ``structure``."""
        found = pf.compare(requests(1, 60), requests(1, 60, name="SELECT goods"))
        verdicts = found.table.set_index("entity")["verdict"].to_dict()
        assert verdicts == {
            "stock: SELECT goods": "worse",
            "stock: SELECT stock": "better",
            "stock: GET /": "same",
        }
        assert found.structure.set_index("entity")["verdict"].to_dict() == {
            "stock: SELECT goods": "appeared",
            "stock: SELECT stock": "vanished",
        }

    def test_a_path_that_only_moved_is_no_change(self):
        """From one of two calls side by side to the other: no request is longer or shorter for it."""
        found = pf.compare(beside(20, 12), beside(12, 20))
        rows = found.table.set_index("entity")
        assert rows.loc[["shop: a", "shop: b"], "verdict"].tolist() == ["cannot say", "cannot say"]
        assert rows.loc["shop: b", "evidence"].endswith(
            "but requests as a whole are not surely longer: the critical path may have moved"
        )
        assert found.answer not in ("worse", "better")

    def test_the_other_way_round_is_the_mirror_image(self):
        """Swapped arguments swap the signs, the ends of the intervals and the verdicts."""
        one, other = shop(1, 300), shop(2, 300, slow={"order -> stock": 4})
        keys = ["entry", "entity"]
        there, back = (
            found.table.set_index(keys).sort_index()
            for found in (pf.compare(one, other), pf.compare(other, one))
        )
        for column, mirrored in (
            ("delta_ms", "delta_ms"),
            ("low_ms", "high_ms"),
            ("effect_size", "effect_size"),
        ):
            np.testing.assert_allclose(there[column], -back[mirrored], atol=1e-9)
        swap = {"better": "worse", "worse": "better"}
        assert there["verdict"].tolist() == back["verdict"].replace(swap).tolist()
        assert "worse" in set(there["verdict"])
        first, second = pf.compare(one, other).latency, pf.compare(other, one).latency
        np.testing.assert_allclose(1 + first["change_ratio"], 1 / (1 + second["change_ratio"]))
        assert first["verdict"].tolist() == second["verdict"].replace(swap).tolist()

    def test_a_change_that_makes_no_difference_is_the_same(self):
        """1 % slower on 300 even requests is certain, and the same in practice."""
        before, after = (
            spans([request(100 * place, factor * (50 + place % 7 / 100)) for place in range(300)])
            for factor in (1, 1.01)
        )
        found = pf.compare(before, after)
        row = found.table.set_index("entity").loc["stock: SELECT stock"]
        assert row["low_ms"] > 0
        assert (row["verdict"], row["q_value"] < 0.01) == ("same", True)
        assert "makes no difference in practice" in row["evidence"]


class TestNoChange:
    def test_identical_inputs_differ_in_nothing(self):
        """All is the same, or cannot be told."""
        table = shop(3, 400)
        found = pf.compare(table, table)
        assert changes(found) == []
        assert (found.table["delta_ms"] == 0).all()
        assert found.answer == "cannot say"
        assert len(found.structure) == 0

    def test_halves_of_a_run_differ_in_nothing(self):
        """100 random splits by blocks of time: a change is called in at most 5 % of them."""
        # Given one fault-free run, cut into 20 blocks of time
        table, rng = requests(7, 240), np.random.default_rng(11)
        code = table["trace_id"].array.codes
        block = (table["start_ns"].groupby(code).transform("min").rank(method="dense") - 1) * 20 // 240
        # When ten of them are compared with the other ten
        false = 0
        for _ in range(100):
            is_one = block.isin(rng.permutation(20)[:10])
            false += bool(changes(pf.compare(table[is_one], table[~is_one])))
        # Then hardly ever is one half called better
        assert false <= 5

    def test_two_runs_of_one_law_differ_in_nothing(self):
        """40 pairs of separate runs: a change is called in at most 5 %."""
        pairs = [(shop(100 + 2 * seed, 120), shop(101 + 2 * seed, 120)) for seed in range(40)]
        assert sum(bool(changes(pf.compare(*pair))) for pair in pairs) <= 2

    def test_order_of_rows_and_duplicated_files_change_nothing(self):
        """Neither moves a number."""
        before, after = shop(1, 120), shop(2, 120)
        expected = pf.compare(before, after)
        found = pf.compare(
            before.sample(frac=1, random_state=1), concat_spans([after, after.sample(frac=1, random_state=2)])
        )
        for name in ("table", "latency", "structure"):
            pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))

    def test_too_few_requests_cannot_be_told(self):
        """The rows are there, with the reason, and without intervals."""
        found = pf.compare(requests(1, 19), requests(2, 60))
        assert set(found.table["verdict"]) == {"cannot say"}
        assert found.table["low_ms"].isna().all()
        assert set(found.table["evidence"]) == {"too few requests of stock: GET /"}
        assert any("19 requests in the baseline and 60 here" in why for why in found.refused)

    def test_nothing_at_all(self):
        """Empty tables have no rows and an answer."""
        empty = shop(1, 1).head(0)
        found = pf.compare(empty, empty)
        assert (len(found.table), len(found.latency), found.answer) == (0, 0, "cannot say")
        assert pf.compare(empty, shop(1, 60)).answer == "cannot say"


class TestTraffic:
    def test_marked_and_real_are_never_pooled(self):
        """Of a side that holds both, what the other side has is taken."""
        # Given real traffic of 3 ms and marked traffic of 30 ms
        real = [request(200 * place, 3 + place % 7 / 10) for place in range(60)]
        marked = [request(200 * place + 100, 30 + place % 7 / 10, shadow=True) for place in range(60)]
        both, only_real, only_marked = spans(real + marked), spans(real), spans(marked)
        # When both are there, the marked are compared
        assert changes(pf.compare(both, only_marked)) == []
        # When one side has real traffic only, the real ones are
        found = pf.compare(both, only_real)
        assert changes(found) == []
        assert "60 marked traces left out: after has real traffic only" in found.refused[0]
        # When there is nothing alike, the comparison is of the two, and says so
        found = pf.compare(only_real, only_marked)
        assert found.answer == "worse"
        assert "after is marked traffic, before is real" in found.refused[0]

    def test_unanswered_requests_are_slower_than_all_others(self):
        """Where time-outs reach p95 the change is a lower bound, and worse all the same."""
        found = pf.compare(generated(0), generated(1)).latency.set_index(["entry", "quantity"])
        row = found.loc[("perflab: pay", "p95")]
        assert (row["verdict"], np.isnan(row["change_high_ratio"])) == ("worse", True)
        assert "only a lower bound after" in row["evidence"]
        assert found.loc[("perflab: pay", "p50"), "verdict"] == "same"
        assert found.loc[("perflab: pay", "error_ratio"), "verdict"] == "worse"
        back = pf.compare(generated(1), generated(0)).latency.set_index(["entry", "quantity"])
        assert back.loc[("perflab: pay", "p95"), "verdict"] == "better"


class TestResult:
    def test_it_shows_itself(self):
        """As a fragment of HTML with what was counted."""
        found = pf.compare(requests(1, 40), requests(2, 40, name="<script>"))
        text = found._repr_html_()
        assert "&lt;script&gt;" in text
        assert "<script>" not in text
        assert "before: traces 40" in text
        assert repr(found).startswith("Comparison(")

    def test_a_measure_that_is_not_there_is_told(self):
        """With what is there."""
        found = pf.compare(requests(1, 40), requests(2, 40))
        with pytest.raises(AnalysisError, match="no metric 'p98'; there are p50, p90"):
            found.measure("p98")
        with pytest.raises(AnalysisError, match="no requests of 'pay'; there are 'all', 'stock: GET /'"):
            found.measure("p50", "pay")
        with pytest.raises(AnalysisError, match="'x' is on no critical path; there are 'stock: "):
            found.measure("share", entity="x")
        assert found.measure("exclusive", entity="stock: GET /").before.value == pytest.approx(3)

    def test_no_span_table(self):
        """Columns that are missing are named."""
        with pytest.raises(SchemaError):
            pf.compare(shop(1, 2), pd.DataFrame({"a": [1]}))
