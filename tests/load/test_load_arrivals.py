"""Schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals, Piece
from perflab.traffic.scenario import StepArrivals


def test_a_ramp_from_zero_matches_the_integral_by_hand():
    """Rate 10 t per s reaches 5 t^2 arrivals: arrival k is due at sqrt(k / 5) s."""
    due = Arrivals.ramp(0, 20, over="2s").schedule()
    assert due.dtype == np.int64
    assert due.tolist() == [round(math.sqrt(k / 5) * 1e9) for k in range(20)]


def test_a_falling_ramp_mirrors_the_rising_one():
    """Rate 20 - 10 t reaches 20 t - 5 t^2: arrival k is due at 2 - sqrt(4 - k / 5)."""
    due = Arrivals.ramp(20, 0, over="2s").schedule()
    by_hand = [(2 - math.sqrt(4 - k / 5)) * 1e9 for k in range(20)]
    assert np.allclose(due, by_hand, rtol=0, atol=2)


def test_steps_follow_one_another():
    """Two rates, one second each; a pause of rate 0 sends nothing."""
    assert (Arrivals.steps([2, 4], each="1s").schedule() / 1e9).tolist() == [0, 0.5, 1, 1.25, 1.5, 1.75]
    assert (Arrivals.steps([1, 0, 1], each="1s").schedule() / 1e9).tolist() == [0, 2]


@given(
    st.lists(
        st.tuples(st.floats(0, 200), st.floats(0, 200), st.integers(1, 5_000_000_000)), min_size=1, max_size=4
    )
)
@settings(max_examples=60, deadline=None)
def test_schedules_agree_with_a_bisection(pieces):
    """Every due time is where a naive cumulative rate reaches the arrival's number."""
    pieces = [Piece(*piece) for piece in pieces]
    total = sum(piece.arrivals for piece in pieces)
    if total < 1e-6 or total > 2000:
        return

    # Given the cumulative rate, written straight from its definition
    def cumulative(seconds):
        reached = 0.0
        for piece in pieces:
            whole = piece.duration_ns / 1e9
            here = min(max(seconds, 0.0), whole)
            slope = (piece.end_per_s - piece.start_per_s) / whole
            reached += piece.start_per_s * here + slope * here * here / 2
            seconds -= whole
        return reached

    # When the schedule is computed, Then it is ascending, complete and right
    due = Arrivals(tuple(pieces)).schedule()
    assert len(due) == math.ceil(total - 1e-9)
    assert (np.diff(due) >= 0).all()
    for number, at in enumerate(due.tolist()):
        assert cumulative((at - 2) / 1e9) - 1e-5 <= number <= cumulative((at + 2) / 1e9) + 1e-5


def test_poisson_arrivals_are_independent_and_repeat_with_the_seed():
    """Gaps have mean and standard deviation 1/rate; the seed decides them."""
    arrivals = Arrivals.poisson(1000, over="20s", seed=4)
    due = arrivals.schedule()
    assert np.array_equal(due, arrivals.schedule())
    assert not np.array_equal(due[:100], arrivals.schedule(seed=5)[:100])
    # 20,000 +- 5 * sqrt(20,000)
    assert abs(len(due) - 20_000) < 708
    gaps = np.diff(due) / 1e6
    assert abs(gaps.mean() - 1) < 0.05
    assert abs(gaps.std() - 1) < 0.05
    assert due[-1] < 20e9


def test_rates_and_durations_are_told():
    """What a schedule is asked for can be read from it."""
    arrivals = Arrivals.ramp(10, 30, over="10s")
    assert (arrivals.expected, arrivals.duration_ns, arrivals.peak_per_s) == (200, 10_000_000_000, 30)
    assert arrivals.rate_at(5_000_000_000) == 20
    assert arrivals.rate_at(10_000_000_000) == 0
    assert arrivals.lasting("1s") == Arrivals.ramp(10, 30, over="1s")
    assert Arrivals.from_plan(StepArrivals((1, 2), "3s")) == Arrivals.steps([1, 2], each="3s")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"kind": "ramp", "from": -1, "to": 2, "over": "1s"}, "not -1"),
        ({"kind": "constant", "rate": 1, "over": "soon"}, "'soon' is not a duration"),
        ({"kind": "constant", "rate": 0, "over": "1s"}, "0 requests"),
        ({"kind": "constant", "rate": 1e9, "over": "1h"}, "a run has"),
        ({"kind": "constant", "rate": 1, "over": "0s"}, "above 0"),
        ({"kind": "wave"}, "wave"),
        ({"kind": "constant", "rate": 1, "over": "1s", "to": 3}, "unknown field `to`"),
    ],
)
def test_wrong_arrivals_are_refused(table, match):
    """Each mistake is named."""
    with pytest.raises(ConfigError, match=match):
        Arrivals.from_toml(table)
