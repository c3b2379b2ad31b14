"""The course of a run that ends early; the whole way is held by tests/acceptance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from perflab.config import Secret, Target
from perflab.errors import TraceError
from perflab.load.arrivals import Arrivals
from perflab.load.launch import launch, preflight
from perflab.run import Run, list_runs
from perflab.traffic.scenario import Endpoint, Scenario

SCENARIO = Scenario(name="s", endpoints=(Endpoint(name="home", url="/"),))


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Return a target whose control list can be written and where nothing listens."""
    key = tmp_path / "key"
    key.write_text("secret")
    return Target(
        addresses=("127.0.0.1:9",),
        control=str(tmp_path / "control.json"),
        control_key=Secret(file=str(key)),
        collector="127.0.0.1:0",
        max_rate_per_s=50,
        max_duration="10s",
    )


def test_a_service_without_an_agent_refuses_the_run(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listed service that does not report is a hole: nothing is sent, and the run is refused."""
    # GIVEN a target with a service nobody attached
    monkeypatch.setattr("perflab.load.course.AGENTS_WITHIN_S", 0.2)
    unattached = msgspec.structs.replace(target, services={"cart": ("127.0.0.1:9",)})
    # WHEN it is launched
    arrivals = Arrivals.constant(1, over="2s")
    run = asyncio.run(launch(SCENARIO, arrivals, target=unattached, runs=tmp_path / "runs"))
    # THEN the run says so, and sent nothing
    assert run.verdict == "refused"
    assert "cart" in run.info["reason"]
    assert run.info["requests"]["offered"] == 0
    assert [hole["name"] for hole in run.info["holes"]] == ["cart: no agent"]


def test_a_collector_that_cannot_listen_is_written_down(target: Target, tmp_path: Path) -> None:
    """When the receiver's address is taken the run fails, and its directory says why."""
    # GIVEN an address nobody can listen on
    elsewhere = msgspec.structs.replace(target, collector="192.0.2.1:4318")
    arrivals = Arrivals.constant(1, over="2s")
    # WHEN it is launched
    with pytest.raises(TraceError):
        asyncio.run(launch(SCENARIO, arrivals, target=elsewhere, runs=tmp_path / "runs"))
    # THEN the run is there, failed, with the reason
    (run,) = list_runs(tmp_path / "runs")
    assert Run.open(run.path).verdict == "failed"
    assert "192.0.2.1:4318" in run.info["reason"]


def test_a_preflight_says_what_it_knows_without_an_agent(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is drawn as one without an agent; nothing was sent, no endpoint is drawn."""
    # GIVEN a target with a service nobody attached
    monkeypatch.setattr("perflab.load.course.AGENTS_WITHIN_S", 0.2)
    unattached = msgspec.structs.replace(target, services={"cart": ("127.0.0.1:9",)})
    # WHEN it is inspected
    run = asyncio.run(preflight(SCENARIO, target=unattached, runs=tmp_path / "runs"))
    # THEN that is what it found
    assert run.verdict == "refused"
    (service,) = run.preflight["services"]
    assert (service["service"], service["agent"], service["processes"]) == ("cart", "", 0)
    assert [hole["name"] for hole in run.preflight["holes"]] == ["cart: no agent"]
    assert run.preflight["endpoints"] == []
