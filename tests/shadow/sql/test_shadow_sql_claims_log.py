"""What ordinary transactions claim, of every way of psycopg, against production's own log."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from attached_service import Service, forget, forget_runs, kept, marked, noted, poll
from psycopg import sql
from two_sides import Sides, TestRun

from perflab.shadow.audit.attribution import attribute
from perflab.shadow.audit.walcapture import WalCapture

INSERT = "INSERT INTO item (note) VALUES (%s)"
Work = Callable[[psycopg.Connection[Any]], None]


def commit(connection: psycopg.Connection[Any]) -> None:
    connection.execute(INSERT, ["a"])
    connection.execute(INSERT, ["b"])
    connection.execute("UPDATE item SET note = note || '!'")
    connection.execute("DELETE FROM item WHERE note = 'b!'")
    connection.commit()


def rollback(connection: psycopg.Connection[Any]) -> None:
    connection.execute(INSERT, ["a"])
    connection.rollback()
    connection.execute(INSERT, ["b"])
    connection.commit()


def reads(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT count(*), lower(max(note)) FROM item WHERE id IN (1, 2)").fetchall()
    connection.execute("UPDATE item SET note = 'none' WHERE id = -1")
    connection.commit()


def aborted(connection: psycopg.Connection[Any]) -> None:
    connection.execute(INSERT, ["a"])
    with contextlib.suppress(psycopg.Error):
        connection.execute("SELECT 1 / 0")
    connection.commit()  # which the server answers with ROLLBACK


def commit_that_fails(connection: psycopg.Connection[Any]) -> None:
    connection.execute("INSERT INTO child VALUES (1)")
    with contextlib.suppress(psycopg.errors.ForeignKeyViolation):
        connection.commit()
    connection.execute(INSERT, ["after"])
    connection.commit()


def texts(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SAVEPOINT one")
    connection.execute(INSERT, ["a"])
    connection.execute("SAVEPOINT two")
    connection.execute(INSERT, ["b"])
    connection.execute("ROLLBACK TO SAVEPOINT one")
    connection.execute(INSERT, ["c"])
    connection.execute("RELEASE SAVEPOINT one")
    connection.execute("COMMIT")


def blocks(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        connection.execute(INSERT, ["a"])
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            connection.execute(INSERT, ["b"])
            raise ZeroDivisionError
        with connection.transaction():
            connection.execute("UPDATE item SET note = 'c'")
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM item")
    with contextlib.suppress(ZeroDivisionError), connection.transaction():
        connection.execute(INSERT, ["d"])
        raise ZeroDivisionError
    with connection.transaction():
        connection.execute(INSERT, ["e"])
        raise psycopg.Rollback


def many(connection: psycopg.Connection[Any]) -> None:
    connection.cursor().executemany(INSERT, [["a"], ["b"], ["c"]])
    connection.commit()


def many_returning(connection: psycopg.Connection[Any]) -> None:
    cursor = connection.cursor()
    cursor.executemany(f"{INSERT} RETURNING id", [["a"], ["b"]], returning=True)
    assert [len(result.fetchall()) for result in cursor.results()] == [1, 1]
    connection.commit()


def copy_in(connection: psycopg.Connection[Any]) -> None:
    cursor = connection.cursor()
    with cursor.copy("COPY item (note) FROM STDIN") as copy:
        for note in "abc":
            copy.write_row([note])
    with cursor.copy("COPY item TO STDOUT") as copy:
        assert len(list(copy)) >= 3
    connection.commit()


def stream(connection: psycopg.Connection[Any]) -> None:
    rows = connection.cursor().stream(f"{INSERT} RETURNING note", ["a"])
    assert [note for (note,) in rows] == ["a"]
    connection.commit()


def prepared(connection: psycopg.Connection[Any]) -> None:
    for number in range(3):
        connection.execute(INSERT, [str(number)], prepare=True)
    connection.commit()


def named_cursor(connection: psycopg.Connection[Any]) -> None:
    connection.execute("INSERT INTO item (note) SELECT n::text FROM generate_series(1, 4) n")
    with connection.cursor("reading") as cursor:
        cursor.execute("SELECT note FROM item")
        assert len(cursor.fetchmany(3)) == 3
    connection.commit()


def composed(connection: psycopg.Connection[Any]) -> None:
    query = sql.SQL("INSERT INTO {} (note) VALUES ({})").format(sql.Identifier("item"), sql.Literal("x"))
    connection.execute(query)
    connection.execute(b"DELETE FROM item")
    connection.commit()


def upsert(connection: psycopg.Connection[Any]) -> None:
    for _ in range(2):
        connection.execute("INSERT INTO stock VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET amount = 3")
    connection.execute("INSERT INTO stock VALUES (1, 2) ON CONFLICT DO NOTHING")
    connection.commit()


def function(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SELECT add_item('x')")
    connection.commit()


def two_phases(connection: psycopg.Connection[Any]) -> None:
    connection.execute(INSERT, ["ordinary"])
    connection.commit()


def pipelined(connection: psycopg.Connection[Any]) -> None:
    with connection.pipeline():
        connection.execute(INSERT, ["a"])
        connection.execute(INSERT, ["b"])
        connection.commit()
        connection.execute(INSERT, ["c"])
        connection.rollback()
        connection.execute(INSERT, ["d"])
        connection.commit()


def autocommit(connection: psycopg.Connection[Any]) -> None:
    connection.autocommit = True
    connection.execute(INSERT, ["a"])
    with contextlib.suppress(psycopg.errors.NotNullViolation):
        connection.execute(INSERT, [None])
    connection.execute("INSERT INTO item (note) VALUES ('b'), ('c')")
    connection.cursor().executemany(INSERT, [["d"], ["e"]])
    with connection.cursor().copy("COPY item (note) FROM STDIN") as copy:
        copy.write_row(["f"])
    with connection.transaction():
        connection.execute(INSERT, ["g"])
        connection.execute(INSERT, ["h"])
    connection.execute("BEGIN")
    connection.execute(INSERT, ["i"])
    connection.execute("ROLLBACK")
    with connection.pipeline() as pipeline:
        connection.execute(INSERT, ["j"])
        pipeline.sync()
        connection.execute(INSERT, ["k"])
        with connection.transaction():
            connection.execute(INSERT, ["l"])


SCENARIOS: dict[str, Work] = {
    work.__name__: work
    for work in (
        commit, rollback, reads, aborted, commit_that_fails, texts, blocks, many, many_returning, copy_in,
        stream, prepared, named_cursor, composed, upsert, function, two_phases, pipelined, autocommit,
    )
}  # fmt: skip
ONE, OPAQUE = [["item", "insert", 1]], "opaque"
EXPECTED: dict[str, list[Any]] = {
    "commit": [[["item", "delete", 1], ["item", "insert", 2], ["item", "update", 2]]],
    "rollback": [ONE],
    "reads": [],
    "aborted": [],
    "commit_that_fails": [ONE],
    "texts": [ONE],
    "blocks": [[["item", "insert", 1], ["item", "update", 1]]],
    "many": [[["item", "insert", 3]]],
    "many_returning": [OPAQUE],
    "copy_in": [[["item", "insert", 3]]],
    "stream": [OPAQUE],
    "prepared": [[["item", "insert", 3]]],
    "named_cursor": [[["item", "insert", 4]]],
    "composed": [[["item", "delete", 1], ["item", "insert", 1]]],
    "upsert": [OPAQUE],
    "function": [OPAQUE],
    "two_phases": [ONE],
    "pipelined": [OPAQUE, OPAQUE],
    "autocommit": [
        ONE,
        [["item", "insert", 2]],
        [["item", "insert", 2]],
        ONE,
        [["item", "insert", 2]],
        OPAQUE,
        OPAQUE,
        OPAQUE,
    ],
}


def claims_of(name: str, dsn: str) -> list[Any]:
    forget()
    with psycopg.connect(dsn) as connection:
        SCENARIOS[name](connection)
    return noted("claim")


@pytest.mark.parametrize("name", SCENARIOS)
def test_ordinary_work_claims_what_it_commits(
    name: str, service: Service, sides: Sides, run: TestRun
) -> None:
    """Per transaction one claim with rows by table and operation; opaque where the driver cannot count."""
    claims = service.call(claims_of, name, sides.app)
    fingerprints = [told if told == OPAQUE else json.loads(told) for _, told, _, _ in claims]
    assert fingerprints == EXPECTED[name]
    assert {store for store, _, _, _ in claims} <= {"orders"}


def test_claims_account_for_production_s_own_log(service: Service, sides: Sides, run: TestRun) -> None:
    """Decoded from the write-ahead log: no transaction without a claim, and no claim without one."""
    # Given
    capture = WalCapture(sides.url(sides.production_database), lambda *_: None)
    capture.open()
    try:
        # When
        rows = []
        for name in SCENARIOS:
            for store, told, begin_ns, end_ns in service.call(claims_of, name, sides.app):
                rows.append({"store": store, "fingerprint": told, "begin_ns": begin_ns, "end_ns": end_ns})
        capture.drain(20)
        changes = capture.changes()
        found = attribute(changes, capture.claims(rows), slack_ns=0)
    finally:
        capture.close()
    # Then
    assert found.unattributed == ()
    assert len(changes) == len(rows) == sum(map(len, EXPECTED.values()))
    assert found.opaque == sum(claims.count(OPAQUE) for claims in EXPECTED.values())


def run_of_nothing(dsn: str) -> Any:
    forget()
    with psycopg.connect(dsn) as connection:
        commit(connection)
    return noted("claim")


def test_without_a_live_run_nothing_is_claimed(service: Service, sides: Sides, run: TestRun) -> None:
    """Claims are for the audit of a run; between runs the ledger stays empty."""
    run.remove()
    assert service.call(run_of_nothing, sides.app) == []


def lose_connection_at_commit(dsn: str, admin: str) -> Any:
    forget()
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn) as connection:
        connection.execute(INSERT, ["x"])
        pid = connection.info.backend_pid
        with psycopg.connect(admin, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        connection.commit()
    return [told for _, told, _, _ in noted("claim")]


def test_a_commit_whose_connection_was_lost_may_have_been_done(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """It is claimed: production may have the row."""
    told = service.call(lose_connection_at_commit, sides.app, sides.url("postgres"))
    assert told == ['[["item", "insert", 1]]']


def all_scenarios(dsn: str, mark: dict[str, Any]) -> Any:
    forget()
    for name in SCENARIOS:
        with marked(mark), psycopg.connect(dsn) as connection:
            SCENARIOS[name](connection)
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
    assert len(sides.notes("shadow")) > 10
    assert sides.query("shadow", "SELECT DISTINCT owner FROM item") == [(sides.shadow_role,)]


@contextlib.contextmanager
def unrecorded():
    """Be within a request that sampling left out."""
    from opentelemetry import context, trace

    from perflab.shadow import scope

    flags = trace.TraceFlags(0)
    left_out = trace.NonRecordingSpan(trace.SpanContext(1 << 64 | 1, 7, is_remote=False, trace_flags=flags))
    token = context.attach(trace.set_span_in_context(left_out))
    scope.leave_out(left_out)
    try:
        yield
    finally:
        scope.leave_out(None)
        context.detach(token)


def begin_unwatched(dsn: str) -> None:
    forget_runs()
    kept["early"] = psycopg.connect(dsn)
    with unrecorded():
        kept["early"].execute(INSERT, ["before"])


def end_and_go_on() -> list[Any]:
    forget()
    connection = kept.pop("early")
    with unrecorded():
        connection.commit()
        connection.execute(INSERT, ["after"])
        connection.commit()
    connection.close()
    return [told for _, told, _, _ in noted("claim")]


def test_a_transaction_that_began_before_the_run_is_claimed(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Nobody counted what it wrote then, so its claim is opaque; the next one is exact again."""
    # Given a transaction that began while no run was live
    run.remove()
    service.call(begin_unwatched, sides.app)
    # When it is committed during a run
    later = sides.begin_run()
    told = service.call(end_and_go_on)
    later.remove()
    # Then
    assert told == [OPAQUE, json.dumps(ONE)]


def in_a_request_and_outside(dsn: str) -> list[bool]:
    import flask

    from perflab.shadow.scope import process

    app = flask.Flask("claims")

    def write() -> str:
        with psycopg.connect(dsn) as connection:
            connection.execute(INSERT, ["x"])
        return ""

    poll()
    process.ledger.take()
    app.add_url_rule("/", view_func=write)
    app.test_client().get("/")
    write()
    return ["background" in claim for claim in process.ledger.take()["claims"]]


def test_a_claim_says_whether_a_request_wrote_it(service: Service, sides: Sides, run: TestRun) -> None:
    """What a thread or a job of the service wrote may have been handed to it by anybody."""
    assert service.call(in_a_request_and_outside, sides.app) == [False, True]
