"""perflab shadow kill: from another terminal, past a controller that hangs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from perflab import cli
from perflab.config import Secret, Target
from perflab.load.arrivals import Arrivals
from perflab.load.launch import launch
from perflab.run import list_runs
from perflab.shadow.control import ControlPublisher, ControlReader, LiveRun, decode
from perflab.traffic.scenario import Endpoint, Scenario

KEY = b"the key of these tests"
CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = { file = "control.key" }
collector = "127.0.0.1:0"
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a perflab.toml; return where its control list is."""
    (tmp_path / "perflab.toml").write_text(CONFIG)
    (tmp_path / "control.key").write_bytes(KEY)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "control.json"


def a_run(tag: int) -> LiveRun:
    return LiveRun(tag, f"run-{tag}", f"key-{tag}", int(time.time()) + 600)


def test_runs_are_killed_though_nobody_publishes(control: Path, capsys: pytest.CaptureFixture[str]):
    """One by its id, then all; readers hear of it at their next poll, with the controller standing still."""
    publisher = ControlPublisher(control, KEY)  # not entered: it never publishes again by itself
    for tag in (1, 2, 3):
        publisher.add(a_run(tag))
    reader = ControlReader(str(control), KEY)
    reader.poll()
    # When one is killed
    assert cli.main(["shadow", "kill", "run-2"]) == 0
    assert "killed: run-2" in capsys.readouterr().out
    reader.poll()
    assert [reader.is_live(tag) for tag in (1, 2, 3)] == [True, False, True]
    # And then all
    assert cli.main(["shadow", "kill", "--target", "shop", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["killed"] == ["run-1", "run-2", "run-3"]
    assert "@" in told["by"]
    reader.poll()
    assert reader.live == {}


def test_what_cannot_be_killed_is_wrong_input(control: Path, capsys: pytest.CaptureFixture[str]):
    """No list, a run that is not on it, a list that is served elsewhere: exit code 2 and a reason."""
    assert cli.main(["shadow", "kill"]) == 2
    assert "name the one to kill" in capsys.readouterr().err
    with ControlPublisher(control, KEY):
        assert cli.main(["shadow", "kill", "run-9"]) == 2
        assert "no run 'run-9' is listed; there are: none" in capsys.readouterr().err
        assert cli.main(["shadow", "kill"]) == 0
        assert "nothing to kill" in capsys.readouterr().out
    text = CONFIG.replace('"control.json"', '"http://127.0.0.1:1/runs"')
    (control.parent / "perflab.toml").write_text(text)
    assert cli.main(["shadow", "kill"]) == 2
    assert "kill where it is written" in capsys.readouterr().err


class Answering:
    """A server on a thread that answers every request at once."""

    def __init__(self) -> None:
        import http.server

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_a_launch_that_is_killed_stops_and_says_who(control: Path, tmp_path: Path):
    """A run of a minute, killed while it sends: its verdict is 'stopped', with who did it, within seconds."""
    killed: dict[str, float] = {}

    def kill_when_it_sends(what: str, details: object) -> None:
        if what == "progress" and not killed:
            killed["at_s"] = time.monotonic()
            assert cli.main(["shadow", "kill"]) == 0

    with Answering() as address:
        target = Target(
            addresses=(address,),
            control=str(control),
            control_key=Secret(file=str(tmp_path / "control.key")),
            collector="127.0.0.1:0",
        )
        scenario = Scenario(name="s", endpoints=(Endpoint(name="home", url="/"),))
        arrivals = Arrivals.constant(5, over="60s")
        run = asyncio.run(
            launch(scenario, arrivals, target=target, runs=tmp_path / "runs", watch=kill_when_it_sends)
        )
    assert killed, "the run never sent"
    assert time.monotonic() - killed["at_s"] < 30
    (there,) = list_runs(tmp_path / "runs")
    assert there.verdict == "stopped"
    assert "The run was killed by" in run.info["reason"]
    assert "@" in run.info["reason"]
    assert run.info["requests"]["sent"] < 100
    assert decode(control.read_bytes(), KEY).runs == ()
