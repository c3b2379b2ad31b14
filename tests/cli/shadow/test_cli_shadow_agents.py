"""perflab shadow agents: what really attached processes say, with and without a launch that listens."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perflab import cli
from perflab.cli.attach import attached_environment
from perflab.config import load_config
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.fleet import Fleet
from perflab.trace.collector import Collector

CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = {{ file = "control.key" }}
collector = "127.0.0.1:{port}"
[targets.shop.services]
cart = ["127.0.0.1:9"]
{more}
"""
SERVICE = "import pg8000, requests, sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Attach a process whose driver is not covered, list a run; return where its agent reports."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (tmp_path / "perflab.toml").write_text(CONFIG.format(port=port, more=""))
    (tmp_path / "control.key").write_text("the key of these tests")
    monkeypatch.chdir(tmp_path)
    target = load_config(Path("perflab.toml")).target()
    with ControlPublisher(tmp_path / "control.json", b"the key of these tests") as publisher:
        publisher.add(LiveRun(0x1234, "run-a", "key-a", int(time.time()) + 600))
        process = subprocess.Popen(
            [sys.executable, "-c", SERVICE],
            env=attached_environment(target, "cart"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield f"127.0.0.1:{port}"
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def test_what_agents_believe_is_shown(collector: str, capsys: pytest.CaptureFixture[str]):
    """Nobody listens: the command does, and shows who reported; a service nobody heard of is named."""
    assert cli.main(["shadow", "agents", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["service"], row["host"], row["live"]) == ("cart", socket.gethostname(), ["run-a"])
    assert row["holes"] == ["cart: driver pg8000 is not covered"]
    assert row["hooks"]["requests"]["state"] == "on"
    assert row["control_age_s"] < 5
    assert (row["problem"], row["stepped_aside"]) == ("", {})
    # as a table, with another service that is not attached
    text = Path("perflab.toml").read_text() + 'stock = ["127.0.0.1:9"]\n'
    Path("perflab.toml").write_text(text)
    assert cli.main(["shadow", "agents"]) == 3
    head, line, absent = capsys.readouterr().out.splitlines()
    assert head.split() == ["service", "process", "agent", "list", "live", "runs", "hooks", "says"]
    assert line.startswith(f"cart     {row['pid']}@{row['host']}")
    assert "run-a" in line
    assert "hole: cart: driver pg8000 is not covered" in line
    assert "stock: no agent of it was heard" in absent


def test_a_launch_that_listens_is_asked(collector: str, capsys: pytest.CaptureFixture[str]):
    """Where the address is taken by a launch, its list is shown."""
    fleet, loop = Fleet(), asyncio.new_event_loop()
    listening = Collector(collector, {"/v1/agents": fleet.receive}, {"/v1/agents": fleet.agents})
    loop.run_until_complete(listening.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not fleet.services() and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert cli.main(["shadow", "agents", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["service"], row["live"]) == ("cart", ["run-a"])
        assert row["heard_s"] < 3
        assert os.getpid() != row["pid"]
    finally:
        asyncio.run_coroutine_threadsafe(listening.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
