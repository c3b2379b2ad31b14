"""psycopg 2 in the weaker modes of a store, with a wait callback, and where nothing is to be noted."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from attached_service import Service, attempt, forget, forget_runs, is_refused, kept, marked, noted
from psycopg2 import sql
from two_sides import Sides, TestRun


def rewritten(dsn: str, mark: dict[str, Any]) -> Any:
    """Have another statement sent, as in the weaker modes; note what was asked for."""
    from perflab.shadow.sql import session

    asked: list[str] = []

    def another(known: Any, text: str) -> str:
        assert known.mode == "table"
        asked.append(text)
        return text.replace("item", "stock").replace("(note)", "(id)")

    original, session.to_send = session.to_send, another
    try:
        with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as connection:
            connection._perflab.mode = "table"
            cursor = connection.cursor()
            cursor.execute(sql.SQL("INSERT INTO {} (note) VALUES (%s)").format(sql.Identifier("item")), ["1"])
            cursor.execute(query="INSERT INTO item (note) VALUES (2)")
            cursor.executemany("INSERT INTO item (note) VALUES (%s)", [["3"], ["4"]])
            cursor.copy_expert("COPY item (note) FROM STDIN", io.StringIO("5\n"))
            refused = [
                attempt(lambda: cursor.copy_from(io.StringIO("6\n"), "item", columns=["note"])),
                attempt(lambda: connection.lobject(0)),
            ]
            cursor.execute("SELECT array_agg(id ORDER BY id) FROM item")
            return [asked, refused, cursor.fetchone()[0]]
    finally:
        session.to_send = original


def test_the_weaker_modes_send_another_statement(service: Service, sides: Sides, run: TestRun) -> None:
    """Each is judged with its values in it; what cannot be rewritten is refused, large objects too."""
    asked, refused, numbers = service.call(rewritten, sides.app, run.mark())
    assert asked == [
        """INSERT INTO "item" (note) VALUES ('1')""",
        "INSERT INTO item (note) VALUES (2)",
        "INSERT INTO item (note) VALUES ('3')",
        "INSERT INTO item (note) VALUES ('4')",
        "INSERT INTO item (note) VALUES (%s)",
        "COPY item (note) FROM STDIN",
        'COPY "item" FROM STDIN',
        "SELECT array_agg(id ORDER BY id) FROM item",
    ]
    assert numbers == [1, 2, 3, 4, 5]
    assert is_refused(refused[0], "write it as a statement")
    assert is_refused(refused[1], "large objects belong to the whole database")


def values_that_are_sql(dsn: str, mark: dict[str, Any]) -> list[Any]:
    from psycopg2.extensions import AsIs

    with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as connection:
        connection._perflab.mode, connection._perflab.within = "table", "shadow_"
        cursor = connection.cursor()
        evil = AsIs("add_item('x')")
        return [
            attempt(lambda: cursor.execute("SELECT %s", [evil])),
            attempt(lambda: cursor.execute(query="SELECT %(value)s", vars={"value": evil})),
            attempt(lambda: cursor.executemany("SELECT %s", [[1], [evil]])),
        ]


def test_a_value_that_writes_itself_as_sql_is_judged(service: Service, sides: Sides, run: TestRun) -> None:
    """``AsIs`` merges a function call into the statement after the service wrote it: it is refused."""
    for said in service.call(values_that_are_sql, sides.app, run.mark()):
        assert str(said).startswith("ShadowError: "), said
        assert "add_item" in said


def with_a_wait_callback(dsn: str, mark: dict[str, Any]) -> Any:
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    try:
        with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as connection:
            connection.cursor().execute("INSERT INTO item (note) VALUES ('a')")
            connection.commit()
            return connection.info.dbname
    finally:
        psycopg2.extensions.set_wait_callback(None)


def test_green_mode_is_routed(service: Service, sides: Sides, run: TestRun) -> None:
    """With a wait callback, as cooperative frameworks set one, marked work is on the shadow as ever."""
    assert service.call(with_a_wait_callback, sides.app, run.mark()) == sides.shadow_database
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["a"])


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Be within a request that sampling left out."""
    from opentelemetry import trace

    from perflab.shadow import scope

    scope.leave_out(trace.NonRecordingSpan(trace.SpanContext(1 << 64 | 1, 7, is_remote=False)))
    try:
        yield
    finally:
        scope.leave_out(None)


def end_and_go_on() -> Any:
    forget()
    connection = kept.pop("early")
    with unrecorded(), contextlib.closing(connection):
        connection.commit()
        connection.cursor().execute("INSERT INTO item (note) VALUES ('after')")
        connection.commit()
    return [told for _, told, _, _ in noted("claim")]


def begin_without_a_run(dsn: str) -> None:
    forget_runs()
    kept["early"] = psycopg2.connect(dsn)
    with unrecorded():
        kept["early"].cursor().execute("INSERT INTO item (note) VALUES ('before')")


def test_a_transaction_that_began_before_the_run_is_claimed(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Nobody counted what it wrote then, so its claim is opaque; the next one is exact again."""
    # Given a transaction that began while no run was live
    run.remove()
    service.call(begin_without_a_run, sides.app)
    # When it is committed during a run
    later = sides.begin_run()
    told = service.call(end_and_go_on)
    later.remove()
    # Then
    assert told == ["opaque", '[["item", "insert", 1]]']


def keep_shadow(dsn: str, mark: dict[str, Any]) -> None:
    with marked(mark):
        kept["shadow"] = psycopg2.connect(dsn)


def use_kept_unwatched() -> Any:
    with unrecorded(), contextlib.closing(kept.pop("shadow")) as connection:
        said = attempt(lambda: connection.cursor().execute("INSERT INTO item (note) VALUES ('user')"))
        connection.commit()
        return said


def test_the_sides_are_kept_apart_when_nothing_is_noted(service: Service, sides: Sides, run: TestRun) -> None:
    """Ordinary work that no run needs claims of still cannot use a shadow connection: it takes it over."""
    service.call(keep_shadow, sides.app, run.mark())
    run.remove()
    assert service.call(use_kept_unwatched) is None
    assert (sides.notes("production"), sides.notes("shadow")) == (["user"], [])
