"""Queues played again, against simulations of the same calls and where there is none to play."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_traces import cruel
from queueing import Beside, Call, One, Station, System, Work, mean_ms, poisson, simulate

from perflab.analysis.criticalpath import critical_path
from perflab.analysis.whatif import what_if
from perflab.analysis.whatif_layout import Layout
from perflab.analysis.whatif_queue import Played, play_queues
from perflab.trace.schema import span_table


def played(table: pd.DataFrame, factors: dict[str, float]) -> Played:
    walked = critical_path(table).walked
    factor = np.array([factors.get(name, 1.0) for name in walked.entities.names])
    return play_queues(walked, Layout.of(walked), factor)


def modelled_ms(table: pd.DataFrame, factors: dict[str, float]) -> float:
    return float(what_if(table, factors).table["modelled_gain_ms"].iloc[0])


def line_of(*stations: Station) -> System:
    return System(stations, One((Work(2), *(Call(station.name) for station in stations))))


class TestAgainstSimulation:
    @pytest.mark.parametrize("traced", [True, False])
    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("factor", [0.0, 0.5, 1.2])
    def test_a_busy_queue_gets_shorter_or_longer(self, traced, workers, factor):
        """At a utilisation of 0.7 the gain is that of the same calls simulated, and so is a loss."""
        station = Station("s", 10, workers, traced=traced)
        arrivals = poisson(70 * workers, 3000, 8)
        table = simulate(line_of(station), arrivals, 8)
        factors = {station.entity: factor}
        truth = mean_ms(table) - mean_ms(simulate(line_of(station), arrivals, 8, factors))
        assert modelled_ms(table, factors) == pytest.approx(truth, rel=0.02)

    def test_the_wait_moves_on_to_the_next_queue(self):
        """Where the first of two is faster, its calls come to the second as they arrive, in bursts."""
        # Given two busy services in a line, the first of two workers
        stations = (Station("a", 18, 2, traced=True), Station("b", 8, traced=True))
        arrivals = poisson(90, 3000, 2)
        table = simulate(line_of(*stations), arrivals, 2)
        # When the first takes no time
        found = played(table, {"a: serve": 0})
        # Then both queues are played, and the gain is that of the simulation
        truth = mean_ms(table) - mean_ms(simulate(line_of(*stations), arrivals, 2, {"a: serve": 0}))
        assert sorted(found.queues) == ["a", "b"]
        assert found.is_settled
        assert modelled_ms(table, {"a: serve": 0}) == pytest.approx(truth, rel=0.02)

    def test_calls_beside_each_other(self):
        """The queue of the faster one shrinks behind the other, which is waited for in its place."""
        stations = (Station("a", 9, traced=True), Station("b", 8))
        system = System(stations, One((Work(2), Beside((Call("a"), Call("b"))))))
        arrivals = poisson(80, 3000, 4)
        table = simulate(system, arrivals, 4)
        truth = mean_ms(table) - mean_ms(simulate(system, arrivals, 4, {"a: serve": 0.5}))
        assert modelled_ms(table, {"a: serve": 0.5}) == pytest.approx(truth, rel=0.02)


class TestWhatIsLeftAsItWas:
    def test_no_change_no_difference(self):
        """With every factor 1, and with one that is next to it, no request takes another time."""
        table = simulate(line_of(Station("s", 10, traced=True)), poisson(70, 1000, 1), 1)
        before = played(table, {}).after_ns
        assert played(table, {"s: serve": 1 + 1e-12}).after_ns.tolist() == before.tolist()
        assert played(table, {"s: serve": 1 + 1e-12}).queues == ("s",)

    def test_where_no_call_waits_it_is_the_replay(self):
        """No queue was seen, so that none is made up."""
        table = simulate(line_of(Station("s", 10, 50)), poisson(100, 1000, 1), 1)
        found = what_if(table, {"front: s": 0.5})
        assert played(table, {"front: s": 0.5}).queues == ()
        assert found.table["modelled_gain_ms"].tolist() == found.table["gain_ms"].tolist()
        assert "modelled_gain_ms" not in found.bias

    def test_of_an_edge_the_wait_is_a_part(self):
        """An edge that takes no time at all waits for nobody, whatever the line."""
        table = simulate(line_of(Station("s", 10, traced=True)), poisson(70, 1000, 1), 1)
        found = what_if(table, {"front -> s": 0}).table.iloc[0]
        assert found["modelled_gain_ms"] == pytest.approx(found["gain_ms"], rel=1e-6)

    @pytest.mark.parametrize("seed", range(6))
    def test_broken_tables_are_played(self, seed):
        """With lost parents, doubles and clocks that disagree: no error, and no time below 0."""
        table = cruel(seed)
        names = critical_path(table).walked.entities.names
        found = played(table, dict.fromkeys(names, 0.5))
        assert (found.after_ns >= 0).all()

    def test_order_of_rows_changes_nothing(self):
        """Calls stand in line by time, not by row."""
        table = simulate(line_of(Station("s", 10, traced=True), Station("t", 7)), poisson(70, 800, 3), 3)
        shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
        factors = {"s: serve": 0.5}
        assert played(table, factors).after_ns.tolist() == played(shuffled, factors).after_ns.tolist()


class TestRealCallsBesideMarkedOnes:
    def test_marked_requests_wait_for_the_workers_real_ones_keep_busy(self):
        """Half of the requests are real: those are not played, but stand in line."""
        station = Station("s", 10, traced=True)
        arrivals = poisson(70, 3000, 6)
        table = simulate(line_of(station), arrivals, 6)
        faster = simulate(line_of(station), arrivals, 6, {station.entity: 0.5})
        number = table["trace_id"].cat.codes.to_numpy()
        marked = table.assign(shadow=number % 2 == 0)
        after = faster.assign(shadow=faster["trace_id"].cat.codes.to_numpy() % 2 == 0)
        truth = mean_ms(marked[marked["shadow"]]) - mean_ms(after[after["shadow"]])
        gain = modelled_ms(span_table({name: marked[name] for name in marked}), {station.entity: 0.5})
        assert gain == pytest.approx(truth, rel=0.05)


def behind_a_proxy(table: pd.DataFrame, took_ns: int) -> pd.DataFrame:
    """Return calls whose last moments are spent in a traced service, all before in what nobody traces."""
    call = table[(table["kind"] == "client") & (table["duration_ns"] > took_ns)]
    end_ns = call["start_ns"] + call["duration_ns"]
    columns = ["trace_id", "span_id", "parent_span_id", "service", "name", "kind", "start_ns", "duration_ns"]
    served = {
        "span_id": call["span_id"] + 10**9,
        "parent_span_id": call["span_id"],
        "service": "s",
        "name": "serve",
        "kind": "server",
        "start_ns": end_ns - took_ns,
        "duration_ns": took_ns,
    }
    both = pd.concat([table[columns].astype(dict.fromkeys(("service", "name", "kind"), str)),
                      call[columns].assign(**served)])  # fmt: skip
    return span_table({name: both[name].to_numpy() for name in columns})


class TestWhereTheLineIsNotWhatItIsTakenFor:
    def test_a_queue_for_something_else_is_left_as_it_was(self):
        """Calls wait for a proxy that takes 10 ms; the service behind it takes 1, and cannot be why."""
        # Given
        table = simulate(line_of(Station("proxy", 10)), poisson(70, 2000, 1), 1)
        table = behind_a_proxy(table, 1_000_000)
        # When the service takes no time
        found = what_if(table, {"s: serve": 0})
        # Then calls were seen to wait, but its line does not explain that
        assert found.utilisation["workers"].tolist() == [1]
        assert played(table, {"s: serve": 0}).queues == ()
        assert found.table["modelled_gain_ms"].tolist() == found.table["gain_ms"].tolist()

    @pytest.mark.parametrize("traced", [True, False])
    def test_of_half_of_the_traces_no_more_is_made_than_there_is(self, traced):
        """Calls that were not kept are not in line: the gain is understated, and no less than replayed."""
        station = Station("s", 10, traced=traced)
        arrivals = poisson(80, 4000, 5)
        table = simulate(line_of(station), arrivals, 5)
        faster = simulate(line_of(station), arrivals, 5, {station.entity: 0.5})
        kept = np.random.default_rng(1).random(len(arrivals)) < 0.5
        half, half_faster = (one[kept[one["trace_id"].cat.codes.to_numpy()]] for one in (table, faster))
        truth = mean_ms(half) - mean_ms(half_faster)
        found = what_if(half.reset_index(drop=True), {station.entity: 0.5}).table.iloc[0]
        assert found["gain_ms"] <= found["modelled_gain_ms"] + 1e-9
        assert found["modelled_gain_ms"] <= 1.05 * truth
