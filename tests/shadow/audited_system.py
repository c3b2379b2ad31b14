"""A production with its shadows, and an application that claims what it writes, for tests of the audit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis

from perflab.config import Store
from perflab.shadow.audit import Audit

RUN = "run-7"
TRACE_ID = "0123456789abcdef0123456789abcdef"
CANARY = f"plc-{RUN}-{TRACE_ID}"
PREFIX = "perflab:shadow:"
TABLES = """
CREATE TABLE orders (id serial PRIMARY KEY, note text);
CREATE TABLE stock (id int PRIMARY KEY, left_over int);
INSERT INTO stock SELECT n, 1000 FROM generate_series(1, 10) n;
"""


@dataclass
class Application:
    """An unmarked application that claims what it writes, as an agent does for it."""

    url: str
    redis_url: str
    claims: list[dict[str, Any]] = field(default_factory=list)

    def transaction(
        self, session: psycopg.Connection[Any], statements: str, *rows: tuple[str, str, int]
    ) -> None:
        """Run statements in a transaction and claim the rows."""
        begin_ns = time.time_ns()
        with session.transaction():
            session.execute(statements)
        self.claim("shop", json.dumps(sorted(rows)), begin_ns)

    def order(self, session: psycopg.Connection[Any]) -> None:
        """Place an order: two tables in one transaction."""
        statements = "INSERT INTO orders (note) VALUES ('real'); UPDATE stock SET left_over = 9 WHERE id = 1"
        self.transaction(session, statements, ("orders", "insert", 1), ("stock", "update", 1))

    def command(self, client: redis.Redis, *words: Any, key: str) -> None:
        """Run a Redis command and claim its key."""
        begin_ns = time.time_ns()
        client.execute_command(*words)
        self.claim("cache", key, begin_ns)

    def claim(self, store: str, fingerprint: str, begin_ns: int) -> None:
        """Note a write."""
        self.claims.append(
            {"store": store, "fingerprint": fingerprint, "begin_ns": begin_ns, "end_ns": time.time_ns()}
        )


@dataclass
class System:
    """Production and its shadows, as a target describes them."""

    stores: tuple[Store, Store]
    application: Application
    shadow_url: str
    shadow_redis_url: str

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Return what an agent reports of marked work that went where it should."""
        database = self.shadow_url.rpartition("/")[2]
        return [
            {"store": "shop", "user": database, "database": database, "shadow": True, "marked_calls": 3},
            {"store": "cache", "user": "audited", "database": "0", "shadow": True, "marked_calls": 2},
        ]


def poll_for(audit: Audit, count: int) -> list[Any]:
    found: list[Any] = []

    def enough() -> bool:
        found.extend(audit.poll())
        return len(found) >= count

    wait_until(enough)
    return found


def left_in_production(system: System) -> tuple[int, int]:
    """Return how many publications and slots there are in production."""
    with psycopg.connect(system.application.url) as session:
        row = session.execute(
            "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots"
            " WHERE database = current_database())"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def wait_until(holds: Callable[[], object], deadline_s: float = 10.0) -> None:
    until = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
