"""Lines for workers, against a calendar of each worker kept in plain Python."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.analysis.whatif_line import wait_in_line, waited_in_line


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def naive_waits(arrival: list[int], service: list[int], workers: int) -> list[int]:
    """Serve calls in order of arrival; a heap holds when each worker is free."""
    free = [-(10**9)] * workers
    waits = [0] * len(arrival)
    for call in sorted(range(len(arrival)), key=lambda number: (arrival[number], number)):
        begins = max(arrival[call], heapq.heappop(free))
        waits[call] = begins - arrival[call]
        heapq.heappush(free, begins + service[call])
    return waits


class TestByHand:
    def test_one_worker(self):
        """Calls at 0, 1 and 9 of 5 ns each: the second waits 4, the third until 10."""
        assert wait_in_line(ints(0, 1, 2), ints(0, 1, 9), ints(5, 5, 5), 1).tolist() == [0, 4, 1]

    def test_two_workers(self):
        """Three at once for two workers: the third waits for the shorter of the others."""
        assert wait_in_line(ints(0, 1, 2), ints(0, 0, 0), ints(7, 3, 2), 2).tolist() == [0, 0, 3]

    def test_who_overtook_did_not_wait_longer_than_it_took(self):
        """With one worker the second call cannot have waited for the first, answered after it."""
        assert waited_in_line(ints(0, 1), ints(0, 1), ints(9, 4), 1).tolist() == [0, 3]

    def test_no_calls(self):
        """No waits."""
        assert wait_in_line(ints(), ints(), ints(), 2).tolist() == []
        assert waited_in_line(ints(), ints(), ints(), 2).tolist() == []


class TestAgainstTheNaiveLine:
    @given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=60), st.integers(1, 5))
    @settings(max_examples=150, deadline=None)
    def test_waits_are_those_of_the_calendar_and_are_found_again(self, calls, workers):
        """From arrivals and service, and back from arrivals and answers."""
        arrival = ints(*(at for at, _ in calls))
        service = ints(*(took for _, took in calls))
        order = np.argsort(arrival, kind="stable")
        waits = wait_in_line(order, arrival, service, workers)
        assert waits.tolist() == naive_waits(arrival.tolist(), service.tolist(), workers)
        assert waited_in_line(order, arrival, arrival + waits + service, workers).tolist() == waits.tolist()
