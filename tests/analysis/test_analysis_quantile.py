"""Quantiles as order statistics, with bounds and with censored values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.quantile import CensoredSample, nearest_rank, rank_bounds


class TestQuantiles:
    @pytest.mark.parametrize(
        ("size", "quantile", "rank"), [(100, 0.99, 99), (10, 0.5, 5), (1, 0.999, 1), (3, 1, 3)]
    )
    def test_nearest_rank(self, size, quantile, rank):
        """The smallest rank with at least that share at or below it."""
        assert nearest_rank(size, quantile) == rank

    def test_rank_bounds_from_the_table(self):
        """The median of 100 lies between the 40th and the 61st; nothing bounds a p99 of 50 from above."""
        assert rank_bounds(100, 0.5) == (40, 61)
        assert rank_bounds(50, 0.99)[1] == 51
        assert rank_bounds(5, 0.5)[0] == 0

    def test_the_approximation_meets_the_exact(self):
        """Around the size where one takes over from the other."""
        exact, rough = rank_bounds(200_000, 0.99), rank_bounds(200_001, 0.99)
        assert all(abs(a - b) <= 2 for a, b in zip(exact, rough, strict=True))

    def test_bounds_hold_as_often_as_they_say(self):
        """The true median of a skewed law is inside at least 95 % of 2,000 times, less chance."""
        rng = np.random.default_rng(1)
        low, high = rank_bounds(60, 0.5)
        samples = np.sort(rng.exponential(1, (2000, 60)), axis=1)
        inside = (samples[:, low - 1] <= math.log(2)) & (math.log(2) <= samples[:, high - 1])
        assert inside.mean() > 0.935

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=60), st.floats(0.01, 0.99)
    )
    def test_a_censored_quantile_agrees_with_the_naive_one(self, rows, quantile):
        """Put infinity for the unanswered and look the rank up; among them, it is a bound."""
        waited, answered = (np.array(column) for column in zip(*rows, strict=True))
        value, is_censored = CensoredSample.of(waited, answered).quantile(quantile)
        naive = sorted(float(wait) if ok else math.inf for wait, ok in rows)[
            nearest_rank(len(rows), quantile) - 1
        ]
        assert is_censored == math.isinf(naive)
        if is_censored:
            assert value >= max([wait for wait, ok in rows if ok], default=0)
        else:
            assert value == naive
