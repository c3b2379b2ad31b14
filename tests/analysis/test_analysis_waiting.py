"""Queues at an edge: told from the network, and who is to blame for them."""

from __future__ import annotations

import pytest
from made_shop import saturated

from perflab.analysis.bottleneck import bottlenecks
from perflab.analysis.criticalpath import critical_path
from perflab.analysis.waiting import Waiting
from perflab.testing import S, spans


class TestWaiting:
    def test_a_gap_that_grows_with_load_is_a_queue_and_its_holder_is_named(self):
        """Four workers and too many requests: they wait at the edge for what keeps the workers busy."""
        found = bottlenecks(saturated(workers=4, service_ms=80))
        edge = found.table.iloc[0]
        assert (edge["entity"], edge["pattern"]) == ("web -> shop", "waiting to be accepted")
        assert "grows with the calls in flight" in edge["evidence"]
        assert found.first["entity"] == "shop: SELECT stock"
        assert found.first["waits_at"] == "web -> shop"
        assert "web -> shop" in found.sentence

    def test_a_gap_that_does_not_grow_is_the_network(self):
        """The same traffic with workers enough and a slow line."""
        found = bottlenecks(saturated(workers=10_000, service_ms=5, line_ms=60))
        assert (found.first["entity"], found.first["pattern"]) == ("web -> shop", "network or connect")
        assert "waits_at" not in found.first

    def test_growth_is_of_the_quiet_and_the_busy_third(self):
        """By hand: nine calls, three alone, three beside one, three beside two, each gap 10 ms more."""
        # Given rounds of three calls that overlap; the n-th of a round begins with n - 1 in flight
        calls = []
        for turn in range(3):
            for place in range(3):
                begin, gap = 1000 * turn + 10 * place, 10 * (place + 1)
                server = S("b", "GET /", begin + gap, begin + gap + 100, "server")
                calls.append(S("a", "GET b", begin, begin + gap + 100, "client", children=[server]))
        path = critical_path(spans(calls))
        # When
        growth = Waiting(path.walked).growth(path.walked.entities.names.index("a -> b"))
        # Then
        assert (growth.calls, growth.quiet_ms, growth.busy_ms) == (9, 10, 30)
        assert growth.correlation == pytest.approx(1)
        assert not growth.is_known

    def test_no_holder_where_the_workers_do_many_things(self):
        """The largest must have half of their time."""
        inside = [S("b", name, at + 5, at + 14, "internal") for at, name in ((0, "x"), (10, "y"), (20, "z"))]
        server = S("b", "GET /", 2, 38, "server", children=inside)
        path = critical_path(spans([S("a", "GET b", 0, 40, "client", children=[server])]))
        assert Waiting(path.walked).holder("a -> b") is None
