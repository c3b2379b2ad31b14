"""perflab preflight against the demo's shop: the mark is followed through real services, stores and peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perflab.demo
from perflab.cli._stage import Stage, Wishes
from perflab.run import Run

SCENARIO = Path(perflab.demo.__file__).parent / "scenario.toml"


def preflight(stage: Stage, runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perflab", "preflight", SCENARIO,
         "--config", stage.config, "--runs", runs, *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def places(stop: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield stop["service"], stop["mark"]
    for call in stop["calls"]:
        yield from places(call)


def test_the_mark_is_followed_through_the_shop(tmp_path: Path):
    """Exit code 0: every service and store of the chain is met with the mark; a stub is the bank."""
    with Stage(tmp_path / "logs", Wishes()) as stage:
        done = preflight(stage, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # every place of every tree carried the mark, and the whole chain is among them
    met = {place for endpoint in found["endpoints"] for place in places(endpoint["stops"])}
    assert {mark for _, mark in met} == {"carried"}
    assert {"gateway", "cart", "stock", "order", "payment"} <= {service for service, _ in met}
    # both stores were met on their shadow side, the bank by its stub; nothing is open
    states = {row["store"]: (row["state"], row["why"]) for row in found["stores"]}
    assert states["postgres"] == ("covered", "")
    assert states["redis"] == ("covered", "")
    assert states["bank"] == ("covered", "outbound: stub")
    assert (found["holes"], found["notices"]) == ([], [])
    # versions are those in use
    assert all(row["agent"] and row["hooks"] for row in found["services"])
    # and the run holds it all, with the proof that the preflight itself left no trace
    run = Run.open(found["run"], tmp_path)
    assert run.preflight["services"] == found["services"]
    assert run.isolation["leaks"] == []


def test_holes_are_drawn_by_name(tmp_path: Path):
    """Exit code 1: the hook that is off is named, and nothing is sent."""
    with Stage(tmp_path / "logs", Wishes(disabled=[("stock", "psycopg")])) as stage:
        done = preflight(stage, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "stock: hook psycopg is off" in done.stdout
    assert "refused: In service 'stock', hook psycopg is off" in done.stdout
    (run,) = [Run(path.parent) for path in tmp_path.glob("*/run.json")]
    assert run.preflight["endpoints"] == []


@pytest.fixture(autouse=True)
def directories(tmp_path: Path) -> None:
    """Make what the stage writes to."""
    (tmp_path / "logs").mkdir()
