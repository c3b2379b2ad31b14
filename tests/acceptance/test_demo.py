"""From clone to a report, in one command: what it makes, what it says of wrong input, what it leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LONGEST_S, leftovers, own_temp, play_demo, start_demo

pytestmark = pytest.mark.demo
MOMENTS = int(os.environ.get("PERFLAB_INTERRUPTS", "2"))
"""How many random moments are tried; ``make soak-interrupts`` tries ten."""


def test_the_last_line_is_the_result(natural: Any) -> None:
    """``--json`` ends with one line that holds all that was promised."""
    # GIVEN the demo as it is
    told = natural.told
    # THEN its line has every key
    assert set(told["requests"]) == {"offered", "sent", "late", "missed", "errors"}
    assert told["requests"]["sent"] > 50
    assert told["requests"]["offered"] == told["requests"]["sent"] + told["requests"]["missed"]
    assert set(told["bottleneck"]) == {"entity", "service", "share_ratio"}
    assert 0 < told["bottleneck"]["share_ratio"] <= 1


def test_the_run_directory_holds_what_it_should(natural: Any) -> None:
    """A run directory has run.json, spans, events and the proof; the report is one file."""
    # GIVEN the run of the demo
    path = natural.run.path
    # THEN everything is there
    assert json.loads((path / "run.json").read_text())["verdict"] == "passed"
    assert list((path / "spans").glob("*.parquet"))
    assert (path / "isolation.json").exists()
    assert [event["event"] for event in natural.run.events][-1] == "verdict"
    assert Path(natural.told["report"]).parent == natural.out / "reports"
    # AND its spans are one table with the generator's requests and all services
    services = set(natural.run.spans["service"].unique())
    assert {"perflab", "gateway", "catalogue", "cart", "order", "stock", "payment", "worker"} <= services


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--setting", "SHOP_NOTHING=1"), "no service reads SHOP_NOTHING"),
        (("--disable", "stock:nothing"), "no hook nothing"),
    ],
)
def test_what_only_the_stage_can_refuse_leaves_nothing(
    demo: Callable[..., Any], words: tuple[str, ...], said: str
) -> None:
    """Wrong words found out while the stage is set are told with what there is, and nothing is left."""
    # WHEN the demo is asked for nonsense
    played = demo(*words)
    # THEN it says so
    assert played.code in (2, 3), played.stderr
    assert said in played.stderr
    assert "Traceback" not in played.stderr


def test_a_service_that_dies_at_start_exits_with_3(demo: Callable[..., Any]) -> None:
    """A service that ends at its start is named, with its log; everything is stopped."""
    # GIVEN a stock service that cannot start
    # WHEN the demo runs
    played = demo("--service", "stock=python3 -c 'raise SystemExit(\"no stock today\")' {port}")
    # THEN it says which, why, and where the log is
    assert played.code == 3
    assert "stock" in played.stderr
    assert "no stock today" in played.stderr
    logs = played.stderr.rsplit("logs: ", 1)[1].strip()
    assert (Path(logs) / "stock.log").exists()


def test_a_port_that_is_taken_exits_with_3(demo: Callable[..., Any]) -> None:
    """A service whose port is taken is named; everything is stopped."""
    # GIVEN a port that somebody else listens on
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # WHEN a service is made to want it
        command = f"python3 -m waitress --listen=127.0.0.1:{port} perflab.demo.shop.stock:app"
        played = demo("--service", f"stock={command}")
    # THEN it says so
    assert played.code == 3
    assert "stock" in played.stderr


def test_a_full_disk_exits_with_3(tmp_path: Path) -> None:
    """A disk without room is said in one line, and everything is stopped."""
    # GIVEN a file system of one megabyte
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        (small / "filler").write_bytes(b"x" * 900_000)
        # WHEN the demo writes there
        played = play_demo("--for", "5s", out=small / "out")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    # THEN it could not do it, and says so
    assert played.code == 3, played.stderr
    assert "No space left" in played.stderr
    assert "Traceback" not in played.stderr


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_nothing_is_left_after_an_interrupt(tmp_path: Path, moment: int) -> None:
    """Ctrl-C at a random moment leaves no process, port or temporary directory."""
    # GIVEN a demo under way for a random time
    temp = own_temp()
    demo = start_demo("--for", "8s", out=tmp_path / "out", temp=temp)
    time.sleep(random.Random().uniform(0.5, 34))  # the moment itself is what is tested
    # WHEN it is interrupted, as a terminal does it
    os.killpg(demo.pid, signal.SIGINT)
    _, stderr = demo.communicate(timeout=LONGEST_S)
    # THEN it ends without a traceback and leaves nothing
    assert "Traceback" not in stderr, stderr
    assert demo.returncode in (0, 130), stderr
    assert leftovers(temp) == []
    temp.rmdir()


def test_the_next_demo_starts_cleanly_after_a_kill(tmp_path: Path) -> None:
    """After SIGKILL at a random moment the next demo starts, and sweeps up what was left."""
    temp = own_temp()
    for moment in range(MOMENTS):
        # GIVEN a demo killed at a random moment
        demo = start_demo("--for", "8s", out=tmp_path / f"killed{moment}", temp=temp)
        time.sleep(random.Random().uniform(1, 30))  # the moment itself is what is tested
        os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate(timeout=60)
    # WHEN the next one runs, where they ran
    played = play_demo("--for", "5s", out=tmp_path / "next", temp=temp)
    # THEN it works, and nothing of any of them is left
    assert played.code == 0, played.stderr
