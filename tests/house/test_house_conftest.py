"""The two rules of tests/conftest.py, tried on small test sessions of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NEEDY = """
import pytest

def test_asks(needs):
    needs(None, "a server that is nowhere")

@pytest.mark.skipif(True, reason="needs another one")
def test_is_marked(): ...

@pytest.mark.skipif(True, reason="not on Tuesdays")
def test_skips_for_another_reason(): ...
"""
LEAVING = """
import subprocess

def test_leaves_an_orphan():
    subprocess.run(["sh", "-c", "sleep 3600 &"], check=True)
"""
TIDY = """
import multiprocessing, subprocess

def test_waits_for_its_child():
    subprocess.run(["true"], check=True)

def test_uses_multiprocessing():
    context = multiprocessing.get_context("spawn")
    context.Lock()
"""


@pytest.fixture
def session(tmp_path: Path):
    """Run a test file with the suite's conftest.py in a session of its own."""

    def run(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
        (tmp_path / "test_inner.py").write_text(source, encoding="utf-8")
        inherited = {name: value for name, value in os.environ.items() if name != "CI"}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-ra",
                "-p",
                "no:cacheprovider",
                "--rootdir",
                tmp_path,
                tmp_path,
            ],
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_what_is_missing_is_skipped_with_its_reason(session):
    """On a user's machine a test whose server is missing is skipped, and says which."""
    done = session(NEEDY)
    assert done.returncode == 0, done.stdout
    assert "3 skipped" in done.stdout
    assert "needs a server that is nowhere" in done.stdout


def test_what_is_missing_in_ci_is_a_failure(session):
    """In CI the same tests fail; one skipped for another reason is still skipped."""
    done = session(NEEDY, CI="true")
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 skipped, 1 error" in done.stdout
    assert "in CI nothing may be missing: " in done.stdout


def test_a_process_left_behind_fails_the_session(session):
    """A forgotten process, its parent gone, is named, killed, and makes the session fail."""
    # Given a test that starts a process that outlives its parent
    # When its session ends
    done = session(LEAVING)
    # Then the closing line has an error, and the process is gone
    assert done.returncode == 1, done.stdout
    assert "1 passed, 1 error" in done.stdout
    named = [line.split(":")[0].strip() for line in done.stdout.splitlines() if "sleep 3600" in line]
    assert named
    assert not [pid for pid in named if pid.isdigit() and _is_alive(int(pid))]


def test_a_tidy_session_passes(session):
    """Children that ended, and the interpreter's own tracker, are nothing left behind."""
    done = session(TIDY)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
