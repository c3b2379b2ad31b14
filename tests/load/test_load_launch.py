"""Launch: what it refuses before anything is started. The whole way is held by tests/acceptance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perflab.config import GuardRule, Secret, Target
from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.guard import Guard
from perflab.load.launch import launch
from perflab.run import list_runs
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


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        (Arrivals.constant(51, over="5s"), "the target allows 50"),
        (Arrivals.constant(1, over="11s"), "the target allows 10s"),
        (None, "says not when requests arrive"),
    ],
)
def test_what_the_target_does_not_allow_is_refused(
    target: Target, tmp_path: Path, arrivals: Arrivals | None, said: str
) -> None:
    """Too much, too long or no schedule is wrong input, before a run is made."""
    # WHEN it is launched
    with pytest.raises(ConfigError, match=said):
        asyncio.run(launch(SCENARIO, arrivals, target=target, runs=tmp_path / "runs"))
    # THEN there is no run
    assert list_runs(tmp_path / "runs") == []


def test_a_guard_on_real_users_needs_to_know_where_they_are(target: Target, tmp_path: Path) -> None:
    """A guard on real users without a place to measure them is wrong input."""
    # GIVEN such a guard
    guard = Guard(GuardRule(of="real_users", metric="p99_ms", below=100.0))
    arrivals = Arrivals.constant(1, over="2s")
    # THEN it is refused
    with pytest.raises(ConfigError, match="add real_users"):
        asyncio.run(launch(SCENARIO, arrivals, target=target, guards=[guard], runs=tmp_path / "runs"))


def test_an_unknown_target_lists_those_there_are(tmp_path: Path) -> None:
    """A target that perflab.toml does not have is wrong input."""
    # GIVEN an empty perflab.toml
    config = tmp_path / "perflab.toml"
    config.write_text("")
    arrivals = Arrivals.constant(1, over="2s")
    # THEN the name is refused
    with pytest.raises(ConfigError, match="no target 'shop'"):
        asyncio.run(launch(SCENARIO, arrivals, target="shop", config=config, runs=tmp_path / "runs"))
