"""Differences against a baseline: found, split, and not found where there are none."""

from __future__ import annotations

import pytest
from made_shop import shop

from perflab.analysis.bottleneck import bottlenecks
from perflab.testing import S, spans


def differing(before, after):
    found = bottlenecks(after, baseline=before).differences
    return found[found["differs"]]


def request(at: float, queries: int, took: float, *, name: str = "SELECT stock") -> S:
    """Return a request with some sequential queries; a little unlike its neighbours, as requests are."""
    took += (at % 7) / 100
    inside = [
        S("stock", name, at + place * (took + 1), at + place * (took + 1) + took, "client")
        for place in range(queries)
    ]
    return S("stock", "GET /", at, at + queries * (took + 1), "server", children=inside)


class TestDifferences:
    def test_slower_calls(self):
        """The one entity that changed, by how much, and that it is its speed."""
        found = differing(shop(1, 600), shop(2, 600, slow={"stock: SELECT stock": 3}))
        assert found[["entry", "entity"]].values.tolist() == [["perflab: order", "stock: SELECT stock"]]
        row = found.iloc[0]
        assert row["low_ms"] <= 3 <= row["high_ms"]
        assert (row["more_calls_ms"], row["slower_calls_ms"]) == (0, row["delta_ms"])
        assert "by their speed" in row["evidence"]

    def test_more_calls(self):
        """Two statements became five, each as fast as before."""
        before = spans([request(100 * place, 2, 4) for place in range(60)])
        after = spans([request(100 * place, 5, 4) for place in range(60)])
        row = differing(before, after).set_index("entity").loc["stock: SELECT stock"]
        assert (row["calls_before"], row["calls_after"]) == (2, 5)
        assert row["more_calls_ms"] == pytest.approx(12, abs=0.2)
        assert row["slower_calls_ms"] == pytest.approx(0, abs=0.1)

    def test_changed_structure(self):
        """One entity went, another came."""
        before = spans([request(100 * place, 1, 4) for place in range(60)])
        after = spans([request(100 * place, 1, 4, name="SELECT goods") for place in range(60)])
        found = differing(before, after).set_index("entity")
        assert found["structure"].to_dict() == {
            "stock: SELECT goods": "not in the baseline",
            "stock: SELECT stock": "only in the baseline",
        }
        assert (found["structure_ms"] == found["delta_ms"]).all()

    def test_the_parts_sum_to_the_difference(self):
        """Whatever changed."""
        found = bottlenecks(shop(1, 300, slow={"order -> stock": 5}), baseline=shop(2, 300)).differences
        parts = found["more_calls_ms"] + found["slower_calls_ms"] + found["structure_ms"]
        assert parts.tolist() == pytest.approx(found["delta_ms"].tolist())
        assert found["delta_ms"].abs().is_monotonic_decreasing

    def test_two_runs_of_one_law_differ_in_nothing(self):
        """40 pairs of runs: differences are called in at most 5 % of them, and one more for chance."""
        pairs = [(shop(100 + 2 * seed, 300), shop(101 + 2 * seed, 300)) for seed in range(40)]
        assert sum(len(differing(before, after)) > 0 for before, after in pairs) <= 3

    def test_too_few_requests_are_refused(self):
        """Per operation, with the numbers."""
        before = spans([request(100 * place, 1, 4) for place in range(19)])
        after = spans([request(100 * place, 1, 4) for place in range(60)])
        found = bottlenecks(after, baseline=before)
        assert len(found.differences) == 0
        assert any("19 requests in the baseline and 60 here" in why for why in found.refused)
        assert len(bottlenecks(after).differences) == 0
