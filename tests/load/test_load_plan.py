"""What goes through the pipe."""

from __future__ import annotations

import msgspec
import pytest

from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.plan import Captured, MarkKey, Plan, Progress, Report, Result, Sample, Started
from perflab.traffic.answer import Checks, JsonCheck
from perflab.traffic.scenario import Endpoint, RampArrivals, Scenario, Thresholds

ENDPOINT = Endpoint(
    "a",
    "/${x}",
    json={"deep": [1, None, {"c": "${canary}"}]},
    checks=Checks(json=(JsonCheck("$.a", equals=None), JsonCheck("$.b"))),
    thresholds=Thresholds(p99="1s"),
    capture={"x": "$.x"},
)
MAKER = Endpoint("m", "/", capture={"x": "$.x"})


def test_a_plan_arrives_as_it_was_sent(mark, run_key):
    """Scenario, arrivals, key and captured values survive the pipe."""
    scenario = Scenario("s", (ENDPOINT, MAKER), arrivals=RampArrivals(1, 2, "3s"))
    plan = Plan(
        "r",
        scenario,
        ("127.0.0.1:1",),
        arrivals=Arrivals.steps([1, 2.5], each="1s"),
        mark=mark,
        captured=(Captured("m", {"x": "é", "n": 1.5}),),
    )
    line = msgspec.json.encode(plan)
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=Plan) == plan
    assert plan.mark.run_key() == run_key


def test_the_key_is_never_shown(mark):
    """Neither in the plan's repr nor in its own."""
    plan = Plan("r", Scenario("s", (MAKER,)), ("a:1",), mark=mark, preflight=True)
    assert mark.key_hex not in repr(plan)
    assert mark.key_hex not in str(mark)
    assert isinstance(mark, MarkKey)


def test_reports_are_told_apart():
    """Every kind of line is read back as what it was."""
    started = Started(1, 2, 3)
    progress = Progress(1, 2, 3, 4, 5, 6, 7, 8, 9, {"answered": 1}, 0, [(1, 2)], [])
    result = Result(
        "", 1, 2, 3, 3, 3, 0, 0, 0, 0, {}, {}, {}, 1.0, 2.0, 3.0, 4.0, 0.1, 1, 0.5,
        (Sample("a", "00", "answered", 200, "", 1.0),),
    )  # fmt: skip
    for report in (started, progress, result):
        assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"preflight": True, "timeout_s": 0},
        {"preflight": True, "max_in_flight": 0},
        {"preflight": True, "lease_s": -1},
    ],
)
def test_plans_that_make_no_sense_are_refused(more):
    """No arrivals, no time, no room."""
    with pytest.raises(ConfigError):
        Plan("r", Scenario("s", (MAKER,)), ("a:1",), **more)


def test_connections_are_bounded_by_what_is_in_flight():
    """More connections than requests are never needed."""
    plans = [
        Plan("r", Scenario("s", (MAKER,)), ("a:1",), preflight=True, max_in_flight=8, max_connections=bound)
        for bound in (0, 3, 99)
    ]
    assert [plan.connection_bound for plan in plans] == [8, 3, 8]
