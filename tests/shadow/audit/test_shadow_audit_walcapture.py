"""The change stream of a real PostgreSQL: what is seen, what is left alone, what remains."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest
from blind_servers import ReplicaLevelServer

from perflab.demo.stores import PostgresServer
from perflab.errors import ShadowError
from perflab.shadow.audit.attribution import Change
from perflab.shadow.audit.pgoutput import RowChange
from perflab.shadow.audit.walcapture import WalCapture

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, note text, raw bytea);
CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE, n int, PRIMARY KEY (order_id, n));
CREATE TABLE log (line text);
CREATE UNLOGGED TABLE cache (k text PRIMARY KEY);
CREATE TABLE generated (id int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY, a int);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
CREATE TABLE whole (a int);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
CREATE TABLE "Odd ""name"" x" (id int PRIMARY KEY);
INSERT INTO orders VALUES (1); INSERT INTO log VALUES ('a'); INSERT INTO generated VALUES (DEFAULT, 1);
INSERT INTO deferred VALUES (1); INSERT INTO whole VALUES (1); INSERT INTO lines VALUES (1, 1), (1, 2);
"""
MakeDatabase = Callable[[str], str]


def test_changes_come_as_fingerprints_in_commit_order(make_database: MakeDatabase) -> None:
    """Every kind of change of every kind of table is in a fingerprint; what was aborted is not."""
    # Given
    url = make_database(TABLES)
    rows: list[RowChange] = []
    capture = WalCapture(url, lambda row, *_: rows.append(row))
    capture.open()
    before_ns = time.time_ns()

    # When
    _run(url, "INSERT INTO orders VALUES (2, 'two'), (3, 'three'); UPDATE orders SET note = 'x' WHERE id > 1")
    _run(url, "INSERT INTO orders VALUES (4); ROLLBACK")
    _run(url, "DELETE FROM orders WHERE id = 1")
    _run(url, "INSERT INTO parts VALUES (1, 1); UPDATE parts SET id = 9; DELETE FROM parts_1")
    _run(url, "UPDATE whole SET a = 2")
    _run(url, 'INSERT INTO "Odd ""name"" x" VALUES (1)')
    _run(url, "TRUNCATE orders, lines")
    _run(url, "INSERT INTO cache VALUES ('not in the log')")
    _run(url, "CREATE TABLE later (id int PRIMARY KEY); CREATE TEMP TABLE t AS SELECT 1")
    after_ns = time.time_ns()
    capture.drain(10)
    changes = capture.changes()
    capture.close()

    # Then
    assert [change.fingerprints[0] for change in changes] == [
        '[["orders","insert",2],["orders","update",2]]',
        '[["lines","delete",2],["orders","delete",1]]',
        '[["parts","delete",1],["parts","insert",1],["parts","update",1]]',
        '[["whole","update",1]]',
        '[["odd \\"name\\" x","insert",1]]',
        '[["lines","truncate",1],["orders","truncate",1]]',
    ]
    assert all(before_ns - 1000 <= change.time_ns <= after_ns for change in changes)
    assert RowChange("public.orders", "insert", ("2", "two", None)) in rows


def test_no_update_of_production_fails_while_it_is_watched(make_database: MakeDatabase) -> None:
    """Tables without a replica identity can be updated as before, and are said not to be checked."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()

    # When
    for update in ("log SET line = 1", "generated SET a = 3", "deferred SET id = 2", "whole SET a = 2"):
        _run(url, f"UPDATE {update}; DELETE FROM {update.split()[0]}")
    _run(url, "UPDATE cache SET k = ''")
    capture.drain(10)
    capture.close()

    # Then
    assert capture.not_checked == [
        (
            "updates and deletes of public.deferred, public.generated, public.log: no primary key and no"
            " other replica identity, so that decoding them would make production's own updates fail"
        ),
        "changes of public.cache: unlogged tables are not in the write-ahead log",
    ]


def test_the_window_ends_where_it_is_told_to(make_database: MakeDatabase) -> None:
    """Transactions after the end need no claim, but their rows are searched still."""
    # Given
    url = make_database(TABLES)
    rows: list[RowChange] = []
    capture = WalCapture(url, lambda row, *_: rows.append(row))
    capture.open()
    _run(url, "INSERT INTO whole VALUES (1)")

    # When
    capture.end()
    _run(url, "INSERT INTO whole VALUES (2)")
    capture.drain(10)
    capture.close()

    # Then
    assert len(capture.changes()) == 1
    assert [row.values for row in rows] == [("1",), ("2",)]


def test_asynchronous_commits_are_waited_for(make_database: MakeDatabase) -> None:
    """What was committed without flushing is in the log by the time the audit says so."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()

    # When
    with psycopg.connect(url, autocommit=True, options="-c synchronous_commit=off") as session:
        for number in range(100, 150):
            session.execute("INSERT INTO orders VALUES (%s)", (number,))
        capture.drain(10)
    capture.close()

    # Then
    assert len(capture.changes()) == 50


def test_a_log_that_ends_with_a_page_is_read_to_its_end(make_database: MakeDatabase) -> None:
    """Just after a switch of segments the insert position is past what will ever be flushed."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()
    _run(url, "INSERT INTO whole VALUES (1)")

    # When
    _run(url, "SELECT pg_switch_wal()")
    capture.drain(3)
    capture.close()

    # Then
    assert len(capture.changes()) == 1


def test_a_table_made_meanwhile_is_named(make_database: MakeDatabase) -> None:
    """Its updates were not published, so that it is not checked."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()

    # When
    _run(url, "CREATE TABLE later (id int PRIMARY KEY)")
    capture.drain(10)
    capture.close()

    # Then
    assert "public.later" in capture.not_checked[-1]


def test_nothing_is_left_on_the_server(make_database: MakeDatabase) -> None:
    """After close there is no slot, publication or session; closing again does nothing."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()
    assert _left(url) == (2, 1)

    # When
    capture.close()
    capture.close()

    # Then
    assert _left(url) == (0, 0)


def test_what_a_killed_audit_left_is_dropped_by_the_next(make_database: MakeDatabase) -> None:
    """The slot goes with the session; the publications are found by its name."""
    # Given
    url = make_database(TABLES)
    killed, running = WalCapture(url, lambda *_: None), WalCapture(url, lambda *_: None)
    killed.open()
    running.open()
    assert killed.session is not None
    killed.session.close()
    _wait_until(lambda: _left(url) == (4, 1))

    # When
    another = WalCapture(url, lambda *_: None)
    another.open()

    # Then
    assert _left(url) == (4, 2)
    running.poll()
    for capture in (another, running, killed):
        capture.close()
    assert _left(url) == (0, 0)


def test_a_broken_session_is_an_error_and_leaves_nothing(make_database: MakeDatabase) -> None:
    """When production ends the audit's session, poll says so, and close drops the publications."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()
    assert capture.session is not None
    _run(url, f"SELECT pg_terminate_backend({capture.session.info.backend_pid})")

    # When
    with pytest.raises(ShadowError, match="broke off"):
        _wait_until(lambda: not capture.poll())
    capture.close()

    # Then
    assert _left(url) == (0, 0)


def test_a_long_transaction_is_waited_for_only_so_long(make_database: MakeDatabase) -> None:
    """Production with an old open transaction gets no slot, and the message says what to look for."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None, statement_timeout="300ms")
    with psycopg.connect(url) as session:
        session.execute("INSERT INTO whole VALUES (1)")

        # Then
        with pytest.raises(ShadowError, match="pg_stat_activity"):
            capture.open()
    assert _left(url) == (0, 0)


def test_a_login_without_the_right_is_told_what_it_lacks(
    make_database: MakeDatabase, postgres: PostgresServer
) -> None:
    """A plain login cannot publish all tables."""
    # Given
    url = make_database(TABLES)
    _run(url, "DROP ROLE IF EXISTS plain_login; CREATE ROLE plain_login LOGIN PASSWORD 'x'")
    database = url.rpartition("/")[2]

    # Then
    with pytest.raises(ShadowError, match="needs to be a superuser"):
        WalCapture(postgres.dsn(database, "plain_login", "x"), lambda *_: None).open()
    assert _left(url) == (0, 0)


def test_without_logical_wal_level_nothing_is_decoded(blind_postgres: ReplicaLevelServer) -> None:
    """The message names the setting; nothing was made."""
    with pytest.raises(ShadowError, match="wal_level is 'replica'"):
        WalCapture(blind_postgres.admin_dsn, lambda *_: None).open()
    assert _left(blind_postgres.admin_dsn) == (0, 0)


def test_a_bulk_load_is_read_piece_by_piece(make_database: MakeDatabase) -> None:
    """Two hundred thousand rows in one transaction are one change; many small ones are all there."""
    # Given
    url = make_database(TABLES)
    capture = WalCapture(url, lambda *_: None)
    capture.open()

    # When
    _run(url, "INSERT INTO whole SELECT generate_series(1, 200000)")
    loop = "FOR i IN 1..30000 LOOP INSERT INTO whole VALUES (i); COMMIT; END LOOP"
    _run(url, f"DO $$ BEGIN {loop}; END $$", commit=False)
    capture.drain(20)
    capture.close()

    # Then
    changes: list[Change] = capture.changes()
    assert changes[0].fingerprints == ('[["whole","insert",200000]]',)
    assert len(changes) == 30_001


def _run(url: str, statements: str, *, commit: bool = True) -> None:
    with psycopg.connect(url, autocommit=not commit) as session:
        session.execute(statements)


def _left(url: str) -> tuple[int, int]:
    """Return how many publications and slots of the audit there are."""
    with psycopg.connect(url) as session:
        row = session.execute(
            "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots"
            " WHERE database = current_database())"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _wait_until(holds: Callable[[], bool], deadline_s: float = 10.0) -> None:
    until = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
