"""The Makefile's promises that need no installation: help, the interpreter it picks, what it refuses."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Path:
    """Return a folder with the Makefile and what it depends on, and no virtual environment."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def test_help_names_every_target(root: Path):
    """``make`` alone lists the targets the README speaks of."""
    done = _make(root)
    assert done.returncode == 0
    for target in ("demo", "lab", "test", "check", "build", "clean"):
        assert re.search(rf"make {target}\s+\w", done.stdout), target


def test_an_old_interpreter_is_refused(checkout: Path):
    """An interpreter older than 3.11 is told, with what to do, before anything is written."""
    # Given an interpreter that says it is 3.9
    old = _interpreter(checkout, "old", fits=False)
    # When a demo is asked for with it
    done = _make(checkout, "demo", f"PYTHON={old}")
    # Then make stops with the version found and the way out
    assert done.returncode == 2
    assert "needs Python 3.11 or newer; found: Python 3.9.0" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_newer_interpreter_than_python3_is_found(checkout: Path):
    """Where python3 is too old, python3.12 on PATH makes the environment."""
    # Given an old python3 and a fitting python3.12, first on PATH
    _interpreter(checkout, "python3", fits=False)
    _interpreter(checkout, "python3.12", fits=True)
    # When the environment is made
    done = _make(checkout, ".venv/.installed", PATH=f"{checkout / 'bin'}:{os.environ['PATH']}")
    # Then python3.12 was asked to make it
    assert "making .venv with Python 3.12.0" in done.stdout
    assert (checkout / "asked").read_text(encoding="utf-8").splitlines() == ["-m venv --clear .venv"]


def test_what_is_installed_is_not_installed_again(checkout: Path):
    """A stamp newer than the lock and pyproject.toml leaves nothing to do; an older one does."""
    # Given an environment installed after the lock was written
    stamp = checkout / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    # When it is asked for, then again after the lock changed
    first = _make(checkout, "-q", ".venv/.installed")
    os.utime(stamp, (0, 0))
    second = _make(checkout, "-q", ".venv/.installed")
    # Then only the second has work
    assert (first.returncode, second.returncode) == (0, 1)


def test_an_interrupt_reaches_the_demo_and_make_waits_for_it(checkout: Path):
    """After Ctrl-C make returns when the demo has cleaned up, not before."""
    # Given an installed demo that takes a while to clean up
    program = checkout / ".venv" / "bin" / "perflab"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"""#!/bin/sh
trap 'sleep 0.3; echo "$*" > "{checkout / "cleaned"}"; exit 130' INT
echo running
while :; do sleep 0.05; done
""",
        encoding="utf-8",
    )
    program.chmod(0o755)
    (checkout / ".venv" / ".installed").touch()
    command = ["make", "-C", checkout, "-s", "--no-print-directory", "demo", "ARGS=--for 10s"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as make:
        try:
            assert make.stdout is not None
            assert make.stdout.readline() == "running\n"
            # When the terminal interrupts its foreground group
            os.killpg(make.pid, signal.SIGINT)
            make.wait(30)
        finally:
            if make.poll() is None:
                os.killpg(make.pid, signal.SIGKILL)
    # Then the demo was told, with the arguments it was given, and had finished
    assert make.returncode != 0
    assert (checkout / "cleaned").read_text(encoding="utf-8") == "demo --for 10s\n"


def _interpreter(checkout: Path, name: str, *, fits: bool) -> Path:
    """Write a stand-in that answers the version check and notes what else it was asked."""
    path = checkout / "bin" / name
    version = "3.12.0" if fits else "3.9.0"
    path.write_text(
        f"""#!/bin/sh
case "$1" in
    -c) exit {0 if fits else 1} ;;
    --version) echo "Python {version}" ;;
    *) echo "$@" >> "{checkout / "asked"}"; exit 1 ;;
esac
""",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def _make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "-C", folder, *words],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
