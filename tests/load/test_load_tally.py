"""Counts of a run."""

from __future__ import annotations

import numpy as np

from perflab.load.arrivals import Arrivals
from perflab.load.compose import Composer
from perflab.load.egress import AllowList
from perflab.load.plan import Plan
from perflab.load.recording import Recording
from perflab.load.tally import Tally
from perflab.load.window import Histogram
from perflab.traffic.scenario import Endpoint, Scenario

MS = 1_000_000
PLAN = Plan(
    "r",
    Scenario("s", (Endpoint("a", "/"), Endpoint("b", "/"))),
    ("127.0.0.1:1",),
    arrivals=Arrivals.constant(1, "1s"),
)


def test_windows_add_up_to_the_result():
    """Each ending is in one window; totals go on; what never came is not begun."""
    composer = Composer(PLAN, AllowList(PLAN.addresses))
    a, b = composer.kinds
    due = np.arange(5, dtype=np.int64) * 10 * MS + 100 * MS
    tally = Tally(Recording(due, np.zeros(5, dtype=np.int16), 0), start_ns=100 * MS)
    # Given four arrivals: on time, late in the place of another, missed, and failed
    for row in range(4):
        tally.offer(row, composer.identify(), a)
    tally.stand_in(1, a, b)
    tally.send(int(due[0]), int(due[0]) + MS)
    tally.end(0, int(due[0]) + MS, int(due[0]) + 5 * MS, "answered", "")
    tally.send(int(due[1]), int(due[1]) + 2 * MS)
    tally.end(1, int(due[1]) + 2 * MS, int(due[1]) + 20 * MS, "answered", "")
    first = tally.progress(150 * MS, [20 * MS, 140 * MS], in_flight=1, waiting=1)
    tally.miss(2, int(due[2]), "stopped")
    tally.send(int(due[3]), int(due[3]))
    tally.end(3, int(due[3]), int(due[3]) + MS, "reset", "gone")
    second = tally.progress(200 * MS, [], in_flight=0, waiting=0)
    # Then the first window holds two latencies and the old one of the two that have not ended
    assert Histogram(first.latencies).count == 2
    assert Histogram(first.outstanding).count == 1
    assert (first.errors, first.sent, first.late, first.substituted, first.due) == (0, 2, 1, 1, 5)
    assert (first.in_flight, first.waiting, first.elapsed_ns) == (1, 1, 50 * MS)
    # and the second the failure, and the missed one as an error without a latency
    assert Histogram(second.latencies).count == 1
    assert (second.errors, second.missed, second.offered) == (2, 1, 4)
    assert second.outcomes == {"answered": 2, "missed": 1, "reset": 1}
    result = tally.result(stopped="why", connections=3, cpu_s=0.5)
    assert (result.offered, result.sent, result.missed, result.not_begun) == (4, 3, 1, 1)
    assert (result.answered, result.errors) == (2, {"missed": 1, "reset": 1})
    assert result.missed_reasons == {"stopped": 1}
    assert (result.max_ms, result.duration_ns) == (20.0, 31 * MS)
    assert [sample.endpoint for sample in tally.samples(composer.kinds)] == ["a", "b", "a", "a"]
