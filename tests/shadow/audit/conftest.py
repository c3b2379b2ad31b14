"""Servers whose log nobody can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blind_servers import ReplicaLevelServer
from mariadb_server import MariaServer, find_mariadbd


@pytest.fixture(scope="session")
def blind_postgres(server_directory: Path) -> Iterator[ReplicaLevelServer]:
    """Start a PostgreSQL without logical decoding."""
    with ReplicaLevelServer(server_directory / "replica-level") as server:
        yield server


@pytest.fixture(scope="session")
def blind_mariadb(server_directory: Path, needs: Callable[[object, str], None]) -> Iterator[MariaServer]:
    """Start a MariaDB without a binlog; it counts rows by table."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    settings: dict[str, str | None] = {
        "log-bin": None,
        "binlog-format": None,
        "binlog-row-image": None,
        "binlog-row-metadata": None,
        "sync-binlog": None,
        "userstat": "ON",
    }
    with MariaServer(server_directory / "blind-mariadb", settings=settings) as server:
        yield server
