"""A production PostgreSQL, its shadow, and an attached process that works on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from attached_service import Service
from isolation import scripts
from isolation.postgresql_oracle import SCHEMA, PostgresOracle
from two_sides import KEY, TestRun

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.demo.stores import PostgresServer
from perflab.shadow.control import ControlPublisher
from perflab.shadow.prepare import prepare_postgresql

LIVES_S = 6 * 3600
MADE = "'^(table|copied|like|gone|made|view|sequence)_[0-9]+$'"


@dataclass
class PostgresStage:
    """Where everything is; ``url`` is what the service is configured with."""

    production: PostgresServer
    shadow: PostgresServer
    url: str
    target: Target
    publisher: ControlPublisher
    oracle: PostgresOracle
    service: Service
    vias = (*scripts.SYNC, *scripts.ASYNC)
    via = "psycopg"
    """The way that connects anew each time."""

    def begin_run(self) -> TestRun:
        """Make a run live."""
        return TestRun(self.publisher, int(time.time()) + LIVES_S)

    def in_shadow(self, text: str) -> list[Any]:
        """Ask the shadow database, as superuser, past the agent."""
        return _ask(self.shadow, "soak_shadow", text)

    def work(self, mark: dict[str, Any] | None, via: str = "psycopg-pool", **script: Any) -> dict[str, Any]:
        """Have the service insert a row, or do what ``kinds`` say, and tell what became of it."""
        told = {
            "mark": mark, "via": via, "where": "task" if via in scripts.ASYNC else "here",
            "kinds": ["insert"], "ending": "commit", "savepoints": False, "number": 1, "times": 1, **script,
        }  # fmt: skip
        answer: dict[str, Any] = self.service.call(scripts.play, [told], self.url, "shadow")
        self.oracle.own.update(map(int, answer["own"]))
        return answer

    def end_shadow_sessions(self) -> None:
        """End every session of the shadow's login."""
        self.in_shadow("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'soak_role'")

    def clear_shadow(self) -> None:
        """Drop what marked work made in the shadow, so that it does not grow without end."""
        with _session(self.shadow, "soak_shadow") as session:
            for (what,) in _said(
                session,
                "SELECT CASE relkind WHEN 'v' THEN 'VIEW ' WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END"
                f" || relname FROM pg_class WHERE relname ~ {MADE}"
                f" UNION ALL SELECT 'FUNCTION ' || proname || '()' FROM pg_proc WHERE proname ~ {MADE}",
            ):
                _said(session, f"DROP {what} CASCADE")
            for text in _CLEARED:
                _said(session, text)


_CLEARED = (
    "TRUNCATE item, watched, ruled, parts",
    "DROP TABLE scratch",
    "CREATE TABLE scratch (note text)",
    "ALTER TABLE scratch OWNER TO soak_role",
    "INSERT INTO stock SELECT n, 10 FROM generate_series(0, 49) n ON CONFLICT DO NOTHING",
    "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    "SELECT lo_from_bytea(4242, 'shadow')",
    "ALTER LARGE OBJECT 4242 OWNER TO soak_role",
)


@contextmanager
def postgres_stage(
    directory: Path, *, apart: bool = False, disabled: tuple[str, ...] = ()
) -> Iterator[PostgresStage]:
    """Set the stage up.

    Parameters
    ----------
    directory : Path
        One that others may pass through.
    apart : bool
        The shadow is on a server of its own, which can be stopped.
    disabled : tuple of str
        Hooks the agent leaves out.
    """
    with ExitStack() as stack:
        production = stack.enter_context(PostgresServer(directory / "production"))
        shadow = stack.enter_context(PostgresServer(directory / "shadow")) if apart else production
        url = _make_production(production)
        if apart:
            _make_shadow_apart(shadow)
        else:
            prepare_postgresql(production.admin_dsn, "soak_shop", "soak_shadow", "soak_role", "secret", 60)
        target = _target(directory, production, shadow)
        oracle = PostgresOracle(production.admin_dsn.rpartition("/")[0] + "/soak_shop", "soak_role")
        publisher = stack.enter_context(ControlPublisher(Path(target.control), KEY.encode()))
        stack.callback(oracle.close)
        service = stack.enter_context(Service(attached_environment(target, "soak", disabled=disabled)))
        yield PostgresStage(production, shadow, url, target, publisher, oracle, service)


def _make_production(server: PostgresServer) -> str:
    with psycopg.connect(server.admin_dsn, autocommit=True) as session:
        session.execute("CREATE ROLE soak_app LOGIN PASSWORD 'secret'")
        session.execute("CREATE DATABASE soak_shop OWNER soak_app")
    url = server.dsn("soak_shop", "soak_app", "secret")
    with psycopg.connect(url) as session:
        session.execute(SCHEMA)
    return url


def _make_shadow_apart(server: PostgresServer) -> None:
    with psycopg.connect(server.admin_dsn, autocommit=True) as session:
        session.execute("CREATE ROLE soak_role LOGIN PASSWORD 'secret'")
        session.execute("CREATE DATABASE soak_shadow OWNER soak_role")
    with psycopg.connect(server.dsn("soak_shadow", "soak_role", "secret")) as session:
        session.execute(SCHEMA)


def _target(directory: Path, production: PostgresServer, shadow: PostgresServer) -> Target:
    def secret(name: str, text: str) -> Secret:
        (directory / name).write_text(text)
        return Secret(file=str(directory / name))

    return Target(
        addresses=("127.0.0.1:9",),
        control=str(directory / "control.json"),
        control_key=secret("key", KEY),
        collector="127.0.0.1:9",
        stores=(
            Store(
                "shop",
                "postgresql",
                f"postgresql://127.0.0.1:{production.port}/soak_shop",
                secret("login", shadow.dsn("soak_shadow", "soak_role", "secret")),
            ),
        ),
    )


def _ask(server: PostgresServer, database: str, text: str) -> list[Any]:
    with _session(server, database) as session:
        return _said(session, text)


def _session(server: PostgresServer, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(server.admin_dsn.rpartition("/")[0] + f"/{database}", autocommit=True)


def _said(session: psycopg.Connection[Any], text: str) -> list[Any]:
    cursor = session.execute(text)  # type: ignore[call-overload]  # a text of the test's own
    return cursor.fetchall() if cursor.description else []
