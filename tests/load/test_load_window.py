"""Latencies counted into buckets, and the probe made of them."""

from __future__ import annotations

import asyncio
import math

from hypothesis import given
from hypothesis import strategies as st

from perflab.load.plan import Progress
from perflab.load.window import Histogram, ShadowProbe

MS = 1_000_000


def progress(elapsed_ms, *, ended=(), waiting=(), errors=0, missed=0):
    """Make a line of progress from latencies and ages in ms."""
    histograms = []
    for values in (ended, waiting):
        histogram = Histogram()
        for value in values:
            histogram.add(value * MS)
        histograms.append(histogram.pairs())
    return Progress(elapsed_ms * MS, 0, 0, 0, missed, 0, 0, 0, 0, {}, errors, *histograms)


@given(st.lists(st.integers(0, 10**12), min_size=1), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles_are_right_to_the_width_of_a_bucket(values, q):
    """The nearest rank of the sorted values, to 1/128."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    assert abs(histogram.quantile(q) - exact) <= exact / 128 + 1


@given(st.lists(st.integers(-5, 10**9)), st.lists(st.integers(0, 10**9)))
def test_merging_is_counting_together(first, second):
    """Two histograms joined are the histogram of all values."""
    apart, whole, other = Histogram(), Histogram(), Histogram()
    for value in first:
        apart.add(value)
        whole.add(value)
    for value in second:
        other.add(value)
        whole.add(value)
    apart.merge(other.pairs())
    assert apart.pairs() == whole.pairs()
    assert apart.count == len(first) + len(second)
    apart.clear()
    assert (apart.pairs(), apart.count, apart.quantile(0.5)) == ([], 0, 0.0)


def test_a_reading_covers_what_came_since_the_last_one():
    """Lines of progress add up; the next reading begins anew."""
    probe = ShadowProbe()
    assert asyncio.run(probe()) is None
    # Given two lines
    probe.feed(progress(250, ended=[10, 20], errors=1))
    probe.feed(progress(500, ended=[30, 40], missed=1, errors=1))
    # When read, Then both count, and the missed one counts as an error without a latency
    reading = asyncio.run(probe())
    assert (reading.count, reading.errors) == (5, 2)
    assert abs(reading.p50_ms - 20) < 0.2
    assert abs(reading.p99_ms - 40) < 0.4
    # and when nothing came since, nothing is known
    assert probe.take() is None
    probe.feed(progress(750, ended=[5], missed=1))
    assert probe.take().count == 1


def test_unanswered_requests_count_in_every_window_they_hang_through():
    """A server that answers nothing any more is seen by the requests it owes."""
    probe = ShadowProbe()
    probe.feed(progress(1000, ended=[10]))
    probe.take()
    # Given one that hangs for longer than the window and one that is younger
    probe.feed(progress(2000, waiting=[1500, 300]))
    reading = probe.take()
    assert reading.count == 1
    assert abs(reading.p99_ms - 1500) < 15
    # When it still hangs a window later, Then it counts again, with its age
    probe.feed(progress(3000, waiting=[2500, 1300]))
    reading = probe.take()
    assert reading.count == 2
    assert abs(reading.p99_ms - 2500) < 25
