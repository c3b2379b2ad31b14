"""Start a group of services together, watch them, and end every one of them.

Each service is a process in a session of its own, so that its children end with it, and gets a
SIGKILL from the kernel should this process die first (see `perflab.demo.spawn`).
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .scratch import ScratchDirectory, scratch_directory, sweep_leftovers
from .spawn import SCRATCH_VARIABLE, end_child, has_ended, last_lines, start_child

__all__ = [
    "DeadService",
    "ScratchDirectory",
    "ServiceError",
    "ServiceGroup",
    "ServiceProcess",
    "scratch_directory",
    "sweep_leftovers",
]


class ServiceError(RuntimeError):
    """A service ended at its start or did not become healthy; the message has its log's path and end."""


@dataclass(frozen=True)
class ServiceProcess:
    """One service to start.

    Attributes
    ----------
    name
        What it is called.
    argv
        Its command.
    env
        Variables added to our environment.
    log_path
        Where its output goes.
    health_url
        An address that answers 200 once it is ready; a service without one is ready when started.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log_path: Path
    health_url: str | None = None


@dataclass(frozen=True)
class DeadService:
    """A service that ended by itself: its name, its exit status (negative: the signal), its log."""

    name: str
    status: int
    log_path: Path

    def __str__(self) -> str:
        how = f"signal {-self.status}" if self.status < 0 else f"status {self.status}"
        return f"{self.name} ended with {how}; its log {self.log_path} ends:\n{last_lines(self.log_path)}"


class ServiceGroup:
    """Services that start and stop together.

    Parameters
    ----------
    services
        What to start.
    directory
        The run's scratch directory: process records are kept there, by which a later run can clean
        up after this one.
    """

    def __init__(self, services: Sequence[ServiceProcess], directory: Path) -> None:
        self.services = tuple(services)
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each started service."""
        return {name: child.pid for name, child in self._children.items()}

    def start(self, deadline_s: float = 45.0) -> None:
        """Start all at once and wait until each is healthy; on any failure stop all.

        Raises
        ------
        ServiceError
            A service ended, or was not healthy before the deadline.
        """
        until = time.monotonic() + deadline_s
        environment = {**os.environ, SCRATCH_VARIABLE: str(self._directory)}
        if not _libraries_have_bytecode():
            # or every service would compile the same libraries for itself: 8 s instead of 3
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            environment["PYTHONPYCACHEPREFIX"] = str(self._directory / "bytecode")
        try:
            for service in self.services:
                service.log_path.parent.mkdir(parents=True, exist_ok=True)
                self._children[service.name] = start_child(
                    service.argv,
                    log_path=service.log_path,
                    env={**environment, **service.env},
                    record=self._directory / f"{service.name}.process",
                )
            self._wait_for_health(until)
        except BaseException:
            self.stop(grace_s=1.0)
            raise

    def dead(self) -> list[DeadService]:
        """List the services that ended without being asked to."""
        return [
            DeadService(service.name, _status(child), service.log_path)
            for service in self.services
            if (child := self._children.get(service.name)) is not None and has_ended(child)
        ]

    def stop(self, grace_s: float = 5.0) -> None:
        """End all: SIGTERM to each, SIGKILL after the grace; again does nothing."""
        children, self._children = self._children, {}
        for child in children.values():
            if not has_ended(child):
                os.killpg(child.pid, signal.SIGTERM)
        until = time.monotonic() + grace_s
        for child in children.values():
            end_child(child, (signal.SIGTERM, max(0.0, until - time.monotonic())))

    def __enter__(self) -> ServiceGroup:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_for_health(self, until: float) -> None:
        waiting = [service for service in self.services if service.health_url is not None]
        while True:
            if dead := self.dead():
                raise ServiceError("a service ended at its start:\n" + "\n".join(map(str, dead)))
            waiting = [service for service in waiting if not _healthy(service.health_url or "")]
            if not waiting:
                return
            if time.monotonic() > until:
                stuck = "\n".join(
                    f"{service.name} ({service.health_url}); its log {service.log_path} ends:\n"
                    f"{last_lines(service.log_path)}"
                    for service in waiting
                )
                raise ServiceError(f"not healthy in time:\n{stuck}")
            time.sleep(0.05)


def _libraries_have_bytecode() -> bool:
    spec = importlib.util.find_spec("sqlalchemy")
    return spec is None or spec.cached is None or Path(spec.cached).exists()


def _healthy(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _status(child: subprocess.Popen[bytes]) -> int:
    """Read the status of an ended child without reaping it, which keeps its process group ours."""
    if child.returncode is not None:
        return child.returncode
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return 0
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
