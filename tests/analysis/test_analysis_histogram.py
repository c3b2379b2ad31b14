"""Histograms that add up: buckets, quantiles against the sorted values, merging in any portions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.analysis.histogram import MAX_RELATIVE_ERROR, Histograms, bucket_bounds, bucket_of
from perflab.analysis.quantile import quantile_of
from perflab.errors import AnalysisError

DURATIONS = st.lists(st.integers(0, 2**62), min_size=1, max_size=200)


@given(DURATIONS)
def test_every_value_is_in_its_bucket(values: list[int]):
    """Within its bounds, which are no wider than promised; buckets follow one another without a gap."""
    value = np.array([*values, 2**63 - 1], dtype=np.int64)
    low, high = bucket_bounds(bucket_of(value))
    assert (low <= value).all()
    assert (value <= high).all()
    middle = (low.astype(float) + high.astype(float)) / 2
    assert (abs(middle - value.astype(float)) <= MAX_RELATIVE_ERROR * value.astype(float) + 1e-9).all()
    above = np.minimum(high, 2**63 - 2) + 1
    assert (bucket_of(above)[high < 2**63 - 2] == bucket_of(value)[high < 2**63 - 2] + 1).all()


@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_sorted_values(values: list[int], quantile: float):
    """Nearest rank, known to 0.2 %."""
    exact = quantile_of(np.sort(np.array(values)), quantile)
    found = Histograms.of(np.array(values)).quantile(quantile)
    assert found == pytest.approx(exact, rel=MAX_RELATIVE_ERROR, abs=0.0)


@given(DURATIONS, st.integers(0, 200), st.data())
def test_portions_do_not_matter(values: list[int], cut: int, data: st.DataObject):
    """Merged from any two parts in any order, or counted at once."""
    value = np.array(values, dtype=np.int64)
    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values))))
    whole = Histograms.of(value, group)
    parts = [Histograms.of(value[cut:], group[cut:]), Histograms.of(value[:cut], group[:cut])]
    merged = Histograms.merge(*parts)
    for name in ("group", "bucket", "count"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist()
    assert sum(whole.size(number) for number in range(4)) == len(values)
    one = whole.regroup(np.zeros(4, dtype=np.int64))
    assert one.count.tolist() == Histograms.of(value).count.tolist()
    again = Histograms.from_json(json.loads(json.dumps(whole.to_json())))
    assert again.count.tolist() == whole.count.tolist()


def test_groups_are_apart():
    """A group's quantiles are of its own values; a group without any has none."""
    both = Histograms.of(np.array([10, 20, 30, 1000]), np.array([0, 0, 0, 2]))
    assert (both.quantile(0.5), both.quantile(0.5, 2), both.of_group(2).quantile(1.0)) == (
        20.0,
        1000.5,
        1000.5,
    )
    assert math.isnan(both.quantile(0.5, 1))
    assert both.size(1) == 0
    assert math.isnan(Histograms.merge().quantile(0.5))


def test_an_interval_is_made_of_order_statistics():
    """As `rank_bounds` gives them; where there are too few values, a side is open."""
    low, high = Histograms.of(np.arange(1, 101)).bounds(0.5)
    assert (low, high) == (40.0, 61.0)
    low, high = Histograms.of(np.arange(1, 11)).bounds(0.99)
    assert low == 9.0
    assert math.isnan(high)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "no histograms"),
        ({"sub_bits": 7, "group": [], "bucket": [], "count": []}, "2\\*\\*7"),
        ({"sub_bits": 8, "group": [0], "bucket": [], "count": [1]}, "lengths differ"),
        ({"sub_bits": 8, "group": [0], "bucket": [-1], "count": [1]}, "negative"),
        ({"sub_bits": 8, "group": [0], "bucket": [10**6], "count": [1]}, "buckets only"),
        ({"sub_bits": 8, "group": ["a"], "bucket": [1], "count": [1]}, "no histograms"),
    ],
    ids=["empty", "other", "lengths", "negative", "beyond", "text"],
)
def test_something_else_is_refused(content: dict[str, object], why: str):
    """With the reason."""
    with pytest.raises(AnalysisError, match=why):
        Histograms.from_json(content)
