"""A production MariaDB, its shadow, and an attached process that works on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
from attached_service import Service
from isolation.mariadb_oracle import APP, EMPTIED, ROLE, SCHEMA, SHADOW, SHOP, MariaOracle
from isolation.mariadb_scripts import play_mariadb
from mariadb_server import MariaServer
from two_sides import KEY, TestRun

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.demo.scratch import ScratchDirectory, scratch_directory
from perflab.shadow.control import ControlPublisher
from perflab.shadow.prepare.mariadb import prepare_mariadb

LIVES_S = 6 * 3600
_MEMORY, _ENOUGH_BYTES = Path("/dev/shm"), 4 << 30
MADE = "^[a-z]+_[0-9]+$"
_SETTINGS: dict[str, str | None] = {
    "log-bin-trust-function-creators": "ON",
    "max-binlog-size": "64M",
    "sync-frm": "OFF",  # nothing here has to survive a loss of power
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "OFF",
    "innodb-stats-auto-recalc": "OFF",
}


@dataclass
class MariaStage:
    """Where everything is; ``login`` is what the service is configured with."""

    login: dict[str, Any]
    target: Target
    publisher: ControlPublisher
    oracle: MariaOracle
    service: Service
    session: pymysql.Connection[Any]
    server: MariaServer
    shadow: MariaServer
    vias = ("pymysql", "sqlalchemy-queue", "sqlalchemy-null")
    via = "pymysql"
    """The way that connects anew each time."""

    def begin_run(self) -> TestRun:
        """Make a run live."""
        return TestRun(self.publisher, int(time.time()) + LIVES_S)

    def in_shadow(self, text: str) -> list[tuple[Any, ...]]:
        """Ask the shadow database, as superuser, past the agent."""
        try:
            self.session.ping(reconnect=False)
        except pymysql.MySQLError:  # the server was stopped meanwhile
            self.session.connect()
        with self.session.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    def work(
        self, mark: dict[str, Any] | None, via: str = "sqlalchemy-queue", **script: Any
    ) -> dict[str, Any]:
        """Have the service insert a row, or do what ``kinds`` say, and tell what became of it."""
        told = {
            "mark": mark, "via": via, "where": "here", "kinds": ["insert"], "ending": "commit",
            "savepoints": False, "number": 1, "times": 1, **script,
        }  # fmt: skip
        answer: dict[str, Any] = self.service.call(play_mariadb, [told], self.login, "shadow")
        self.oracle.own.update(answer["own"])
        return answer

    def end_shadow_sessions(self) -> None:
        """End every session of the shadow's login."""
        self.in_shadow(f"KILL USER {ROLE}")

    def clear_shadow(self) -> None:
        """Drop what marked work made in the shadow, so that it does not grow without end."""
        for _, length, _, name in self.in_shadow("XA RECOVER"):
            self.in_shadow(f"XA ROLLBACK '{name[:length]}'")
        of_kind = "IF(table_type = 'BASE TABLE', 'TABLE', table_type)"
        tables = "information_schema.tables"
        for what in (
            f"{of_kind}, table_name FROM {tables} WHERE table_schema = '{SHADOW}' AND table_name",
            f"type, name FROM mysql.proc WHERE db = '{SHADOW}' AND name",
            f"'EVENT', name FROM mysql.event WHERE db = '{SHADOW}' AND name",
        ):
            for kind, name in self.in_shadow(f"SELECT {what} REGEXP '{MADE}'"):
                self.in_shadow(f"DROP {kind} IF EXISTS {name}")
        for table in (*EMPTIED, "apart"):
            if table != "scratch":
                self.in_shadow(f"TRUNCATE {table}")
        self.in_shadow("CREATE OR REPLACE TABLE scratch (note varchar(200))")
        self.in_shadow("INSERT IGNORE INTO stock SELECT seq, 10 FROM seq_0_to_49")


@contextmanager
def maria_stage(*, apart: bool = False) -> Iterator[MariaStage]:
    """Set the stage up, in memory where there is enough: MariaDB's DDL waits for the disk whatever is set.

    Parameters
    ----------
    apart : bool
        The shadow is on a server of its own, which can be stopped.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(_room()).path
        server = stack.enter_context(MariaServer(directory / "mariadb", settings=_SETTINGS))
        _make_production(server)
        shadow = server
        if apart:
            shadow = stack.enter_context(MariaServer(directory / "shadow", settings=_SETTINGS))
        elsewhere = {"shadow_admin_url": shadow.admin_url} if apart else {}
        prepare_mariadb(server.admin_url, SHOP, SHADOW, ROLE, "secret", 60, **elsewhere)
        target = _target(directory, server, shadow)
        oracle = MariaOracle(server.connect())
        stack.callback(oracle.close)
        session = stack.enter_context(shadow.connect(SHADOW))
        with session.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 30")
        publisher = stack.enter_context(ControlPublisher(Path(target.control), KEY.encode()))
        environment = attached_environment(target, "soak")
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])
        service = stack.enter_context(Service(environment))
        login = {"host": "127.0.0.1", "port": server.port, "user": APP, "password": "secret",
                 "database": SHOP, "victim": oracle.session_id, "directory": str(directory)}  # fmt: skip
        yield MariaStage(login, target, publisher, oracle, service, session, server, shadow)


def _room() -> ScratchDirectory:
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES:
        return ScratchDirectory(_MEMORY)
    return scratch_directory()


def _make_production(server: MariaServer) -> None:
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {SHOP}")
        cursor.execute(f"CREATE USER {APP}@'%' IDENTIFIED BY 'secret'")
        cursor.execute(f"GRANT ALL ON `{SHOP.replace('_', chr(92) + '_')}`.* TO {APP}@'%'")
    with pymysql.connect(
        host="127.0.0.1", port=server.port, user=APP, password="secret", database=SHOP, autocommit=True
    ) as session, session.cursor() as cursor:  # fmt: skip
        for statement in SCHEMA.strip().removesuffix(";").split(";\n"):
            cursor.execute(statement)


def _target(directory: Path, server: MariaServer, shadow: MariaServer) -> Target:
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
                "mariadb",
                f"mariadb://127.0.0.1:{server.port}/{SHOP}",
                secret("login", shadow.url(SHADOW, ROLE, "secret")),
            ),
        ),
    )
