"""The knee, the law, the first to saturate: on closed-form data, and on systems of known capacity."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing import Call, One, Station, System, Work, poisson, ramp, simulate

import perflab as pf
from perflab.analysis.capacity import Capacity, fit_capacity
from perflab.analysis.capacity_fit import Scalability, fit_knees, fit_scalability
from perflab.errors import AnalysisError, SchemaError
from perflab.testing import EPOCH_NS, S, spans
from perflab.trace.schema import empty_spans, span_table


def law(in_flight: np.ndarray, rate: float, sigma: float, kappa: float) -> np.ndarray:
    return rate * in_flight / (1 + sigma * (in_flight - 1) + kappa * in_flight * (in_flight - 1))


def closed_run(rate: float, sigma: float, kappa: float, noise: float = 0.02) -> pd.DataFrame:
    """Return spans of 1 to 30 clients, 2 s each, that ask again at once; answers take what the law says."""
    rng = np.random.default_rng(0)
    begin, took = [], []
    for clients in range(1, 31):
        mean_s = clients / float(law(np.array(clients), rate, sigma, kappa))
        for client in range(clients):
            at, end = 2.0 * (clients - 1) + mean_s * client / clients, 2.0 * clients
            while at < end:
                begin.append(at)
                took.append(mean_s * float(rng.normal(1, noise)))
                at += took[-1]
    size = len(begin)
    return span_table(
        {
            "trace_id": [f"{number:032x}" for number in range(size)],
            "span_id": np.arange(size) + 1,
            "service": ["a"] * size,
            "name": ["top"] * size,
            "start_ns": EPOCH_NS + (np.array(begin) * 1e9).astype(np.int64),
            "duration_ns": (np.array(took) * 1e9).astype(np.int64),
        }
    )


class TestTheLaw:
    @given(st.floats(1, 1000), st.floats(0, 0.5), st.floats(0, 0.05))
    @settings(max_examples=60, deadline=None)
    def test_exact_data_give_exact_parameters(self, rate, sigma, kappa):
        """Closed form in, the same out."""
        # Given throughput at 1 to 40 in flight, exactly as the law has it
        in_flight = np.linspace(1, 40, 30)
        # When
        found = fit_scalability(in_flight, law(in_flight, rate, sigma, kappa), np.ones((1, 30)))
        # Then
        assert found.rate[0] == pytest.approx(rate, rel=1e-3)
        assert found.contention[0] == pytest.approx(sigma, abs=1e-3)
        assert found.coherence[0] == pytest.approx(kappa, abs=1e-4)

    def test_peak_by_hand(self):
        """Sigma 0.1, kappa 0.009: the best is sqrt(0.9 / 0.009) = 10 in flight."""
        found = Scalability(np.array([100.0]), np.array([0.1]), np.array([0.009]))
        assert found.best_in_flight[0] == pytest.approx(10)
        assert found.peak[0] == pytest.approx(1000 / (1 + 0.9 + 0.81))

    def test_without_coherence_it_levels_off(self):
        """At lambda over sigma; without contention, too, it never does."""
        found = Scalability(np.array([100.0, 100.0]), np.array([0.1, 0.0]), np.zeros(2))
        assert found.peak.tolist() == [pytest.approx(1000), math.inf]
        assert found.best_in_flight.tolist() == [math.inf, math.inf]

    def test_a_closed_run_gives_the_law_back(self):
        """Through windows, Little's law and noise of 2 %."""
        # Given lambda 50, sigma 0.08, kappa 0.002: a peak of 50 * 21.4 / (1 + 1.63 + 0.88) = 305
        found = fit_capacity(closed_run(50, 0.08, 0.002))
        # Then each is there, with an interval
        assert found.value("lambda_per_s") == pytest.approx(50, rel=0.05)
        assert found.value("sigma") == pytest.approx(0.08, abs=0.015)
        assert found.value("kappa") == pytest.approx(0.002, abs=0.0005)
        assert found.value("peak_throughput_per_s") == pytest.approx(
            law(np.array(math.sqrt(0.92 / 0.002)), 50, 0.08, 0.002), rel=0.05
        )
        intervals = found.table.set_index("quantity").loc[["lambda_per_s", "sigma", "kappa"]]
        assert (intervals["low"] <= intervals["value"]).all()
        assert (intervals["value"] <= intervals["high"]).all()

    def test_a_straight_line_has_no_limit(self):
        """Twice the clients, twice the answers: not reached."""
        found = fit_capacity(closed_run(50, 0, 0))
        assert [found.answer(name) for name in ("sigma", "kappa", "peak_throughput_per_s")] == [
            "not reached"
        ] * 3
        assert found.value("lambda_per_s") == pytest.approx(50, rel=0.05)

    def test_windows_keep_littles_law(self):
        """N = X R wherever the run is steady."""
        windows = fit_capacity(closed_run(50, 0.08, 0.002)).windows.iloc[1:-1]
        expected = windows["achieved_per_s"] * windows["mean_ms"] / 1000
        assert windows["in_flight_mean"].to_numpy() == pytest.approx(expected.to_numpy(), rel=0.12)


class TestTheKnee:
    @given(st.floats(20, 80), st.floats(0.02, 0.2))
    @settings(max_examples=40, deadline=None)
    def test_a_bend_is_found_where_it_is(self, knee, steepness):
        """Level, then exponential: to a step of the grid."""
        rate = np.arange(1.0, 101.0)
        values = 5 * np.exp(np.maximum(rate - knee, 0) * steepness)
        found = fit_knees(rate, values, np.ones((1, 100)))
        assert found.at[0] == pytest.approx(knee, abs=3)
        assert found.rise[0] == pytest.approx(math.exp((100 - knee) * steepness), rel=0.15)

    def test_falling_latency_has_none(self):
        """A cache that warms up is no knee."""
        rate = np.arange(1.0, 101.0)
        assert fit_knees(rate, 200 - rate, np.ones((1, 100))).rise[0] == 1.0

    def test_latency_that_rises_from_the_first_has_its_knee_below(self):
        """What is level was never seen."""
        rows = [S("a", "top", at, at + at / 400) for at in _at(10, 100, 60)]
        found = fit_capacity(spans(rows))
        assert found.answer("knee_per_s") == "below the lowest rate"
        assert "Latency rises from the lowest rate on" in found.sentence


def _at(first: float, last: float, seconds: float) -> list[float]:
    """Return moments in ms whose rate rises evenly."""
    count = int((first + last) / 2 * seconds)
    done = np.linspace(0, 1, count)
    slope = (last - first) / seconds
    return ((np.sqrt(first**2 + 2 * slope * done * count) - first) / slope * 1000 + 1000).tolist()


def _system(workers: int, shape: float) -> System:
    hot = Station("hot", 20, workers, shape, traced=True)
    cold = Station("cold", 10, 2 * workers, shape)
    return System((hot, cold), One((Work(3), Call("hot"), Work(2), Call("cold"))))


class TestAgainstSimulatedTruth:
    @pytest.mark.parametrize(("workers", "shape"), [(1, 1.0), (1, 4.0), (4, 1.0), (8, 2.0)])
    def test_a_ramp_past_saturation(self, workers, shape):
        """Latency bends before capacity, throughput levels off at it, and the hot station is named."""
        # Given a ramp to 1.2 of what the hot station can do
        system = _system(workers, shape)
        capacity = system.capacity()
        table = simulate(system, ramp(0.1 * capacity, 1.2 * capacity, 5000 / capacity, workers), workers)
        # When
        found = fit_capacity(table, peak_per_s=capacity / 4)
        # Then the knee lies where waiting begins to matter: sooner with few workers
        print(f"\n{workers} workers: knee {found.value('knee_per_s') / capacity:.2f}, "
              f"peak {found.value('peak_throughput_per_s') / capacity:.2f} of capacity")  # fmt: skip
        assert 0.5 <= found.value("knee_per_s") / capacity <= 1.05
        assert found.value("peak_throughput_per_s") == pytest.approx(capacity, rel=0.25)
        assert found.saturates_first == "front -> hot"
        # and there is room above a quarter of capacity
        assert found.value("headroom_ratio") >= 1.0
        assert "above the stated peak" in found.sentence

    @pytest.mark.parametrize("seed", range(4))
    def test_a_run_far_below_saturation(self, seed):
        """Neither bends, nothing saturates; the highest rate seen is all that is known."""
        system = _system(8, 1.0)
        capacity = system.capacity()
        table = simulate(system, ramp(0.05 * capacity, 0.4 * capacity, 12_000 / capacity, seed), seed)
        found = fit_capacity(table, peak_per_s=capacity)
        assert found.answer("knee_per_s") == "not reached"
        assert found.answer("peak_throughput_per_s") == "not reached"
        assert found.saturates_first is None
        assert found.answer("headroom_ratio") == "not reached"
        assert "The knee was not reached" in found.sentence

    def test_a_level_rate_has_no_knee(self):
        """There is no rate to compare with."""
        found = fit_capacity(simulate(_system(2, 1.0), poisson(40, 2500, 1), 1))
        assert found.answer("knee_per_s") == "not reached"

    def test_intervals_hold_the_estimate_of_a_longer_run(self):
        """Of eight short runs at least six intervals hold the knee that a four times longer run has."""
        system = _system(4, 1.0)
        capacity = system.capacity()
        long = fit_capacity(simulate(system, ramp(0.1 * capacity, 1.2 * capacity, 16_000 / capacity, 99), 99))
        inside = 0
        for seed in range(8):
            table = simulate(system, ramp(0.1 * capacity, 1.2 * capacity, 4000 / capacity, seed), seed)
            row = fit_capacity(table).table.set_index("quantity").loc["knee_per_s"]
            inside += row["low"] <= long.value("knee_per_s") <= row["high"]
        print(f"\nintervals of the knee hold in {inside} of 8")
        assert inside >= 6


class TestTheResult:
    def test_it_is_public_and_shows_itself(self):
        """Frozen, with the sentence above its table."""
        found = pf.fit_capacity(closed_run(50, 0.08, 0.002), peak_per_s=100)
        assert isinstance(found, Capacity)
        assert found.sentence in found._repr_html_()
        assert found.sentence in repr(found)
        with pytest.raises(AttributeError):
            found.sentence = ""

    @pytest.mark.parametrize("table", [empty_spans(), spans([S("a", "top", 0, 1)] * 30)])
    def test_too_few_requests_are_said_to_be(self, table):
        """No number is made up."""
        found = fit_capacity(table, peak_per_s=5)
        assert set(found.table["answer"]) == {"not enough requests"}
        assert found.table[["value", "low", "high"]].isna().all(axis=None)
        assert "Not enough requests" in found.sentence

    def test_unanswered_and_missed_requests_are_counted(self):
        """A missed one was never in flight; one nobody answered was, as long as it waited."""
        # Given one request every 10 ms for 10 s that take 5 ms; of ten one is missed, one times out at 50 ms
        outcome = ["missed", "timeout", *["answered"] * 8]
        rows = [
            S("perflab", "pay", 10 * at, 10 * at + {"missed": 0, "timeout": 50, "answered": 5}[what],
              kind="client", outcome=what, scheduled_ms=10 * at)
            for at, what in enumerate(outcome * 100)
        ]  # fmt: skip
        found = fit_capacity(spans(rows))
        assert (found.counts["missed"], found.counts["unanswered"]) == (100, 200)
        # Then offered is all of them, achieved the answered, in flight (50 + 8 * 5) / 100
        middle = found.windows.iloc[2:-2]
        assert middle["offered_per_s"].mean() == pytest.approx(100, rel=0.02)
        assert middle["achieved_per_s"].mean() == pytest.approx(80, rel=0.02)
        assert middle["in_flight_mean"].mean() == pytest.approx(0.9, rel=0.05)

    @pytest.mark.parametrize("peak", [0, -1, math.nan, math.inf])
    def test_a_peak_is_a_rate(self, peak):
        """Above 0 and finite."""
        with pytest.raises(AnalysisError, match="stated peak"):
            fit_capacity(empty_spans(), peak_per_s=peak)

    def test_another_table_is_refused(self):
        """The columns that are missing are named."""
        with pytest.raises(SchemaError, match="trace_id"):
            fit_capacity(pd.DataFrame({"a": [1]}))
