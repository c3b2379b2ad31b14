"""A production server and a ``perflab.toml`` that names its shadow, a Redis and a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from perflab.demo.scratch import scratch_directory
from perflab.demo.stores import PostgresServer, RedisServer
from perflab.shadow.prepare import drop_postgresql, drop_redis

SCHEMA = """
CREATE TABLE people (id serial PRIMARY KEY, email text);
CREATE TABLE visits (id serial PRIMARY KEY, person int REFERENCES people);
INSERT INTO people (email) VALUES ('ada@corp.example');
INSERT INTO visits (person) VALUES (1), (1);
"""
TOML = """
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = {{ env = "CONTROL_KEY" }}

[[targets.shop.stores]]
name = "orders"
kind = "postgresql"
production = "postgresql://127.0.0.1:{postgres}/shop"
shadow = {{ env = "SHADOW_URL" }}
audit = {{ env = "ADMIN_URL" }}
sample = {{ tables = {{ visits = 1 }}, masks = {{ "people.email" = "email" }} }}

[[targets.shop.stores]]
name = "cache"
kind = "redis"
production = "redis://127.0.0.1:{redis}/0"
shadow = {{ env = "SHADOW_REDIS" }}
prefix = "sh:"

[[targets.shop.stores]]
name = "file"
kind = "sqlite"
production = "sqlite:///{file}/shop.db"
shadow = {{ file = "sqlite.url" }}
"""


@dataclass(frozen=True)
class Site:
    """Two servers, and the environment that secrets are read from."""

    postgres: PostgresServer
    redis: RedisServer
    environment: dict[str, str]

    def databases(self) -> list[str]:
        """List what there is on the server."""
        with psycopg.connect(self.postgres.admin_dsn) as session:
            return [name for (name,) in session.execute("SELECT datname FROM pg_database ORDER BY 1")]


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[PostgresServer, RedisServer]]:
    """Start them, with a shop."""
    with (
        scratch_directory() as directory,
        PostgresServer(directory.path / "postgres") as server,
        RedisServer(directory.path / "redis") as cache,
    ):
        with psycopg.connect(server.admin_dsn, autocommit=True) as session:
            session.execute("CREATE DATABASE shop")
        with psycopg.connect(server.admin_dsn.rpartition("/")[0] + "/shop") as session:
            session.execute(SCHEMA)
        yield server, cache


@pytest.fixture
def site(
    servers: tuple[PostgresServer, RedisServer], tmp_path: Path, perflab: Callable[..., object]
) -> Iterator[Site]:
    """Write the file where ``perflab`` runs, with production in use; take shadows away afterwards."""
    del perflab  # it changes into tmp_path, where perflab.toml is looked for
    server, cache = servers
    text = TOML.format(postgres=server.port, redis=cache.port, file=tmp_path)
    (tmp_path / "perflab.toml").write_text(text, encoding="utf-8")
    (tmp_path / "sqlite.url").write_text(f"sqlite:///{tmp_path}/shadow.db", encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "shop.db")) as session:
        session.execute("CREATE TABLE t (a)")
    environment = {
        "CONTROL_KEY": "0123456789abcdef" * 4,
        "SHADOW_URL": f"postgresql://shop_shadow:a%20secret@127.0.0.1:{server.port}/shop_shadow",
        "SHADOW_REDIS": cache.url("shop_shadow", "secret"),
        "ADMIN_URL": server.admin_dsn,
        "REDIS_ADMIN": cache.admin_url,
    }
    with psycopg.connect(server.admin_dsn.rpartition("/")[0] + "/shop") as session:
        session.execute("SELECT 1")  # somebody is connected all the time
        yield Site(server, cache, environment)
    drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow")
    drop_redis(cache.admin_url, "shop_shadow", "sh:")
