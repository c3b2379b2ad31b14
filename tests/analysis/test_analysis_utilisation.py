"""Utilisation from calls in flight, against queues whose workers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from queueing import Call, One, Station, System, poisson, simulate

from perflab.analysis.criticalpath import critical_path
from perflab.analysis.utilisation import measure, utilisations


class TestMeasure:
    def test_by_hand(self):
        """Two calls of 10 ns that overlap by 5: in flight 1, 2, 1 for 5 ns each."""
        found = measure(np.array([0, 5]), np.array([10, 15]))
        assert (found.calls, found.busy_ratio, found.workers) == (2, 1.0, 0)
        assert found.in_flight_mean == pytest.approx(20 / 15)
        assert math.isnan(found.utilisation_ratio)

    def test_no_calls_and_calls_of_no_time(self):
        """Nothing is busy."""
        empty = np.zeros(0, dtype=np.int64)
        assert measure(empty, empty).calls == 0
        assert measure(np.array([3, 3]), np.array([3, 3])).busy_ratio == 0.0

    @pytest.mark.parametrize("workers", [1, 2, 4])
    @pytest.mark.parametrize("shape", [1.0, 4.0])
    def test_workers_and_utilisation_of_a_known_queue(self, workers, shape):
        """At a utilisation of 0.7 both are found, and the wait is that of the simulation."""
        # Given a queue seen from its caller, and one of a traced service
        stations = (Station("s", 10, workers, shape), Station("t", 10, workers, shape, traced=True))
        system = System(stations, One((Call("s"), Call("t"))))
        table = simulate(system, poisson(70 * workers, 4000, workers), 1)
        # When
        walked = critical_path(table).walked
        found = utilisations(walked, ["front: s", "front -> t", "t: serve"])
        # Then
        assert found["workers"].tolist() == [workers] * 3
        assert found["utilisation_ratio"].to_numpy() == pytest.approx(0.7, abs=0.05)
        waits = (table["duration_ns"][table["name"] == "s"].mean() / 1e6) - 10
        assert found["wait_ms"].iloc[0] == pytest.approx(waits, abs=1.5)
        assert found["wait_ms"].iloc[2] == 0.0

    def test_no_queue_no_workers(self):
        """Where times do not depend on what is in flight, nothing is made up."""
        rng = np.random.default_rng(0)
        begin = np.cumsum(rng.exponential(10.0, 3000)).astype(np.int64)
        found = measure(begin, begin + rng.exponential(50.0, 3000).astype(np.int64))
        assert found.workers == 0
        assert found.wait_ms == 0.0
        assert found.busy_ratio > 0.9
