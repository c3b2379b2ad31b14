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


def start_demo(*words: str, out: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start ``perflab demo --json`` in a group of its own."""
    command = [*prefix, sys.executable, "-m", "perflab", "demo", "--json", "--out", str(out), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def play_demo(*words: str, out: Path) -> Played:
    """Run ``perflab demo --json`` to its end."""
    demo = start_demo(*words, out=out)
    try:
        stdout, stderr = demo.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(demo.pid, signal.SIGKILL)
        _, stderr = demo.communicate()
        pytest.fail(f"the demo did not end in {LONGEST_S} s; it said:\n{stderr}")
    lines = stdout.strip().splitlines()
    told = json.loads(lines[-1]) if lines else {}
    return Played(demo.returncode, told, stderr, out)


def leftovers() -> list[str]:
    """Return what demos left on this machine: processes and scratch directories."""
    found = [str(path) for path in Path(tempfile.gettempdir()).glob("perflab-demo-*")]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if b"PERFLAB_DEMO_SCRATCH=" in environment or b"PERFLAB_AGENT=" in environment:
            found.append(f"{folder.name}: {command}")
    return found


def wait_for_none(seconds: float = 10.0) -> list[str]:
    """Wait until nothing is left and return what still is."""
    deadline = time.monotonic() + seconds
    while (left := leftovers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., Played]:
    """Return a function that plays the demo and fails if it left anything."""

    def play(*words: str) -> Played:
        played = play_demo(*words, out=tmp_path / "out")
        assert wait_for_none() == [], "the demo left this behind"
        return played

    return play


@pytest.fixture(scope="session")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the demo as it is, once for all tests that look at what it made."""
    played = play_demo("--for", "12s", out=tmp_path_factory.mktemp("natural"))
    assert wait_for_none() == [], "the demo left this behind"
    return played
