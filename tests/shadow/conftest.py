"""Real servers for the tests of the shadow room, one of each per session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from perflab.config import Secret
from perflab.demo.scratch import scratch_directory
from perflab.demo.stores import PostgresServer, RedisServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Make a directory another user can pass through: PostgreSQL does not run as root."""
    with scratch_directory() as directory:
        yield directory.path


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[PostgresServer]:
    """Start a PostgreSQL with logical decoding."""
    with PostgresServer(server_directory / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(server_directory: Path) -> Iterator[RedisServer]:
    """Start a Redis with the superuser ``admin``."""
    with RedisServer(server_directory / "redis") as server:
        yield server


@pytest.fixture
def make_database(postgres: PostgresServer) -> Callable[[str], str]:
    """``make_database(statements)`` makes a fresh database and returns the superuser's URL of it."""

    def make(statements: str) -> str:
        name = f"shop{next(_numbers)}"
        with psycopg.connect(postgres.admin_dsn, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name}")
        url = postgres.admin_dsn.rpartition("/")[0] + f"/{name}"
        with psycopg.connect(url) as session:
            session.execute(statements)
        return url

    return make


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Secret]:
    """``secret(text)`` writes a secret to a file and returns the reference to it."""

    def write(text: str) -> Secret:
        path = tmp_path / f"secret{next(_numbers)}"
        path.write_text(text)
        return Secret(file=str(path))

    return write
