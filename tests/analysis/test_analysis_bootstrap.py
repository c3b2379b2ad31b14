"""Block resampling: blocks, intervals, p-values, false discoveries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.bootstrap import Resampling, false_discovery, interval, p_values

SECOND = 10**9


class TestResampling:
    def test_weights_are_what_sums_are_made_of(self):
        """Each cell counts as often as drawn blocks cover it, round the end: the sums agree."""
        plan = Resampling.of(np.arange(50) * SECOND // 5, seed=3)
        values = np.random.default_rng(1).random((50, 2))
        np.testing.assert_allclose(plan.weights @ values, plan.sums(values))
        assert plan.weights.min() == 0

    def test_a_block_is_at_least_a_second(self):
        """20 requests a second for 60 s: blocks of 20, and never fewer than ten blocks."""
        assert Resampling.of(np.arange(1200) * SECOND // 20).block == 21
        assert Resampling.of(np.arange(1000) * SECOND // 500).blocks == 10
        assert Resampling.of(np.array([5])).blocks == 1

    def test_sums_are_of_whole_blocks_round_the_end(self):
        """With one quantity that counts cells, each round draws blocks times their length."""
        plan = Resampling.of(np.arange(100) * SECOND)
        sums = plan.sums(np.ones((plan.cells, 1)))
        assert set(sums[:, 0].tolist()) == {float(-(-100 // plan.block) * plan.block)}

    def test_sums_by_hand(self):
        """The drawn blocks of one round, added up one by one."""
        plan = Resampling.of(np.arange(40) * SECOND)
        values = np.random.default_rng(0).random((40, 2))
        expected = sum(
            times * sum(values[(begin + step) % 40] for step in range(plan.block))
            for begin, times in enumerate(plan.draws[3])
        )
        assert plan.sums(values)[3] == pytest.approx(expected)

    def test_many_requests_are_summed_into_cells(self):
        """Memory does not grow with them."""
        plan = Resampling.of(np.arange(100_000) * SECOND // 1000)
        assert plan.cells == 4096
        cells = plan.cell_of(np.arange(100_000))
        assert (cells[0], cells[-1]) == (0, 4095)
        assert (np.diff(cells) >= 0).all()

    def test_intervals_of_autocorrelated_means_hold(self):
        """Neighbours alike (a lag-one correlation of 0.8 over 20 to the second): at least 88 of 100 hold."""
        rng = np.random.default_rng(1)
        inside = 0
        for seed in range(100):
            noise = rng.normal(size=2000)
            values = np.zeros(2000)
            for at in range(1, 2000):
                values[at] = 0.8 * values[at - 1] + noise[at]
            plan = Resampling.of(np.arange(2000) * SECOND // 20, seed=seed)
            sums = plan.sums(np.column_stack([values, np.ones(2000)]))
            low, high = interval(sums[:, :1] / sums[:, 1:], values.mean(keepdims=True), plan.blocks)
            inside += low[0] <= 0 <= high[0]
        assert inside >= 88


class TestPValues:
    def test_students_t_with_few_blocks(self):
        """Ten blocks a side, 18 degrees of freedom: t of 2.101 is 5 %, after the widening of the error."""
        error = np.array([1.0])
        t = 2.101 * np.sqrt(2 * (1 + 1 / 9))
        assert p_values(np.array([t]), [error, error], [10, 10])[0] == pytest.approx(0.05, abs=0.001)

    def test_no_error_at_all(self):
        """Equal constants are equal, unequal ones are not."""
        none = np.zeros(2)
        assert p_values(np.array([0.0, 1.0]), [none, none], [10, 10]).tolist() == pytest.approx(
            [1.0, 0.0], abs=1e-50
        )


class TestFalseDiscovery:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.01, 0.2))
    def test_it_calls_what_the_step_up_rule_calls(self, values, level):
        """Find the largest k with p(k) <= k level / m; the k smallest are discoveries."""
        size, ascending = len(values), sorted(values)
        passing = [rank for rank in range(1, size + 1) if ascending[rank - 1] * size / rank <= level]
        limit = ascending[max(passing) - 1] if passing else -1.0
        called = false_discovery(np.array(values)) <= level
        assert called.tolist() == [value <= limit for value in values]


def test_slices_of_time_are_drawn_in_blocks_of_a_second_at_least():
    """A minute in 1,024 slices: a block is 18 of them; a day: the cube root, 11."""
    assert Resampling.over(1024, 60 * 10**9).block == 18
    assert Resampling.over(1024, 86400 * 10**9).block == 11
    plan = Resampling.over(1024, 60 * 10**9)
    sums = plan.sums(np.ones((1024, 1)))
    assert set((sums[:, 0] / plan.block).tolist()) == {math.ceil(1024 / 18)}
