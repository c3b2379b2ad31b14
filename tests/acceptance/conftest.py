"""Plays the demo as a user would: as a command, to its end, looking afterwards for what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perflab.run import Run

LONGEST_S = 240


@dataclass(frozen=True)
class Played:
    """One demo that has ended."""

    code: int
    told: dict[str, Any]
    stderr: str
    out: Path

    @property
    def run(self) -> Run:
        """The run it made."""
        return Run.open(self.told["run"], self.out / "runs")


def own_temp() -> Path:
    """Make a temporary directory for one demo alone: what is in it afterwards is what the demo left.

    Its path is short, for the sockets in it, and others may pass through, for PostgreSQL's own user.
    """
    directory = Path(tempfile.mkdtemp(prefix="pl", dir="/tmp"))
    directory.chmod(0o711)
    return directory


def start_demo(*words: str, out: Path, temp: Path) -> subprocess.Popen[str]:
    """Start ``perflab demo --json`` in a group of its own, with a temporary directory of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "perflab", "demo", "--json", "--out", str(out), *words],
        env={**os.environ, "TMPDIR": str(temp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def play_demo(*words: str, out: Path, temp: Path | None = None) -> Played:
    """Run ``perflab demo --json`` to its end and fail if it leaves anything."""
    temp = temp or own_temp()
    demo = start_demo(*words, out=out, temp=temp)
    try:
        stdout, stderr = demo.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, signal.SIGKILL)
        _, stderr = demo.communicate()
        pytest.fail(f"the demo did not end in {LONGEST_S} s; it said:\n{stderr}")
    assert leftovers(temp) == [], "the demo left this behind"
    temp.rmdir()
    lines = stdout.strip().splitlines()
    told = json.loads(lines[-1]) if lines else {}
    return Played(demo.returncode, told, stderr, out)


def leftovers(temp: Path, patience_s: float = 10.0) -> list[str]:
    """Return what a demo left: files in its temporary directory and processes, after some patience."""
    deadline = time.monotonic() + patience_s
    while (left := _left(temp)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _left(temp: Path) -> list[str]:
    found = [str(path) for path in temp.iterdir()]
    wanted = f"TMPDIR={temp}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{folder.name}: {command}")
        except OSError:
            continue
    return found


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., Played]:
    """Return a function that plays the demo, in a place of its own."""

    def play(*words: str) -> Played:
        return play_demo(*words, out=tmp_path / "out")

    return play


@pytest.fixture(scope="session")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the demo as it is, once for all tests that look at what it made."""
    return play_demo("--for", "12s", out=tmp_path_factory.mktemp("natural"))
