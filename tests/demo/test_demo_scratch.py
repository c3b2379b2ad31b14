"""Scratch directories: private, locked while their run lives, swept with its processes when it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perflab.demo.scratch import ScratchDirectory, reachable, scratch_directory, sweep_leftovers
from perflab.demo.spawn import SCRATCH_VARIABLE, boot_id, start_ticks, wait_until

_RUN = """
import subprocess, sys, time
from pathlib import Path
from perflab.demo.scratch import scratch_directory
from perflab.demo.spawn import boot_id, start_ticks
scratch = scratch_directory()
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(scratch.path / "left.process").write_text(f"{left.pid} {start_ticks(left.pid)} {boot_id()}\\n")
print(scratch.path, left.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def run() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    owner = subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    directory, left = owner.stdout.readline().split()
    yield owner, Path(directory), int(left)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    sweep_leftovers()


def ended(pid: int) -> bool:
    return start_ticks(pid) is None or b"State:\tZ" in Path(f"/proc/{pid}/status").read_bytes()


def test_a_killed_run_is_swept(run: tuple[subprocess.Popen[str], Path, int]) -> None:
    """The directory and the recorded process of a run that died of SIGKILL are gone after a sweep."""
    # Given
    owner, directory, left = run
    assert not ended(left)
    owner.send_signal(signal.SIGKILL)
    owner.wait()

    # When
    removed = sweep_leftovers()

    # Then
    assert directory in removed
    assert not directory.exists()
    assert wait_until(lambda: ended(left), 5)


def test_a_living_run_is_left_alone(run: tuple[subprocess.Popen[str], Path, int]) -> None:
    """A run that holds its lock keeps its directory and its process."""
    # Given
    _, directory, left = run

    # When
    removed = sweep_leftovers()

    # Then
    assert directory not in removed
    assert directory.is_dir()
    assert not ended(left)


def test_only_proven_processes_are_ended(run: tuple[subprocess.Popen[str], Path, int]) -> None:
    """A process whose start time differs from the record stays; one that carries the run's variable ends."""
    # Given
    owner, directory, _ = run
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    stranger = subprocess.Popen(sleep)
    ours = subprocess.Popen(sleep, env={**os.environ, SCRATCH_VARIABLE: str(directory)})
    ticks = start_ticks(stranger.pid)
    assert ticks is not None
    (directory / "reused.process").write_text(f"{stranger.pid} {ticks - 1} {boot_id()}\n")
    (directory / "broken.process").write_text("nonsense\n")
    owner.send_signal(signal.SIGKILL)
    owner.wait()

    # When
    sweep_leftovers()

    # Then
    try:
        assert ours.wait(10) != 0
        assert stranger.poll() is None
    finally:
        for process in (stranger, ours):
            process.kill()
            process.wait()


def test_a_directory_without_a_lock_is_swept_when_old(scratch: ScratchDirectory) -> None:
    """A run killed before it held its lock leaves a directory that goes after a minute, not before."""
    # Given
    unlocked = scratch.path.parent / "perflab-demo-unlocked-test"
    unlocked.mkdir()

    # When
    early = sweep_leftovers()
    os.utime(unlocked, (0, 0))
    late = sweep_leftovers()

    # Then
    assert unlocked not in early
    assert unlocked in late
    assert scratch.path.is_dir()


def test_the_directory_is_short_private_and_closes_twice() -> None:
    """A socket's path fits, others may pass but not list, and closing again does nothing."""
    # Given
    scratch = scratch_directory()

    # When
    mode = scratch.path.stat().st_mode & 0o777
    scratch.close()
    scratch.close()

    # Then
    assert mode == 0o711
    assert len(str(scratch.path)) <= 70
    assert not scratch.path.exists()


def test_reachable_looks_at_every_step(tmp_path: Path) -> None:
    """A closed directory anywhere on the way hides what is below it."""
    # Given
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    uid = tmp_path.stat().st_uid

    # When
    outer.chmod(0o700)
    owner, other = reachable(inner / "file", uid, 65534), reachable(inner / "file", uid + 1, 65534)

    # Then
    assert owner or uid != 0  # the way to pytest's own directory belongs to the same user
    assert not other
