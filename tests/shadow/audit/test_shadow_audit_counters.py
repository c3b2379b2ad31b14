"""What remains without a log, on real servers: counters and new rows, and never the word "proven"."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
from audited_maria import execute, make_maria
from audited_system import CANARY, RUN, TRACE_ID, poll_for
from blind_servers import ReplicaLevelServer
from mariadb_server import MariaServer

from perflab.config import Secret, Store
from perflab.demo.stores import PostgresServer
from perflab.shadow.audit import Audit

TABLES = """
CREATE TABLE orders (id serial PRIMARY KEY, note text, raw bytea);
CREATE TABLE stock (id int PRIMARY KEY, left_over int);
INSERT INTO stock SELECT n, 1000 FROM generate_series(1, 10) n;
"""
SESSIONS = [{"store": "shop", "user": "keeper", "database": "kept", "shadow": True, "marked_calls": 3}]


def test_postgresql_without_logical_decoding(
    blind_postgres: ReplicaLevelServer, secret: Callable[[str], Secret]
) -> None:
    """Claimed rows are attributed, others are not, a canary in a new row is found; it is not proven."""
    # Given
    store, url = make_shop(blind_postgres, secret, blind_postgres.admin_dsn)
    claims = []
    with Audit([store], RUN) as audit, psycopg.connect(url, autocommit=True) as session:
        audit.start()

        # When
        for number in range(3):
            session.execute("INSERT INTO orders (note) VALUES ('real')")
            claims.append(claim([["orders", "insert", 1]]))
            session.execute("UPDATE stock SET left_over = %s WHERE id < 3", (number,))
            claims.append(claim([["stock", "update", 2]]))
        session.execute("DELETE FROM stock WHERE id = 9")
        claims.append(claim("opaque"))
        assert audit.poll() == []
        session.execute("INSERT INTO orders (raw) VALUES (%s)", (CANARY.encode(),))
        (leak,) = poll_for(audit, 1)
        session.execute("SELECT pg_stat_force_next_flush()")
        proof = audit.finish(claims, SESSIONS, 1)

    # Then
    (row,) = proof["stores"]
    assert not row["proven"]
    assert (leak.where, leak.trace_id, leak.what) == ("orders", TRACE_ID, "insert")
    assert leak.position == "id = 4"
    assert row["canaries"]["hits"] == 1
    changes = row["changes"]
    assert (changes["unit"], changes["seen"], changes["attributed"], changes["unattributed"]) == (
        "rows",
        11,
        9,
        2,
    )
    assert {example["what"] for example in changes["examples"]} == {
        "delete stock: production counted 1, the agents 0",
        "insert orders: production counted 4, the agents 3",
    }
    said = " | ".join(row["not_checked"])
    assert "wal_level is 'replica'" in said
    assert "which transaction changed what" in said
    assert "1 transactions changed of which the agents know only the time" in said


def test_an_audit_login_that_may_not_decode_reads_counters(
    postgres: PostgresServer, secret: Callable[[str], Secret]
) -> None:
    """A login without superuser's rights sees what it may; sessions of the shadow login are noticed."""
    # Given
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS looker; CREATE ROLE looker LOGIN PASSWORD 'x'")
        store, url = make_shop(postgres, secret, postgres.dsn("kept_shop", "looker", "x"))
        with psycopg.connect(url) as session:
            session.execute("GRANT SELECT ON stock TO looker")
        with Audit([store], RUN) as audit:
            audit.start()

            # When
            with psycopg.connect(postgres.dsn("kept_shop", "keeper", "kept")):
                audit.poll()
            proof = audit.finish([], SESSIONS, 1)

    # Then
    (row,) = proof["stores"]
    assert not row["proven"]
    said = " | ".join(row["not_checked"])
    assert "needs to be a superuser" in said
    assert "1 sessions of the shadow login" in said
    assert "production let the shadow login in" in row["reasons"]


def test_mariadb_without_a_binlog(blind_mariadb: MariaServer, secret: Callable[[str], Secret]) -> None:
    """The server counts rows by table, whatever was done to them; a canary in a new row is found."""
    # Given
    market = make_maria(blind_mariadb, secret)
    with Audit([market.store], RUN) as audit:
        audit.start()

        # When
        for _ in range(3):
            market.order()
        execute(market.session, "UPDATE stock SET left_over = 0 WHERE id = 7")
        execute(market.session, f"INSERT INTO orders (note) VALUES ('{CANARY}')")
        (leak,) = poll_for(audit, 1)
        proof = audit.finish(market.claims, market.sessions, 1)
    market.session.close()
    market.shadow.close()

    # Then
    (row,) = proof["stores"]
    assert not row["proven"]
    assert (leak.where, leak.trace_id) == ("market.orders", TRACE_ID)
    changes = row["changes"]
    assert (changes["attributed"], changes["unattributed"]) == (6, 2)
    assert row["login_refused"]["refused"] == row["login_refused"]["tried"] == 2
    assert "log_bin is off" in row["not_checked"][0]


def test_mariadb_that_counts_nothing_says_so(
    blind_mariadb: MariaServer, secret: Callable[[str], Secret]
) -> None:
    """Without userstat there are only counters of the whole server, which say nothing of one schema."""
    # Given
    market = make_maria(blind_mariadb, secret)
    execute(market.session, "SET GLOBAL userstat = OFF")
    with Audit([market.store], RUN) as audit:
        audit.start()

        # When
        proof = audit.finish([], market.sessions, 1)
    execute(market.session, "SET GLOBAL userstat = ON")
    market.session.close()
    market.shadow.close()

    # Then
    assert proof["proven"] == 0
    assert any("userstat is off" in said for said in proof["stores"][0]["not_checked"])


def claim(rows: Any) -> dict[str, Any]:
    """Return a claim of the last seconds."""
    written = rows if isinstance(rows, str) else json.dumps(rows)
    now_ns = time.time_ns()
    return {"store": "shop", "fingerprint": written, "begin_ns": now_ns - 10**9, "end_ns": now_ns}


def make_shop(server: PostgresServer, secret: Callable[[str], Secret], audit: str) -> tuple[Store, str]:
    """Make a production database and a login of its shadow, which can enter it."""
    with psycopg.connect(server.admin_dsn, autocommit=True) as session:
        session.execute("DROP DATABASE IF EXISTS kept_shop")
        session.execute("CREATE DATABASE kept_shop")
        session.execute("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN PASSWORD 'kept'")
    url = server.admin_dsn.rpartition("/")[0] + "/kept_shop"
    with psycopg.connect(url) as session:
        session.execute(TABLES)
    place = f"postgresql://{server.host}:{server.port}/kept_shop"
    login = audit.rpartition("/")[0] + "/kept_shop"
    return Store(
        "shop", "postgresql", place, secret(server.dsn("kept", "keeper", "kept")), secret(login)
    ), url
