"""perflab lab: the folder it opens, and a real JupyterLab whose kernels find the runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perflab.cli.lab import notebooks_folder
from perflab.errors import ConfigError

PATIENCE_S = 60
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_the_notebooks_are_copied_where_there_is_no_folder(tmp_path: Path):
    """A missing folder is made, whole, with perflab's notebooks; nothing else is left beside it."""
    folder = notebooks_folder(tmp_path / "deep" / "notebooks")
    assert folder == tmp_path / "deep" / "notebooks"
    assert list(folder.glob("*.ipynb"))
    assert [path.name for path in folder.parent.iterdir()] == ["notebooks"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    """A user's file is never overwritten, nor is anything added beside it."""
    # Given a folder with a notebook of the user's
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "mine.ipynb").write_text("mine", encoding="utf-8")
    # When it is opened
    assert notebooks_folder(folder) == folder
    # Then it is as it was
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == {
        "mine.ipynb": "mine"
    }


def test_a_file_in_its_place_is_told(tmp_path: Path):
    """A file where the folder should be is wrong input."""
    (tmp_path / "notebooks").touch()
    with pytest.raises(ConfigError, match="is a file; give the folder"):
        notebooks_folder(tmp_path / "notebooks")


def test_jupyterlab_opens_and_its_kernels_run_where_the_runs_are(tmp_path: Path):
    """The process becomes JupyterLab on the notebooks; a kernel works in the current directory."""
    # Given perflab lab in a folder with a notebook
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/one.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    code = "import sys; from perflab.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "lab", "--no-browser", "--ServerApp.port=0"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as lab,
    ):
        try:
            server = _wait(lambda: _server(tmp_path / "runtime", lab.pid), lab, tmp_path / "log")
            _wait(lambda: _answers(server), lab, tmp_path / "log")
            # When the notebook is opened
            wanted = {"path": "one.ipynb", "name": "one.ipynb", "type": "notebook", "kernel": {}}
            _ask(server, "api/sessions", wanted)
            kernel = _wait(lambda: _kernel(lab.pid), lab, tmp_path / "log")
            # Then its kernel works where perflab was started, next to data/runs
            assert Path(f"/proc/{kernel}/cwd").resolve() == tmp_path
        finally:
            lab.send_signal(signal.SIGTERM)
            lab.wait(PATIENCE_S)
    # And nothing of it is left
    _wait(lambda: not Path(f"/proc/{kernel}").exists(), None, tmp_path / "log")


def _server(runtime: Path, pid: int) -> dict[str, Any] | None:
    """Return what JupyterLab wrote about itself: that it is this process shows that perflab became it."""
    path = runtime / f"jpserver-{pid}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _answers(server: dict[str, Any]) -> bool:
    """Tell whether it listens: JupyterLab writes about itself before."""
    try:
        return bool(_ask(server, "api"))
    except urllib.error.URLError:
        return False


def _kernel(parent: int) -> int | None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            above = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == parent and b"ipykernel" in command:
            return int(folder.name)
    return None


def _ask(server: dict[str, Any], path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server['url']}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {server['token']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def _wait(condition: Callable[[], Any], process: subprocess.Popen[bytes] | None, log: Path) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert process is None or process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    return found
