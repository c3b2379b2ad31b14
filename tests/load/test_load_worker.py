"""The generator's process, seen from its pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from perflab.load.plan import Control, Failed, Plan, Report, Result, Started
from perflab.load.worker import Lease
from perflab.traffic.scenario import Endpoint, Scenario

COMMAND = [sys.executable, "-P", "-m", "perflab.load.worker"]


def reports_of(line):
    """Give a process one line, close its pipe, and return its exit code and reports."""
    done = subprocess.run(COMMAND, input=line, capture_output=True, timeout=30, check=False)
    return done.returncode, [msgspec.json.decode(text, type=Report) for text in done.stdout.splitlines()]


def test_no_plan_is_no_work():
    """A pipe that closes at once ends the process in peace."""
    assert reports_of(b"") == (0, [])


@pytest.mark.parametrize("line", [b"{}\n", b"no json\n", b'{"run_id": 5}\n'])
def test_plans_that_cannot_be_read_are_told(line):
    """The report names the error; the exit code is that of wrong input."""
    code, (failed,) = reports_of(line)
    assert code == 2
    assert isinstance(failed, Failed)
    assert failed.error == "ConfigError"


def test_a_plan_whose_controller_leaves_is_not_carried_out(target, tmp_path):
    """The pipe closes right after the plan: next to nothing is sent, and the rows tell of what was."""
    from perflab.load.arrivals import Arrivals

    plan = Plan(
        "r", Scenario("s", (Endpoint("a", "/ok"),)), (target.address,), arrivals=Arrivals.constant(50, "60s")
    )
    began = time.monotonic()
    code, reports = reports_of(msgspec.json.encode(plan) + b"\n")
    assert time.monotonic() - began < 10
    assert code == 0
    assert isinstance(reports[0], Started)
    assert isinstance(reports[-1], Result)
    assert reports[-1].stopped == "the controller is gone"
    assert target.total == reports[-1].sent < 50


class Watched:
    """A lease on a pipe of ours, and what it reported."""

    def __init__(self, lease_s):
        reading, self.writing = os.pipe()
        self.stops = []
        self.stopped, self.lost = threading.Event(), threading.Event()
        self.lease = Lease(reading, self._stop, self.lost.set)
        self.lease.start(lease_s)

    def _stop(self, reason):
        self.stops.append(reason)
        self.stopped.set()

    def say(self, control):
        os.write(self.writing, msgspec.json.encode(control) + b"\n")


def test_a_closed_pipe_is_noticed_while_the_process_is_busy():
    """No turn of an event loop is needed: the thread notices beside a loop that never yields."""
    watched = Watched(lease_s=60)
    os.close(watched.writing)
    deadline = time.monotonic() + 2
    while not watched.lost.is_set() and time.monotonic() < deadline:
        sum(range(1000))  # the busy process
    assert watched.lost.is_set()
    assert watched.stops == []


def test_silence_is_noticed_and_heartbeats_prevent_it():
    """Beats keep the lease; their end breaks it; a stop carries its reason; noise is not a stop."""
    watched = Watched(lease_s=1.0)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        watched.say(Control("beat"))
        assert not watched.stopped.wait(0.1)
    os.write(watched.writing, b"noise\n")
    watched.say(Control("stop", "a guard"))
    assert watched.stopped.wait(2)
    assert watched.stops == ["a guard"]
    watched.stopped.clear()
    assert watched.stopped.wait(5)
    assert watched.stops[1] == "the controller was silent for more than 1 s"
    os.close(watched.writing)
    assert watched.lost.wait(2)
