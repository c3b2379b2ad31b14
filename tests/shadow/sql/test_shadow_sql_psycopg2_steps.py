"""What ordinary transactions claim, of every way of psycopg 2, against production's own log."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from attached_service import Service, forget, kept, marked, noted, span_names
from psycopg2 import sql
from two_sides import Sides, TestRun

from perflab.shadow.audit.attribution import attribute
from perflab.shadow.audit.walcapture import WalCapture

INSERT = "INSERT INTO item (note) VALUES (%s)"
Work = Callable[[Any, Any], None]


def commit(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    cursor.execute(INSERT, ["b"])
    cursor.execute("UPDATE item SET note = note || '!'")
    cursor.execute("DELETE FROM item WHERE note = 'b!'")
    connection.commit()


def rollback(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    connection.rollback()
    for give_up in (connection.reset, lambda: connection.set_client_encoding("UTF8")):
        cursor.execute(INSERT, ["a"])
        give_up()
        connection.rollback()
    cursor.execute(INSERT, ["b"])
    connection.commit()


def reads(connection: Any, cursor: Any) -> None:
    cursor.execute("SELECT count(*), lower(max(note)) FROM item WHERE id IN (1, 2)")
    cursor.execute("UPDATE item SET note = 'none' WHERE id = -1")
    connection.commit()


def aborted(connection: Any, cursor: Any) -> None:
    cursor.execute(INSERT, ["a"])
    with contextlib.suppress(psycopg2.Error):
        cursor.execute("SELECT 1 / 0")
    connection.commit()  # which the server answers with ROLLBACK


def commit_that_fails(connection: Any, cursor: Any) -> None:
    cursor.execute("INSERT INTO child VALUES (1)")
    with contextlib.suppress(psycopg2.errors.ForeignKeyViolation):
        connection.commit()
    cursor.execute(INSERT, ["after"])
    connection.commit()


def texts(connection: Any, cursor: Any) -> None:
    cursor.execute("SAVEPOINT one")
    cursor.execute(INSERT, ["a"])
    cursor.execute("SAVEPOINT two")
    cursor.execute(INSERT, ["b"])
    cursor.execute("ROLLBACK TO SAVEPOINT one")
    cursor.execute(INSERT, ["c"])
    cursor.execute("RELEASE SAVEPOINT one")
    cursor.execute("COMMIT")


def with_connection(connection: Any, cursor: Any) -> None:
    with connection:
        cursor.execute(INSERT, ["a"])
    with contextlib.suppress(ZeroDivisionError), connection:
        cursor.execute(INSERT, ["b"])
        raise ZeroDivisionError
    connection.autocommit = True
    with connection, connection.cursor() as other:
        other.execute(INSERT, ["c"])
        other.execute(INSERT, ["d"])


def many(connection: Any, cursor: Any) -> None:
    cursor.executemany(INSERT, [["a"], ["b"], ["c"]])
    psycopg2.extras.execute_values(cursor, "INSERT INTO item (note) VALUES %s", [["d"], ["e"]])
    connection.commit()
    psycopg2.extras.execute_batch(cursor, INSERT, [["f"], ["g"]])
    connection.commit()


def returning(connection: Any, cursor: Any) -> None:
    cursor.execute(f"{INSERT} RETURNING id", ["a"])
    assert len(cursor.fetchall()) == 1
    connection.commit()


def copies(connection: Any, cursor: Any) -> None:
    cursor.copy_from(io.StringIO("a\nb\n"), "item", columns=["note"])
    cursor.copy_expert("COPY item (note) FROM STDIN", io.StringIO("c\n"))
    cursor.copy_to(io.StringIO(), "item")
    connection.commit()


def prepared(connection: Any, cursor: Any) -> None:
    cursor.execute("PREPARE adding (text) AS INSERT INTO item (note) VALUES ($1)")
    cursor.execute("EXECUTE adding ('x')")
    cursor.execute("DEALLOCATE adding")
    connection.commit()


def named_cursor(connection: Any, cursor: Any) -> None:
    cursor.execute("INSERT INTO item (note) SELECT n::text FROM generate_series(1, 4) n")
    with connection.cursor("reading", cursor_factory=psycopg2.extras.DictCursor) as reading:
        reading.execute("SELECT note FROM item")
        assert len(reading.fetchmany(3)) == 3
        assert [row["note"] for row in reading]
    connection.commit()


def composed(connection: Any, cursor: Any) -> None:
    query = sql.SQL("INSERT INTO {} (note) VALUES ({})").format(sql.Identifier("item"), sql.Literal("x"))
    cursor.execute(query)
    cursor.execute(b"DELETE FROM item")
    connection.commit()


def upsert(connection: Any, cursor: Any) -> None:
    for _ in range(2):
        cursor.execute("INSERT INTO stock VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET amount = 3")
    connection.commit()


def functions(connection: Any, cursor: Any) -> None:
    cursor.callproc("add_item", ["x"])
    connection.commit()
    cursor.execute("DO $$ BEGIN INSERT INTO item (note) VALUES ('done'); END $$")
    connection.commit()


def definitions(connection: Any, cursor: Any) -> None:
    cursor.execute("CREATE TABLE made (x int)")
    cursor.execute("INSERT INTO made VALUES (1)")
    cursor.execute("DROP TABLE made")
    cursor.execute(INSERT, ["x"])
    connection.commit()


def signals(connection: Any, cursor: Any) -> None:
    cursor.execute("LISTEN news")
    cursor.execute("SELECT pg_advisory_xact_lock(1), pg_advisory_lock(2)")
    cursor.execute("NOTIFY news, 'x'")
    connection.commit()
    connection.poll()
    assert [told.payload for told in connection.notifies] == ["x"]
    cursor.execute("SELECT pg_advisory_unlock(2)")
    assert cursor.fetchone()[0] is True
    connection.commit()


def large_objects(connection: Any, cursor: Any) -> None:
    large = connection.lobject(0, "rwb")
    large.write(b"large")
    large.seek(0)
    assert large.read() == b"large"
    cursor.execute(INSERT, ["x"])
    large.unlink()
    connection.commit()


def two_phases(connection: Any, cursor: Any) -> None:
    with contextlib.suppress(psycopg2.Error):  # this server keeps no prepared transactions
        connection.tpc_begin(connection.xid(1, "a", "b"))
        cursor.execute(INSERT, ["x"])
        connection.tpc_prepare()
    connection.tpc_rollback()
    connection.tpc_begin(connection.xid(1, "a", "b"))
    cursor.execute(INSERT, ["ordinary"])
    connection.tpc_commit()


def autocommit(connection: Any, cursor: Any) -> None:
    connection.autocommit = True
    cursor.execute(INSERT, ["a"])
    with contextlib.suppress(psycopg2.errors.NotNullViolation):
        cursor.execute(INSERT, [None])
    cursor.execute("INSERT INTO item (note) VALUES ('b'), ('c')")
    cursor.execute("BEGIN")
    cursor.execute(INSERT, ["d"])
    cursor.execute("ROLLBACK")
    cursor.execute("BEGIN")
    cursor.execute(INSERT, ["e"])
    cursor.execute(INSERT, ["f"])
    cursor.execute("END")


SCENARIOS: dict[str, Work] = {
    work.__name__: work
    for work in (
        commit, rollback, reads, aborted, commit_that_fails, texts, with_connection, many, returning, copies,
        prepared, named_cursor, composed, upsert, functions, definitions, signals, large_objects, two_phases,
        autocommit,
    )
}  # fmt: skip
ONE, TWO, OPAQUE = [["item", "insert", 1]], [["item", "insert", 2]], "opaque"
EXPECTED: dict[str, list[Any]] = {
    "commit": [[["item", "delete", 1], ["item", "insert", 2], ["item", "update", 2]]],
    "rollback": [ONE],
    "reads": [],
    "aborted": [],
    "commit_that_fails": [ONE],
    "texts": [ONE],
    "with_connection": [ONE, TWO],
    "many": [[["item", "insert", 5]], OPAQUE],
    "returning": [ONE],
    "copies": [[["item", "insert", 3]]],
    "prepared": [OPAQUE],
    "named_cursor": [[["item", "insert", 4]]],
    "composed": [[["item", "delete", 1], ["item", "insert", 1]]],
    "upsert": [OPAQUE],
    "functions": [OPAQUE, OPAQUE],
    "definitions": [OPAQUE],
    "signals": [],
    "large_objects": [OPAQUE],
    "two_phases": [OPAQUE],
    "autocommit": [ONE, TWO, TWO],
}


def claims_of(name: str, dsn: str) -> Any:
    forget()
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        SCENARIOS[name](connection, connection.cursor())
    return [noted("claim"), noted("step_aside")]


@pytest.mark.parametrize("name", SCENARIOS)
def test_claims(name: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Each committed transaction is claimed once, with its rows or as opaque; no other is."""
    claims, aside = service.call(claims_of, name, sides.app)
    told = [told if told == OPAQUE else json.loads(told) for _, told, _, _ in claims]
    assert (told, aside) == (EXPECTED[name], [])


def test_every_committed_transaction_is_attributed(service: Service, sides: Sides, run: TestRun) -> None:
    """What production's log decodes to is exactly what was claimed."""
    # Given
    capture = WalCapture(sides.url(sides.production_database), lambda *_: None)
    capture.open()
    try:
        rows = []
        # When
        for name in SCENARIOS:
            for store, told, begin_ns, end_ns in service.call(claims_of, name, sides.app)[0]:
                rows.append({"store": store, "fingerprint": told, "begin_ns": begin_ns, "end_ns": end_ns})
        capture.drain(20)
        changes = capture.changes()
        found = attribute(changes, capture.claims(rows), slack_ns=0)
    finally:
        capture.close()
    # Then
    assert found.unattributed == ()
    assert len(changes) == len(rows) == sum(map(len, EXPECTED.values()))


def all_scenarios(dsn: str, mark: dict[str, Any]) -> Any:
    forget()
    for name in SCENARIOS:
        with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as connection:
            SCENARIOS[name](connection, connection.cursor())
    kept.clear()
    return [noted("claim"), noted("refuse"), sorted({tuple(told) for told in noted("session")})]


def test_every_way_of_marked_work_stays_on_the_shadow(service: Service, sides: Sides, run: TestRun) -> None:
    """The same scenarios, marked: nothing claimed, nothing refused, production not touched."""
    # When
    claims, refused, sessions = service.call(all_scenarios, sides.app, run.mark())
    # Then
    assert (claims, refused) == ([], [])
    assert sessions == [["orders", sides.shadow_role, sides.shadow_database, True]]
    assert sides.query("production", "SELECT count(*) FROM item") == [(0,)]
    assert len(sides.notes("shadow")) >= 10
    assert sides.query("shadow", "SELECT DISTINCT owner FROM item") == [(sides.shadow_role,)]


def two_in_one_request(dsn: str, mark: dict[str, Any]) -> Any:
    with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as one:
        other = psycopg2.connect(dsn)
        first, second = one.cursor(), other.cursor()
        first.execute(INSERT, ["a"])
        second.execute("SELECT count(*) FROM item")
        before = second.fetchone()[0]
        one.commit()
        second.execute("SELECT count(*) FROM item")
        after = second.fetchone()[0]
        other.close()
        return [before, after]


def test_two_connections_of_one_request(service: Service, sides: Sides, run: TestRun) -> None:
    """Both are on the shadow, and as apart from each other as on production."""
    assert service.call(two_in_one_request, sides.app, run.mark()) == [0, 1]
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["a"])


def lose_connection_at_commit(dsn: str, admin: str) -> Any:
    forget()
    connection = psycopg2.connect(dsn)
    connection.cursor().execute(INSERT, ["x"])
    with contextlib.closing(psycopg2.connect(admin)) as other:
        other.cursor().execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with contextlib.suppress(psycopg2.OperationalError):
        connection.commit()
    return [told for _, told, _, _ in noted("claim")]


def test_a_commit_whose_connection_was_lost_may_have_been_done(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """It is claimed: production may have the row."""
    told = service.call(lose_connection_at_commit, sides.app, sides.url("postgres"))
    assert told == ['[["item", "insert", 1]]']


def asynchronously(dsn: str) -> Any:
    forget()
    with contextlib.closing(psycopg2.connect(dsn, async_=True)) as connection:
        psycopg2.extras.wait_select(connection)
        cursor = connection.cursor()
        cursor.execute(INSERT, ["a"])
        psycopg2.extras.wait_select(connection)
    return [[told for _, told, _, _ in noted("claim")], noted("step_aside")]


def test_asynchronous_connections_are_claimed_when_the_answer_is_in(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """How many rows it were is not known: opaque."""
    assert service.call(asynchronously, sides.app) == [[OPAQUE], []]
    assert sides.notes("production") == ["a"]


def spans_of(dsn: str) -> Any:
    forget()
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        commit(connection, connection.cursor())
        connection.commit()
        with connection.cursor("reading") as reading:
            reading.execute("SELECT note FROM item")
            reading.fetchall()
        connection.rollback()
    return span_names()


def test_every_statement_is_a_span(service: Service, sides: Sides, run: TestRun) -> None:
    """One for each statement and for each end of a transaction that was open."""
    assert service.call(spans_of, sides.app) == [
        "INSERT item", "INSERT item", "UPDATE item", "DELETE item", "COMMIT", "SELECT item", "ROLLBACK",
    ]  # fmt: skip
