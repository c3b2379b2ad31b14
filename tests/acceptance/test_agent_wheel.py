"""The agent stands alone: its own wheel in a service's environment, upgraded and rolled back in traffic."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attached_service import wait_for

import perflab
from perflab.demo.spawn import free_port
from perflab.shadow.fleet import Fleet
from perflab.shadow.preflight import mixed_versions, static_holes

ROOT = Path(__file__).resolve().parents[2]
NOT_NEEDED = ("pandas", "numpy", "jupyterlab", "pyarrow", "networkx", "plotly", "psycopg", "redis", "aiohttp")
SERVICE = """
import sys
from flask import Flask
from waitress import serve

app = Flask("shop")

@app.get("/")
def home():
    return "at home"

@app.get("/late")
def late():
    import sqlite3  # a library the service needs only now
    with sqlite3.connect(":memory:") as connection:
        return str(connection.execute("SELECT 40 + 2").fetchone()[0])

serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=4)
"""
CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = { file = "key" }
collector = "127.0.0.1:%d"
services = { shop = ["127.0.0.1:9"] }
"""


def build(checkout: Path, into: Path) -> Path:
    """Build the agent's wheel of a checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into],
        cwd=checkout / "perflab/shadow/wheel", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return max(into.glob("*.whl"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build this version's."""
    return build(ROOT, tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def next_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the version after this one."""
    copy = tmp_path_factory.mktemp("next") / "perflab"
    shutil.copytree(ROOT / "perflab", copy / "perflab", ignore=shutil.ignore_patterns("__pycache__"))
    face = copy / "perflab/__init__.py"
    face.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', face.read_text()))
    return build(copy, tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a service's environment: its framework, its server and the agent; return its bin folder."""
    folder = tmp_path_factory.mktemp("service")
    venv.create(folder, with_pip=True, symlinks=True)
    pip(folder / "bin", "install", "flask", "waitress", wheel)
    return folder / "bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the service and the target's description."""
    (tmp_path / "key").write_text("a control key of the tests")
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


def pip(where: Path, *words: object) -> None:
    done = subprocess.run(
        [where / "python", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet",
         *map(str, words)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class Controller:
    """Takes agents' reports, as a launch does."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        controller = self

        class Taker(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/agents":
                    controller.fleet.receive(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def controller(folder: Path) -> Iterator[Controller]:
    """Listen where the agents report."""
    made = Controller()
    (folder / "perflab.toml").write_text(CONFIG % made.port)
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextmanager
def attached(environment: Path, folder: Path) -> Iterator[int]:
    """Run the service with the agent in it; yields its port."""
    port = free_port()
    process = subprocess.Popen(
        [environment / "perflab", "attach", "--service", "shop", "--", environment / "python", "service.py",
         str(port)],
        cwd=folder, env={**os.environ, "PYTHONPATH": ""}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: ask(port) == "at home", "the service is up", 30.0)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def ask(port: int, path: str = "/", headers: dict[str, str] | None = None) -> str:
    """Return what the service answers, or the number of its refusal; "" where nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        return str(refusal.code)
    except OSError:
        return ""


def test_the_wheel_holds_the_agent_alone(wheel: Path):
    """What judges agents from outside, and everything that analyses and draws, is not in it."""
    names = zipfile.ZipFile(wheel).namelist()
    rooms = {"/".join(name.split("/")[:2]) for name in names if name.startswith("perflab/")}
    assert rooms == {
        "perflab/__init__.py", "perflab/__main__.py", "perflab/py.typed", "perflab/config.py",
        "perflab/errors.py", "perflab/units.py", "perflab/cli", "perflab/shadow",
    }  # fmt: skip
    assert not [name for name in names if name.startswith(("perflab/shadow/audit", "perflab/shadow/prepare"))]


def test_every_module_of_the_wheel_can_be_imported_alone(environment: Path, folder: Path):
    """None needs what the service's environment does not have, and none of it brings a large library."""
    script = """
import importlib, importlib.util, json, pathlib, pkgutil, sys
import perflab
root = pathlib.Path(perflab.__file__).parent
assert "site-packages" in str(root), root
for item in pkgutil.walk_packages([str(root)], "perflab."):
    if not item.name.endswith((".__main__", ".sitecustomize")):
        importlib.import_module(item.name)
print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name)]))
"""
    done = subprocess.run(
        [environment / "python", "-c", script, *NOT_NEEDED],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_the_service_is_attached(environment: Path, folder: Path, controller: Controller):
    """It serves ordinary requests, refuses a false mark, and reports; its help has the one verb."""
    with attached(environment, folder) as port:
        assert ask(port) == "at home"
        assert ask(port, headers={"tracestate": "perflab=forged"}) == "403"
        wait_for(lambda: controller.fleet.services() == {"shop"}, "the agent reports")
        assert controller.fleet.versions()["shop"]["perflab"] == perflab.__version__
        assert static_holes(controller.fleet, ["shop"]) == []
    told = subprocess.run([environment / "perflab", "--help"], capture_output=True, text=True, check=True)
    assert re.findall(r"^  (\w+) ", told.stdout.partition("verbs:")[2], re.MULTILINE) == ["attach"]


def test_upgrade_and_rollback_lose_no_request(
    environment: Path, folder: Path, controller: Controller, wheel: Path, next_wheel: Path
):
    """Files are replaced under two running instances, which are then restarted in turn: all are served."""
    with attached(environment, folder) as first, attached(environment, folder) as second:
        # Given ordinary traffic to both instances, which goes on all the time
        in_rotation, wrong, served = {first, second}, [], 0
        over = threading.Event()

        def use() -> None:
            nonlocal served
            while not over.is_set():
                for port in list(in_rotation):
                    answer = ask(port)
                    if answer != "at home" and port in in_rotation:
                        wrong.append((port, answer))
                    served += 1
                time.sleep(0.002)

        users = threading.Thread(target=use)
        users.start()
        try:
            for newer, version in ((next_wheel, "99.0.0"), (wheel, perflab.__version__)):
                # When the agent's files are replaced while both run
                pip(environment, "install", "--no-deps", "--force-reinstall", newer)
                # Then a library that is imported only now works, unhooked and reported
                assert ask(first, "/late") == "42"
                if version == "99.0.0":
                    wait_for(
                        lambda: any("sqlite3" in hole for hole in controller.fleet.holes()),
                        "the old agent says that it does not hook any more",
                    )
                # When one instance is restarted and takes the traffic over, the other following later
                with attached(environment, folder) as third:
                    in_rotation.add(third)
                    wait_for(
                        lambda seen=version: seen in controller.fleet.versions()["shop"]["perflab"],
                        "the new agent reports",
                    )
                    if version == "99.0.0":
                        said = mixed_versions(controller.fleet, perflab.__version__)
                        own = perflab.__version__
                        assert said == [f"service 'shop' runs agent {own}, 99.0.0; this is perflab {own}"]
                    in_rotation.discard(third)
                    time.sleep(0.05)  # the request under way to it ends
        finally:
            over.set()
            users.join()
    # Then no ordinary request was lost
    assert wrong == []
    assert served > 100
