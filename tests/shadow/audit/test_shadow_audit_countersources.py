"""What real servers count, and how small a question about it is."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from audited_maria import execute
from audited_system import wait_until
from mariadb_server import MariaServer

from perflab.demo.stores import PostgresServer
from perflab.errors import ShadowError
from perflab.shadow.audit.countersources import MariadbCounters, PostgresCounters

TABLES = """
CREATE TABLE orders (id bigserial PRIMARY KEY, note text);
CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE named (name text PRIMARY KEY);
CREATE TABLE "Odd ""name" ("the key" int PRIMARY KEY, "a b" bytea);
INSERT INTO orders (note) VALUES ('one'), ('two');
"""


def test_postgresql_rows_sessions_and_new_rows(
    make_database: Callable[[str], str], postgres: PostgresServer
) -> None:
    """Counts by table and operation; tables with one integer key; rows above a key, in its order."""
    # Given
    url = make_database(TABLES)
    counters = PostgresCounters(url, "postgres")
    counters.connect()

    # When
    tables = {table.name: table for table in counters.keyed_tables()}
    before = counters.counts()
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("INSERT INTO orders (note) VALUES ('three'), (NULL)")
        session.execute("UPDATE orders SET note = 'x' WHERE id = 1")
        session.execute("DELETE FROM orders WHERE id = 2")
        session.execute("""INSERT INTO "Odd ""name" VALUES (5, 'plc')""")
        session.execute("SELECT pg_stat_force_next_flush()")
        wait_until(lambda: counters.counts() != before)
        after, sessions = counters.counts(), counters.shadow_sessions()

    # Then
    gained = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert gained[("public.orders", "insert")] == 2
    assert (gained["public.orders", "update"], gained["public.orders", "delete"]) == (1, 1)
    assert set(tables) == {"public.orders", 'public.Odd "name'}
    assert counters.newer(tables["public.orders"], tables["public.orders"].last, 10) == [
        (3, ("3", "three")),
        (4, ("4", None)),
    ]
    assert counters.newer(tables["public.orders"], 0, 1) == [(1, ("1", "x"))]
    assert counters.newer(tables['public.Odd "name'], 0, 9) == [(5, ("5", "\\x706c63"))]
    assert sessions == 2
    assert counters.notes() == []
    counters.close()
    counters.close()


def test_a_question_waits_for_nobody(make_database: Callable[[str], str]) -> None:
    """A table somebody has locked is not waited for, and a closed session says so."""
    # Given
    url = make_database(TABLES)
    counters = PostgresCounters(url, "postgres")
    counters.connect()
    table = counters.keyed_tables()[-1]
    with psycopg.connect(url) as session:
        session.execute("LOCK TABLE orders")

        # Then
        with pytest.raises(ShadowError, match="does not answer"):
            counters.newer(table, 0, 1)
    counters.close()
    with pytest.raises(ShadowError, match="is closed"):
        counters.counts()
    with pytest.raises(ShadowError, match="cannot be read"):
        PostgresCounters("postgresql://a:b@127.0.0.1:1/x", "a").connect()


def test_mariadb_rows_sessions_and_new_rows(blind_mariadb: MariaServer) -> None:
    """Changed rows by table; tables with one integer key; rows above a key, in its order."""
    # Given
    session = blind_mariadb.connect()
    execute(session, "CREATE OR REPLACE DATABASE counted", "USE counted")
    execute(session, "CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, note text, raw blob)")
    execute(session, "CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b))")
    execute(session, "INSERT INTO orders (note) VALUES ('one')")
    counters = MariadbCounters(blind_mariadb.admin_url, "counted", "admin")
    counters.connect()

    # When
    (table,) = counters.keyed_tables()
    before = counters.counts()
    execute(
        session, "INSERT INTO orders (note, raw) VALUES ('two', x'706c63')", "UPDATE orders SET note = 'x'"
    )
    after, rows = counters.counts(), counters.newer(table, table.last, 10)
    sessions, notes = counters.shadow_sessions(), counters.notes()
    counters.close()
    session.close()

    # Then
    assert after["counted.orders", "change"] - before["counted.orders", "change"] == 3
    assert rows == [(2, ("2", "x", "plc"))]
    assert sessions == 1
    assert notes == []
    assert counters.operation("insert") == "change"
