"""Groups of services: they start together, their deaths are told, and they end with all their children."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from perflab.demo.processes import ServiceError, ServiceGroup, ServiceProcess
from perflab.demo.scratch import ScratchDirectory
from perflab.demo.spawn import free_port, port_is_free, start_ticks, wait_until


def server(name: str, port: int, directory: Path) -> ServiceProcess:
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    return ServiceProcess(name, argv, {}, directory / f"{name}.log", f"http://127.0.0.1:{port}/")


def program(name: str, text: str, directory: Path, health_url: str | None = None) -> ServiceProcess:
    return ServiceProcess(name, [sys.executable, "-c", text], {}, directory / f"{name}.log", health_url)


def ended(pid: int) -> bool:
    return start_ticks(pid) is None or b"State:\tZ" in Path(f"/proc/{pid}/status").read_bytes()


def test_services_start_and_stop_together(scratch: ScratchDirectory) -> None:
    """Two servers are healthy after the start; after the stop their processes and ports are free."""
    # Given
    ports = [free_port(), free_port()]
    services = [server(f"server-{port}", port, scratch.path) for port in ports]

    # When
    with ServiceGroup(services, scratch.path) as group:
        pids = list(group.pids.values())
        dead = group.dead()
        taken = [not port_is_free(port) for port in ports]

    # Then
    assert dead == []
    assert taken == [True, True]
    assert all(ended(pid) for pid in pids)
    assert all(port_is_free(port) for port in ports)
    group.stop()


def test_an_early_exit_names_service_status_and_log(scratch: ScratchDirectory) -> None:
    """A service that ends at its start stops the whole group, with its last words in the message."""
    # Given
    port = free_port()
    broken = program("broken", "print('no such table: prices'); raise SystemExit(7)", scratch.path)
    group = ServiceGroup([server("sound", port, scratch.path), broken], scratch.path)

    # When
    with pytest.raises(ServiceError) as caught:
        group.start()

    # Then
    assert "broken ended with status 7" in str(caught.value)
    assert str(scratch.path / "broken.log") in str(caught.value)
    assert "no such table: prices" in str(caught.value)
    assert group.pids == {}
    assert port_is_free(port)


def test_a_program_that_is_not_there_is_told(scratch: ScratchDirectory) -> None:
    """A command that cannot be started is an early exit whose log says so."""
    # Given
    service = ServiceProcess(
        "ghost", ["/no/such/program"], {}, scratch.path / "ghost.log", "http://127.0.0.1:1/"
    )

    # When / Then
    with pytest.raises(ServiceError, match="cannot start /no/such/program: No such file"):
        ServiceGroup([service], scratch.path).start()


def test_a_service_that_never_gets_healthy_is_told(scratch: ScratchDirectory) -> None:
    """After the deadline the message names the service that did not answer, and nothing runs on."""
    # Given
    url = f"http://127.0.0.1:{free_port()}/"
    group = ServiceGroup([program("mute", "import time; time.sleep(600)", scratch.path, url)], scratch.path)

    # When
    began = time.monotonic()
    with pytest.raises(ServiceError, match="not healthy in time:\nmute"):
        group.start(deadline_s=0.5)

    # Then
    assert time.monotonic() - began < 5
    assert group.pids == {}


def test_a_death_during_the_run_is_listed(scratch: ScratchDirectory) -> None:
    """A service killed from outside is listed with the signal; the other is not."""
    # Given
    services = [server(name, free_port(), scratch.path) for name in ("one", "two")]
    with ServiceGroup(services, scratch.path) as group:
        # When
        os.kill(group.pids["two"], signal.SIGKILL)
        assert wait_until(lambda: bool(group.dead()), 5)
        dead = group.dead()

    # Then
    assert [(one.name, one.status) for one in dead] == [("two", -signal.SIGKILL)]
    assert "two ended with signal 9" in str(dead[0])


def test_the_stubborn_and_their_children_end_too(scratch: ScratchDirectory) -> None:
    """A service deaf to SIGTERM, and the child it started, are killed when the grace is over."""
    # Given
    text = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(scratch.path)!r}, 'child').write_text(str(child.pid) + '.')\n"
        "time.sleep(600)\n"
    )
    group = ServiceGroup([program("deaf", text, scratch.path)], scratch.path)
    group.start()
    told = scratch.path / "child"
    assert wait_until(lambda: told.exists() and told.read_text().endswith("."), 10)
    pids = [group.pids["deaf"], int(told.read_text().rstrip("."))]

    # When
    group.stop(grace_s=0.3)

    # Then
    assert wait_until(lambda: all(ended(pid) for pid in pids), 5)
