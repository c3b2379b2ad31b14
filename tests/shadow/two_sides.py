"""A production and a shadow side of a PostgreSQL database and of a Redis, as one would set them up."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from perflab.config import Secret, Store, Target
from perflab.demo.stores import PostgresServer, RedisServer
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.mark import RunKey, mint, new_tag
from perflab.shadow.prepare import prepare_redis

KEY = "a control key of the tests"
PREFIX = "perflab:shadow:"
SCHEMA = """
CREATE TABLE item (id serial PRIMARY KEY, note text NOT NULL, owner text DEFAULT session_user);
CREATE TABLE stock (id int PRIMARY KEY, amount int CHECK (amount >= 0));
CREATE FUNCTION add_item(text) RETURNS int LANGUAGE sql
    AS 'INSERT INTO item (note) VALUES ($1) RETURNING id';
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
"""


class TestRun:
    """A live run of one test."""

    __test__ = False

    def __init__(self, publisher: ControlPublisher, not_after_s: int) -> None:
        self._publisher = publisher
        self.tag = new_tag()
        name = f"run{self.tag}"
        self.key: RunKey = publisher.add(LiveRun(self.tag, name, name, not_after_s))

    def mark(self) -> dict[str, Any]:
        """Mint the mark of one request; the trace-id as text, since JSON has no such integers."""
        made = mint(self.key, secrets.randbits(64))
        return {"tag": self.tag, "token": made.token, "trace_id": str(made.trace_id)}

    def canary(self) -> str:
        """Return a text as marked requests carry one."""
        return f"plc-run{self.tag}-{secrets.token_hex(16)}"

    def kill(self) -> None:
        """Set the kill flag."""
        self._publisher.kill(self.tag)

    def remove(self) -> None:
        """Take the run off the list."""
        self._publisher.remove(self.tag)


@dataclass
class Sides:
    """Where both sides are; ``app`` and ``cache`` are what the service is configured with."""

    target: Target
    publisher: ControlPublisher
    postgres: PostgresServer
    redis_server: RedisServer
    app: str
    cache: str
    production_database: str
    shadow_database: str
    shadow_role: str

    @property
    def plain_environment(self) -> dict[str, str]:
        """The environment of a service without the agent."""
        return dict(os.environ)

    def begin_run(self, lasts_s: int = 600) -> TestRun:
        """Make a run live."""
        return TestRun(self.publisher, int(time.time()) + lasts_s)

    def query(self, side: str, text: str) -> list[tuple[Any, ...]]:
        """Ask the 'production' or 'shadow' database, as superuser, past the agent."""
        database = self.production_database if side == "production" else self.shadow_database
        with psycopg.connect(self.url(database), autocommit=True) as session:
            session.execute("SET lock_timeout = '20s'")  # a transaction a failed test left open
            cursor = session.execute(text)
            return cursor.fetchall() if cursor.description else []

    def notes(self, side: str) -> list[str]:
        """Return the notes of the items of a side."""
        return [note for (note,) in self.query(side, "SELECT note FROM item ORDER BY note")]

    def keys(self) -> set[str]:
        """Return all keys of the Redis."""
        with self.admin() as client:
            return {key.decode() for key in client.keys("*")}

    def admin(self) -> redis.Redis:
        """Return a client of the Redis that may do everything."""
        return redis.Redis.from_url(self.redis_server.admin_url)

    def url(self, database: str) -> str:
        """Return the superuser's URL of a database."""
        return self.postgres.admin_dsn.rpartition("/")[0] + f"/{database}"

    def empty(self) -> None:
        """Empty both sides."""
        for side in ("production", "shadow"):
            self.query(side, "TRUNCATE item, stock, parent, child")
        with self.admin() as client:
            client.flushall()


@contextmanager
def two_sides(postgres: PostgresServer, redis_server: RedisServer, directory: Path) -> Iterator[Sides]:
    """Set both sides up and publish the list of live runs while they are in use."""
    shop, shadow, app, role = "both_shop", "both_shadow", "both_app", "both_role"
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as session:
        for name, owner in ((shop, app), (shadow, role)):
            session.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'")
            session.execute(f"CREATE DATABASE {name} OWNER {owner}")
            session.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    for name, owner in ((shop, app), (shadow, role)):
        with psycopg.connect(postgres.dsn(name, owner, "secret")) as session:
            session.execute(SCHEMA)
    prepare_redis(redis_server.admin_url, "both_shadow", "secret", PREFIX)
    written = {
        "control_key": KEY,
        "postgres": postgres.dsn(shadow, role, "secret"),
        "redis": redis_server.url("both_shadow", "secret"),
    }
    for name, text in written.items():
        (directory / name).write_text(text)
    secret = {name: Secret(file=str(directory / name)) for name in written}
    target = Target(
        addresses=("127.0.0.1:9",),
        control=str(directory / "control.json"),
        control_key=secret["control_key"],
        collector="127.0.0.1:9",
        sample_ratio=1.0,
        stores=(
            Store(
                "orders",
                "postgresql",
                f"postgresql://127.0.0.1:{postgres.port}/{shop}",
                secret["postgres"],
            ),
            Store(
                "cache", "redis", f"redis://127.0.0.1:{redis_server.port}/0", secret["redis"], None, PREFIX
            ),
        ),
    )
    with ControlPublisher(directory / "control.json", KEY.encode()) as publisher:
        yield Sides(
            target,
            publisher,
            postgres,
            redis_server,
            postgres.dsn(shop, app, "secret"),
            redis_server.admin_url,
            shop,
            shadow,
            role,
        )
