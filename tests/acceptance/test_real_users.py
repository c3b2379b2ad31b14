"""Promise 3: a run never hurts real users: it stops by itself, and it survives what dies around it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LONGEST_S, leftovers, own_temp, start_demo

pytestmark = pytest.mark.demo


def test_real_users_are_measured_before_during_and_after(natural: Any) -> None:
    """The run states what real users felt, in numbers, and that nothing tripped."""
    # GIVEN the demo as it is
    users = natural.run.info["real_users"]
    # THEN there are numbers of each time
    for when in ("before", "during", "after"):
        assert users[when]["n"] > 5
        assert users[when]["p99_ms"] > 0
        assert users[when]["error_ratio"] == 0
    assert not any(guard["tripped"] for guard in natural.run.info["guards"])


def test_harm_to_real_users_stops_the_run(demo: Callable[..., Any]) -> None:
    """A shop that works on one request at a time makes shadow load hurt real users: the run stops itself."""
    # GIVEN a gateway with little room, and a rate that fills it
    words = ("--for", "40s", "--rate", "120", "--setting", "SHOP_GATEWAY_LIMIT=1")
    # WHEN the demo runs
    played = demo(*words)
    # THEN a guard on real users stopped it before its time was up
    assert (played.code, played.told["verdict"]) == (1, "stopped"), played.stderr
    assert "real users" in played.told["reason"]
    load = next(phase for phase in played.run.info["phases"] if phase["name"] == "load")
    assert (load["end_ns"] - load["start_ns"]) / 1e9 < 38
    # AND the report was written all the same
    assert Path(played.told["report"]).stat().st_size > 100_000


def test_a_service_that_dies_during_the_run_is_reported(tmp_path: Path) -> None:
    """Kill a service while load is sent: the run ends in order and says which service was lost."""
    # GIVEN a demo that is sending load
    out, temp = tmp_path / "out", own_temp()
    demo = start_demo("--for", "12s", out=out, temp=temp)
    try:
        victim = _service_under_load(out, temp, "payment")
        # WHEN one of its services is killed
        os.kill(victim, signal.SIGKILL)
        stdout, stderr = demo.communicate(timeout=LONGEST_S)
    finally:
        demo.kill()
        demo.wait()
    # THEN it ended in order, not passed, and says so
    assert demo.returncode == 1, stderr
    run = next((out / "runs").iterdir())
    events = (run / "events.jsonl").read_text(encoding="utf-8")
    assert '"service lost"' in events
    assert '"payment"' in events
    assert stdout.strip().startswith("{")
    assert leftovers(temp) == []
    temp.rmdir()


def _service_under_load(out: Path, temp: Path, name: str) -> int:
    """Wait until load is sent and return the pid of a service."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        events = [path.read_text(encoding="utf-8") for path in (out / "runs").glob("*/events.jsonl")]
        if any('"name": "load"' in text for text in events):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    command = (folder / "cmdline").read_bytes().split(b"\0")
                    environment = (folder / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                ours = f"TMPDIR={temp}".encode() in environment
                if ours and f"perflab.demo.shop.{name}:app".encode() in command:
                    return int(folder.name)
        time.sleep(0.1)
    raise AssertionError("the demo never came to sending load")
