"""The change stream of a real MariaDB: what is seen, what is left alone, what is said of the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from audited_system import wait_until
from mariadb_server import MariaServer

from perflab.errors import ShadowError
from perflab.shadow.audit.binlog import BinlogCapture
from perflab.shadow.audit.pgoutput import RowChange

TABLES = """
CREATE TABLE orders (id int AUTO_INCREMENT PRIMARY KEY, note varchar(300), raw varbinary(300));
CREATE TABLE order_lines (order_id int, n int, PRIMARY KEY (order_id, n),
  FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE);
CREATE TABLE stock (id int PRIMARY KEY, left_over int);
CREATE TABLE audited (id int PRIMARY KEY);
CREATE TABLE trail (id int AUTO_INCREMENT PRIMARY KEY, of int);
CREATE TRIGGER copy AFTER INSERT ON audited FOR EACH ROW INSERT INTO trail (of) VALUES (NEW.id);
CREATE SEQUENCE numbers;
INSERT INTO stock VALUES (1, 10), (2, 10)
"""
Begin = Callable[..., BinlogCapture]


@pytest.fixture
def shop(mariadb: MariaServer) -> Iterator[Any]:
    """Make a fresh schema; give a session in it."""
    session = mariadb.connect()
    with session.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS watched")
        cursor.execute("CREATE DATABASE watched")
        cursor.execute("USE watched")
        for statement in TABLES.split(";\n"):
            cursor.execute(statement)
    yield session
    session.close()


@pytest.fixture
def begin(mariadb: MariaServer) -> Iterator[Begin]:
    """``begin(note)`` opens a capture of the schema."""
    opened: list[BinlogCapture] = []

    def open_one(note: Callable[..., Any] = lambda *_: None, **options: Any) -> BinlogCapture:
        capture = BinlogCapture(mariadb.admin_url, "watched", note, **options)
        opened.append(capture)
        capture.open()
        return capture

    yield open_one
    for capture in opened:
        capture.close()


def test_changes_come_as_fingerprints_in_commit_order(shop: Any, begin: Begin) -> None:
    """Every kind of change is in a fingerprint, what was rolled back is not; times are within a second."""
    # Given
    rows: list[tuple[RowChange, int, str, str]] = []
    capture = begin(lambda *row: rows.append(row))
    before_ns = time.time_ns()

    # When
    run(
        shop,
        "BEGIN",
        "INSERT INTO orders (note) VALUES ('two'), (NULL)",
        "UPDATE stock SET left_over = 1",
        "COMMIT",
    )
    run(shop, "BEGIN", "INSERT INTO orders (note) VALUES ('undone')", "ROLLBACK")
    run(shop, "BEGIN", "UPDATE stock SET left_over = 2 WHERE id = 1", "SAVEPOINT s")
    run(shop, "UPDATE stock SET left_over = 3", "ROLLBACK TO s", "COMMIT")
    run(shop, "INSERT INTO order_lines VALUES (1, 1), (1, 2)", "DELETE FROM orders WHERE id = 1")
    run(shop, "INSERT INTO audited VALUES (1)", "TRUNCATE TABLE order_lines", "SELECT NEXTVAL(numbers)")
    run(shop, "UPDATE stock SET left_over = left_over")
    after_ns = time.time_ns()
    capture.drain(10)

    # Then
    changes = capture.changes()
    assert [change.fingerprints[0] for change in changes] == [
        '[["orders","insert",2],["stock","update",2]]',
        '[["stock","update",1]]',
        '[["order_lines","insert",2]]',
        '[["orders","delete",1]]',
        '[["audited","insert",1],["trail","insert",1]]',
        '[["order_lines","truncate",1]]',
    ]
    assert all(before_ns - 10**9 <= change.time_ns <= after_ns + 10**9 for change in changes)
    assert rows[0][0] == RowChange("watched.orders", "insert", ("1", "two", None))
    assert rows[0][2].count("-") == 2
    assert rows[0][3].startswith("binlog.")
    assert capture.not_checked == []
    assert "cascade from orders" in capture.limits[-1]


def test_claims_are_read_as_the_binlog_shows_them(shop: Any, begin: Begin) -> None:
    """Behind a trigger a claim covers its time only; a table that is not logged here leaves no claim."""
    # Given
    capture = begin()
    interval = {"begin_ns": 1, "end_ns": 2}

    # When
    claims = capture.claims(
        [
            {"fingerprint": '[["Stock","update",2]]', **interval},
            {"fingerprint": '[["audited","insert",1]]', **interval},
            {"fingerprint": "opaque", **interval},
            {"fingerprint": '[["a_temporary_table","insert",1]]', **interval},
        ]
    )

    # Then
    assert [(claim.fingerprint, claim.opaque) for claim in claims] == [
        ('[["stock","update",2]]', False),
        ('[["audited","insert",1]]', True),
        ("", True),
    ]


def test_a_statement_in_the_binlog_is_searched_and_not_checked(shop: Any, begin: Begin) -> None:
    """A session that logs statements changes rows nobody can tell; its text is looked at all the same."""
    # Given
    rows: list[RowChange] = []
    capture = begin(lambda row, *_: rows.append(row))

    # When
    run(shop, "SET SESSION binlog_format = STATEMENT", "INSERT INTO orders (note) VALUES ('by text')")
    capture.drain(10)

    # Then
    assert [row.operation for row in rows] == ["statement"]
    assert "by text" in str(rows[0].values[0])
    assert [change.fingerprints for change in capture.changes()] == [("statement",)]
    assert "which rows 1 statements changed" in capture.not_checked[0]


def test_definitions_of_tables_count_as_changes_and_users_do_not(shop: Any, begin: Begin) -> None:
    """DDL of the schema needs a claim; what concerns logins, or a temporary table, is no change of it."""
    # Given
    capture = begin()

    # When
    run(shop, "CREATE TABLE copied AS SELECT * FROM stock", "ALTER TABLE stock ADD COLUMN note text")
    run(shop, "CREATE USER passing@localhost", "DROP USER passing@localhost")
    run(shop, "CREATE TEMPORARY TABLE t (a int)", "DROP TEMPORARY TABLE t", "ANALYZE TABLE stock")
    run(shop, "INSERT INTO copied (id) VALUES (7)")
    capture.drain(10)

    # Then
    assert [change.fingerprints[0] for change in capture.changes()] == [
        "statement",
        "statement",
        '[["copied","insert",1]]',
    ]


def test_other_schemas_are_searched_and_not_counted_and_the_shadow_neither(shop: Any, begin: Begin) -> None:
    """A row in another schema may be a leak, so it is looked at; the shadow's own rows are not."""
    # Given
    run(
        shop,
        "CREATE OR REPLACE DATABASE elsewhere",
        "CREATE OR REPLACE DATABASE the_shadow",
        "CREATE TABLE elsewhere.t (a text)",
        "CREATE TABLE the_shadow.t (a text)",
    )
    rows: list[RowChange] = []
    capture = begin(lambda row, *_: rows.append(row), is_shadow=lambda table: table.startswith("the_shadow."))

    # When
    run(shop, "INSERT INTO elsewhere.t VALUES ('x')", "INSERT INTO the_shadow.t VALUES ('y')")
    run(shop, "DROP DATABASE elsewhere", "DROP DATABASE the_shadow")
    capture.drain(10)

    # Then
    assert RowChange("elsewhere.t", "insert", ("x",)) in rows
    assert all("the_shadow" not in row.table for row in rows)
    assert capture.shadow_changes == 1
    assert all("elsewhere.t" not in change.what for change in capture.changes())


def test_the_window_ends_where_it_is_told_to_also_across_log_files(shop: Any, begin: Begin) -> None:
    """Transactions after the end need no claim, but their rows are searched still."""
    # Given
    rows: list[RowChange] = []
    capture = begin(lambda row, *_: rows.append(row))
    run(shop, "UPDATE stock SET left_over = 7 WHERE id = 1", "FLUSH BINARY LOGS")
    run(shop, "UPDATE stock SET left_over = 8 WHERE id = 1")

    # When
    capture.end()
    run(shop, "UPDATE stock SET left_over = 9 WHERE id = 1")
    capture.drain(10)

    # Then
    assert len(capture.changes()) == 2
    assert [row.values for row in rows] == [("1", "7"), ("1", "8"), ("1", "9")]


def test_nothing_is_left_on_the_server(shop: Any, begin: Begin, mariadb: MariaServer) -> None:
    """After close none of the audit's connections is there; closing again does nothing."""
    # Given
    before = connections(shop)
    capture = begin()
    assert connections(shop) == before + 3

    # When
    capture.close()
    capture.close()

    # Then
    wait_until(lambda: connections(shop) == before)


def test_a_broken_connection_is_an_error(shop: Any, begin: Begin) -> None:
    """When the server ends the audit's stream, poll says so instead of reading on from somewhere."""
    # Given
    capture = begin()
    number = dump_threads(shop)[0]

    # When
    run(shop, f"KILL CONNECTION {number}")

    # Then
    with pytest.raises(ShadowError, match="broke off"):
        wait_until(lambda: run(shop, "UPDATE stock SET left_over = left_over + 1") or not capture.poll())


def test_a_login_without_the_right_is_told_what_it_lacks(shop: Any, mariadb: MariaServer) -> None:
    """Without REPLICATION SLAVE, without BINLOG MONITOR, without the tables: each has its sentence."""
    # Given
    run(shop, "CREATE OR REPLACE USER narrow@'127.0.0.1' IDENTIFIED BY 'x'")
    url = mariadb.url("", "narrow", "x")

    # When
    found = []
    for grant in (
        "SELECT ON watched.*",
        "BINLOG MONITOR ON *.*",
        "REPLICATION SLAVE ON *.*",
    ):
        with pytest.raises(ShadowError) as error:
            BinlogCapture(url, "watched", lambda *_: None).open()
        found.append(str(error.value))
        run(shop, f"GRANT {grant} TO narrow@'127.0.0.1'")
    capture = BinlogCapture(url, "watched", lambda *_: None)
    capture.open()
    capture.close()

    # Then
    assert all("REPLICATION SLAVE, BINLOG MONITOR" in said or "sees no table" in said for said in found)
    run(shop, "DROP USER narrow@'127.0.0.1'")


def test_a_server_without_a_binlog_is_refused(blind_mariadb: MariaServer) -> None:
    """The message names the setting."""
    with pytest.raises(ShadowError, match="log_bin is off"):
        BinlogCapture(blind_mariadb.admin_url, "mysql", lambda *_: None).open()


def test_a_server_that_logs_statements_is_refused(shop: Any, begin: Begin) -> None:
    """The message names the setting and the value it must have."""
    run(shop, "SET GLOBAL binlog_format = STATEMENT")
    try:
        with pytest.raises(ShadowError, match="binlog_format is 'STATEMENT', and must be 'ROW'"):
            begin()
    finally:
        run(shop, "SET GLOBAL binlog_format = ROW")


def test_what_a_setting_hides_is_not_checked(shop: Any, begin: Begin, mariadb: MariaServer) -> None:
    """Partial row images, mixed logging and no column metadata: read on, and say what is hidden."""
    # Given
    rows: list[RowChange] = []
    run(shop, "CREATE TABLE t (a int PRIMARY KEY, b text, c text, d varchar(9) CHARACTER SET utf16)")
    run(shop, "SET GLOBAL binlog_row_image = MINIMAL", "SET GLOBAL binlog_format = MIXED")
    run(shop, "SET GLOBAL binlog_row_metadata = NO_LOG")
    try:
        capture = begin(lambda row, *_: rows.append(row))
        session = mariadb.connect("watched")

        # When
        run(session, "SET SESSION binlog_format = ROW", "INSERT INTO t VALUES (1, 'é', 'y', NULL)")
        run(session, "UPDATE t SET b = 'z'")
        capture.drain(10)
        session.close()
    finally:
        run(shop, "SET GLOBAL binlog_row_image = FULL", "SET GLOBAL binlog_format = ROW")
        run(shop, "SET GLOBAL binlog_row_metadata = FULL")

    # Then
    assert [row.values for row in rows] == [("1", "é", "y", None), (None, "z", None, None)]
    said = " | ".join(capture.not_checked)
    assert "binlog_row_image is 'MINIMAL'" in said
    assert "binlog_format is 'MIXED'" in said
    assert "unchanged columns of watched.t" in said
    assert "canaries in t.d" in said


def test_a_busy_server_is_read_to_its_end(shop: Any, begin: Begin) -> None:
    """Thousands of rows in one transaction are one change; two thousand small ones are all there."""
    # Given
    capture = begin()

    # When
    run(shop, "INSERT INTO orders (note) SELECT REPEAT('x', 100) FROM seq_1_to_50000")
    run(shop, "SET autocommit = 0")
    for number in range(2000):
        run(shop, f"UPDATE stock SET left_over = {number + 100} WHERE id = 1", "COMMIT")
    capture.drain(30)

    # Then
    changes = capture.changes()
    assert changes[0].fingerprints == ('[["orders","insert",50000]]',)
    assert len(changes) == 2001


def run(session: Any, *statements: str) -> None:
    """Run statements one after the other."""
    with session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def connections(session: Any) -> int:
    """Return how many sessions the server has."""
    with session.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'admin'")
        return int(cursor.fetchone()[0])


def dump_threads(session: Any) -> list[int]:
    """Return the ids of the threads that feed replicas."""
    with session.cursor() as cursor:
        cursor.execute("SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'")
        return [int(number) for (number,) in cursor.fetchall()]
