"""Two versions of SQLAlchemy, each in an attached process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from attached_service import Service
from two_sides import Sides

from perflab.cli.attach import attached_environment

OLDER = "2.0.58"


@pytest.fixture(scope="session", params=["2.1", "2.0"])
def version(request: pytest.FixtureRequest, needs: Callable[[object, str], None]) -> str:
    """Return where this SQLAlchemy is, beside aiosqlite: ``""`` or a directory for PYTHONPATH."""
    packages = ["aiosqlite==0.21.0", *([f"sqlalchemy=={OLDER}"] if request.param == "2.0" else [])]
    name = "-".join(["cp", *map(str, sys.version_info[:2]), *packages])
    directory = request.config.cache.mkdir(name.replace("==", "-"))
    if not (directory / "installed").exists():
        needs(importlib.util.find_spec("pip"), "pip")
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--upgrade",
            "--target",
            directory,
        ]
        needs(subprocess.run([*install, *packages], check=False).returncode == 0, " and ".join(packages))
        (directory / "installed").touch()
    return str(directory)


@pytest.fixture(scope="session")
def engines(version: str, sides: Sides) -> Iterator[Service]:
    """Start a process with the agent and one of the versions of SQLAlchemy."""
    environment = attached_environment(sides.target, "shop")
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], version])
    with Service(environment) as started:
        yield started
