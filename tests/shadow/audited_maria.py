"""A MariaDB schema with its shadow beside it, for tests of the audit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mariadb_server import MariaServer

from perflab.config import Secret, Store

TABLES = (
    "CREATE TABLE {0}.orders (id int AUTO_INCREMENT PRIMARY KEY, note varchar(300), raw blob)",
    "CREATE TABLE {0}.stock (id int PRIMARY KEY, left_over int)",
    "INSERT INTO {0}.stock SELECT seq, 1000 FROM seq_1_to_10",
)


@dataclass
class MariaSystem:
    """Production, its shadow, and an application that claims what it writes."""

    store: Store
    session: Any
    shadow: Any
    claims: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Return what an agent reports of marked work that went where it should."""
        one = {"user": "keeper", "database": "market_shadow", "shadow": True, "marked_calls": 3}
        return [{"store": "market", **one}]

    def order(self) -> None:
        """Place an order of a real user: two tables in one transaction, and claim it."""
        statements = (
            "INSERT INTO orders (note) VALUES ('real')",
            "UPDATE stock SET left_over = left_over - 1 WHERE id = 1",
        )
        self.transaction(statements, [["orders", "insert", 1], ["stock", "update", 1]])

    def transaction(self, statements: tuple[str, ...], rows: list[list[Any]] | str) -> None:
        """Run statements in a transaction and claim rows, or ``"opaque"``."""
        begin_ns = time.time_ns()
        execute(self.session, "BEGIN", *statements, "COMMIT")
        written = rows if isinstance(rows, str) else json.dumps(rows)
        interval = {"begin_ns": begin_ns, "end_ns": time.time_ns()}
        self.claims.append({"store": "market", "fingerprint": written, **interval})


def make_maria(server: MariaServer, secret: Callable[[str], Secret]) -> MariaSystem:
    """Make both schemas anew, and a login that may enter the shadow only."""
    session = server.connect()
    for schema in ("market", "market_shadow"):
        execute(session, f"DROP DATABASE IF EXISTS {schema}", f"CREATE DATABASE {schema}")
        execute(session, f"USE {schema}", *(statement.format(schema) for statement in TABLES))
    execute(
        session,
        "CREATE OR REPLACE USER keeper@'127.0.0.1' IDENTIFIED BY 'kept'",
        "GRANT ALL ON market_shadow.* TO keeper@'127.0.0.1'",
        "USE market",
    )
    store = Store(
        "market",
        "mariadb",
        f"mariadb://{server.host}:{server.port}/market",
        secret(server.url("market_shadow", "keeper", "kept")),
        secret(server.admin_url),
    )
    shadow = server.connect("market_shadow")
    return MariaSystem(store, session, shadow)


def execute(session: Any, *statements: str) -> None:
    """Run statements one after the other."""
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
