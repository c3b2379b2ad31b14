"""When an entity stands out: the rule by hand, and rankings of some requests only."""

from __future__ import annotations

import numpy as np
import pytest
from made_shop import shop, simple

from perflab.analysis.criticalpath import critical_path
from perflab.analysis.ranking import empty_ranking, rank, resampled, set_apart
from perflab.testing import spans


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


class TestRank:
    def test_some_requests_only(self):
        """Gain, share and calls are of the requests chosen."""
        # Given two operations, of which one is ranked
        path = critical_path(shop(1, 100))
        among = np.asarray(path.entries["entry"].array == "perflab: order")
        # When
        found = rank(path, among, "perflab: order")
        # Then its shares sum to one, its gains to its mean duration, and nothing of the others is there
        assert found["share_ratio"].sum() == pytest.approx(1)
        mean_ms = path.entries["duration_ns"].to_numpy()[among].mean() / 1e6
        assert found["gain_ms"].sum() == pytest.approx(mean_ms)
        assert not found["entity"].str.contains("payment").any()
        assert (found["low_ms"] <= found["gain_ms"]).all()
        assert (found["gain_ms"] <= found["high_ms"]).all()

    def test_an_empty_ranking_has_the_same_columns(self):
        """So that callers need not ask."""
        path = critical_path(spans([simple(20 * place) for place in range(5)]))
        assert list(empty_ranking(path)) == list(rank(path, np.ones(5, dtype=bool), "all"))

    def test_resampled_sums_of_an_entity_nobody_called_are_zero(self):
        """One side of a comparison may lack it."""
        path = critical_path(spans([simple(20 * place) for place in range(5)]))
        totals, blocks = resampled(path, np.ones(5, dtype=bool), ["stock: SELECT stock", "gone"])
        assert (totals[:, 2] / totals[:, 0]).tolist() == [7e6] * len(totals)
        assert totals[:, 3].tolist() == [0] * len(totals)
        assert blocks == 5
