"""psycopg 2 as its users know it: attached or not, ordinary work sees no difference."""

from __future__ import annotations

import contextlib
import copy
import io
import weakref
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from attached_service import Service, attempt, forget, marked, noted, plain_of
from psycopg2 import sql
from two_sides import Sides, TestRun

ADD = "INSERT INTO item (note) VALUES (%s)"


class Mine(psycopg2.extensions.connection):
    """A service's own class, as its factory."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.mine = "room of its own"


class Words(psycopg2.extensions.cursor):
    """A service's own cursor."""

    def fetchone(self) -> Any:
        row = super().fetchone()
        return row and [str(value) for value in row]


def ordinary_day(dsn: str) -> Any:
    """Use what there is, and say what came of it."""
    said: dict[str, Any] = {}

    def say(name: str, way: Callable[[], Any]) -> None:
        said[name] = plain_of(attempt(way))

    connection = psycopg2.connect(dsn, connection_factory=Mine)
    cursor = connection.cursor()
    run = cursor.execute
    say("insert", lambda: (run(ADD, ["a"]), cursor.rowcount, cursor.statusmessage, cursor.query))
    say("many", lambda: (cursor.executemany(ADD, [["b"], ["c"]]), cursor.rowcount))
    say("returning", lambda: (run(f"{ADD} RETURNING note", ["d"]), cursor.fetchall(), cursor.rowcount))
    say("iterate", lambda: (run("SELECT note FROM item ORDER BY note"), [note for (note,) in cursor]))
    say("statuses", lambda: (connection.status, connection.info.transaction_status, connection.closed))
    say("commit", connection.commit)
    say("wrong", lambda: run("SELEKT"))
    say("aborted", lambda: run("SELECT 1"))
    say("code", lambda: _code(cursor))
    say("rollback", connection.rollback)
    say("too few", lambda: run("SELECT %s, %s", [1]))
    say("no query", cursor.execute)
    say("mogrify", lambda: cursor.mogrify(ADD, ["it's"]))
    say("call", lambda: (cursor.callproc("add_item", ["x"]), cursor.rowcount))
    say("copy in", lambda: (cursor.copy_from(io.StringIO("y\n"), "item", columns=["note"]), cursor.rowcount))
    say("copy out", lambda: _copied(cursor))
    say("copy wrong", lambda: cursor.copy_expert("COPY nothing FROM STDIN", io.StringIO()))
    connection.rollback()
    say("named", lambda: _named(connection))
    say("named wrong", lambda: connection.cursor("a").fetchone())
    connection.rollback()
    say("own cursor", lambda: _own(connection))
    say("bad cursor", lambda: connection.cursor(cursor_factory=lambda *_: 1))
    say("row kinds", lambda: [_row(connection, kind) for kind in ("Dict", "RealDict", "NamedTuple")])
    say(
        "values", lambda: psycopg2.extras.execute_values(cursor, "INSERT INTO item (note) VALUES %s", [["v"]])
    )
    say("composed", lambda: sql.SQL("SELECT {}").format(sql.Identifier("a")).as_string(connection))
    say("quoted", lambda: psycopg2.extensions.quote_ident("a", cursor))
    say("uuid", lambda: psycopg2.extras.register_uuid(conn_or_curs=connection).name)
    say("json", lambda: (run("SELECT %s::jsonb", [psycopg2.extras.Json({"a": 1})]), cursor.fetchone()))
    say("in transaction", lambda: setattr(connection, "autocommit", True))
    connection.commit()
    say("session", lambda: connection.set_session("SERIALIZABLE", readonly=True, deferrable=True))
    say("levels", lambda: (connection.isolation_level, connection.readonly, connection.deferrable))
    say("read only", lambda: run(ADD, ["never"]))
    connection.rollback()
    connection.set_session("DEFAULT", readonly=False, deferrable=None)
    say("autocommit", lambda: (setattr(connection, "autocommit", True), connection.autocommit))
    say("bad level", lambda: setattr(connection, "isolation_level", 99))
    say("large", lambda: _large(connection))
    say("with", lambda: _with(connection))
    say("own attribute", lambda: connection.mine)
    say("copied", lambda: type(attempt(lambda: copy.copy(connection))).__name__)
    say("weak", lambda: weakref.ref(cursor)() is cursor)
    say("room", lambda: _room(dsn))
    say("kinds", lambda: [isinstance(cursor, psycopg2.extensions.cursor), _exact(dsn)])
    say("names", lambda: [repr(kind) for kind in (psycopg2.extensions.connection, type(cursor))])
    say(
        "docs", lambda: [Mine.commit.__doc__, Mine.cursor.__doc__, type(cursor).__doc__, Mine.commit.__name__]
    )
    say(
        "repr", lambda: [repr(cursor).split(" at ")[0], repr(connection).split(" at ")[0], connection.dsn[:9]]
    )
    say("unreachable", lambda: psycopg2.connect("host=127.0.0.1 port=1"))
    say("nonsense", lambda: psycopg2.connect("nonsense"))
    say("nothing", lambda: psycopg2.connect(dsn, nonsense=1))
    say("factory", lambda: psycopg2.connect(dsn, connection_factory=lambda dsn: Mine(dsn)).mine)
    say("closed", connection.close)
    say("after", lambda: run("SELECT 1"))
    say("commit after", connection.commit)
    say("closed again", connection.close)
    return said


def _code(cursor: Any) -> Any:
    try:
        cursor.execute("SELECT 1")
    except psycopg2.Error as error:
        return [error.pgcode, error.cursor is cursor, type(error).__mro__[1].__name__]


def _copied(cursor: Any) -> Any:
    written = io.StringIO()
    cursor.copy_expert("COPY (SELECT 7) TO STDOUT", written)
    return [written.getvalue(), cursor.rowcount]


def _named(connection: Any) -> Any:
    with connection.cursor("one", scrollable=True) as cursor:
        cursor.itersize = 2
        cursor.execute("SELECT generate_series(1, 6)")
        said = [cursor.fetchone(), cursor.fetchmany(2), cursor.rowcount, cursor.name, cursor.scrollable]
        cursor.scroll(0, mode="absolute")
        return [*said, [number for (number,) in cursor], type(cursor).__name__, repr(type(cursor))]


def _own(connection: Any) -> Any:
    with connection.cursor("two", Words) as cursor:
        cursor.execute("SELECT 1")
        return [cursor.fetchone(), type(cursor).__name__, isinstance(cursor, Words)]


def _row(connection: Any, kind: str) -> Any:
    with connection.cursor(cursor_factory=getattr(psycopg2.extras, f"{kind}Cursor")) as cursor:
        cursor.execute("SELECT 1 AS one")
        return repr(cursor.fetchone())


def _large(connection: Any) -> Any:
    connection.autocommit = False
    large = connection.lobject(0, "rwb")
    said = [large.write(b"abc"), large.seek(1), large.read(), large.tell(), large.mode, large.closed]
    large.truncate(2)
    large.seek(0)
    said += [large.read(), isinstance(large, psycopg2.extensions.lobject), repr(large).split(" at ")[0]]
    large.unlink()
    connection.rollback()
    return said


def _with(connection: Any) -> Any:
    with contextlib.suppress(ZeroDivisionError), connection, connection.cursor() as cursor:
        cursor.execute(ADD, ["never"])
        raise ZeroDivisionError
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM item WHERE note = 'never'")
        return [cursor.fetchone(), connection.info.transaction_status]


def _room(dsn: str) -> Any:
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        return attempt(lambda: setattr(connection, "mine", 1)).split(":")[0]


def _exact(dsn: str) -> bool:
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        return type(connection) is psycopg2.extensions.connection


def test_ordinary_work_sees_no_difference(
    service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """Results, exceptions, types, names and documentation are the same in a process without the agent."""
    service.call(forget)
    attached = service.call(ordinary_day, sides.app)
    sides.empty()
    assert attached == plain.call(ordinary_day, sides.app)
    assert service.call(noted, "refuse") == []


def break_and_go_on(dsn: str, mark: dict[str, Any] | None) -> Any:
    """Break what the hook does around each statement, in the attached process."""
    from perflab.shadow.sql import psycopg2_steps as hook
    from perflab.shadow.sql import session

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    replaced = [(hook, "read_statement"), (hook, "settle"), (session, "find")]
    before = [getattr(module, name) for module, name in replaced]
    forget()
    try:
        for module, name in replaced:
            setattr(module, name, broken)
        with marked(mark), contextlib.closing(psycopg2.connect(dsn)) as connection:
            cursor = connection.cursor()
            cursor.execute(ADD, ["a"])
            connection.commit()
            return [cursor.rowcount, sorted(told for (told,) in noted("step_aside"))]
    except RuntimeError as error:
        return str(error)
    finally:
        for (module, name), what in zip(replaced, before, strict=True):
            setattr(module, name, what)


def test_a_hook_that_fails_steps_aside(service: Service, sides: Sides, run: TestRun) -> None:
    """Ordinary work is served as ever, and it is counted; marked work is not served."""
    done, aside = service.call(break_and_go_on, sides.app, None)
    assert done == 1
    assert aside == ["postgresql: execute: RuntimeError", "sql: a connection could not be told"]
    assert sides.notes("production") == ["a"]
    assert service.call(break_and_go_on, sides.app, run.mark()) == "broken"
    assert (sides.notes("production"), sides.notes("shadow")) == (["a"], [])
