"""sqlite3 as its users know it: attached or not, ordinary work sees no difference."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from attached_service import Service, attempt, forget, is_refused, marked, noted, plain_of, span_names
from sqlalchemy.pool import NullPool, QueuePool, SingletonThreadPool, StaticPool
from sqlite_sides import TABLE, FileSides, file_sides
from two_sides import Sides, TestRun

ADD = "INSERT INTO note (text) VALUES (?)"
Mark = dict[str, Any] | None


@pytest.fixture(scope="module")
def opened(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileSides]:
    with file_sides(sides, tmp_path_factory.mktemp("files")) as made:
        yield made


@pytest.fixture
def files(opened: FileSides) -> tuple[str, str]:
    """Make both files anew: production's and its shadow."""
    opened.restore()
    return str(opened.production), str(opened.shadow)


@pytest.fixture
def filing(opened: FileSides) -> Service:
    return opened.service


class Mine(sqlite3.Connection):
    """A service's own class, as its factory."""

    def save(self) -> str:
        self.commit()
        return "saved"


class Rows(sqlite3.Cursor):
    """A service's own cursor."""


def ordinary_day(path: str) -> Any:
    """Use what there is, and say what came of it."""
    said: dict[str, Any] = {}

    def say(name: str, way: Callable[[], Any]) -> None:
        said[name] = plain_of(attempt(way))

    connection = sqlite3.connect(path, factory=Mine)
    cursor = connection.cursor()
    say("insert", lambda: cursor.execute(ADD, ["a"]).rowcount)
    say("many", lambda: cursor.executemany(ADD, [["b"], ["c"]]).rowcount)
    say("lastrowid", lambda: cursor.lastrowid)
    say("double", lambda: cursor.execute(ADD, ["a"]))
    say("in transaction", lambda: connection.in_transaction)
    say("saved", connection.save)
    say("returning", lambda: cursor.execute(f"{ADD} RETURNING id, text", ["d"]).fetchall())
    say("changes", lambda: connection.total_changes)
    say("rolled back", connection.rollback)
    say("iterate", lambda: [row[0] for row in connection.execute("SELECT text FROM note ORDER BY text")])
    connection.row_factory = sqlite3.Row
    say("row", lambda: dict(connection.execute("SELECT id, text FROM note").fetchone()))
    say("own cursor", lambda: type(connection.cursor(Rows)).__name__)
    say("bad cursor", lambda: connection.cursor(lambda _: 1))
    say("no cursor", lambda: connection.cursor(None))
    say("short type", lambda: type(connection.execute("SELECT 1")) is sqlite3.Cursor)
    say("script", lambda: connection.executescript("CREATE TABLE x (y); INSERT INTO x VALUES (1);").rowcount)
    say("syntax", lambda: connection.execute("SELEKT"))
    say("no text", lambda: cursor.execute(1))
    say("no arguments", cursor.execute)
    say("level", lambda: (connection.isolation_level, setattr(connection, "isolation_level", "IMMEDIATE")))
    say("bad level", lambda: setattr(connection, "isolation_level", 1))
    say("dump", lambda: len(list(connection.iterdump())))
    say("function", lambda: connection.create_function("twice", 1, lambda x: 2 * x))
    say("call", lambda: tuple(connection.execute("SELECT twice(4)").fetchone()))
    say("blob", lambda: _blob_day(connection))
    say("savepoint", lambda: [connection.execute(f"{word} s").rowcount for word in ("SAVEPOINT", "RELEASE")])
    say("authorizer", lambda: _authorizer_day(connection))
    say("backup", lambda: _backup_day(connection))
    say("serialize", lambda: len(connection.serialize()) > 100)

    def failing() -> None:
        with connection:
            connection.execute(ADD, ["never"])
            raise ZeroDivisionError

    say("with failing", failing)
    say("count", lambda: tuple(connection.execute("SELECT count(*) FROM note").fetchone()))
    say("copy", lambda: copy.copy(connection))
    say("weak", lambda: weakref.ref(sqlite3.connect(":memory:")))
    say("room", lambda: setattr(sqlite3.connect(":memory:"), "mine", 1))
    say("kinds", lambda: [isinstance(connection, sqlite3.Connection), isinstance(cursor, sqlite3.Cursor)])
    say("names", lambda: [repr(sqlite3.Connection), repr(sqlite3.Cursor), sqlite3.connect.__name__])
    say("repr", lambda: repr(sqlite3.connect(":memory:")).split(" at ")[0])
    say("docs", lambda: [sqlite3.Connection.commit.__doc__, sqlite3.Cursor.__doc__, Mine.cursor.__doc__])
    say("nothing", sqlite3.connect)
    say("no path", lambda: sqlite3.connect(1.5))
    say("no directory", lambda: sqlite3.connect("/nowhere/x.db"))
    say("function factory", lambda: type(sqlite3.connect(":memory:", factory=_factory)).__name__)
    say("closed", connection.close)
    say("after", lambda: connection.execute("SELECT 1"))
    say("closed again", connection.close)
    return said


def _factory(*given: Any, **options: Any) -> Any:
    return Mine(*given, **{**options, "factory": Mine})


def _blob_day(connection: Any) -> Any:
    connection.execute("UPDATE note SET data = zeroblob(6)")
    with connection.blobopen("note", "data", 1) as blob:
        blob.write(b"abc")
        blob[3:5] = b"de"
        blob.seek(0)
        return [blob.read(2), blob[1:5], blob.tell(), len(blob), isinstance(blob, sqlite3.Blob)]


def _authorizer_day(connection: Any) -> Any:
    connection.set_authorizer(lambda action, *_: 1 if action == sqlite3.SQLITE_DELETE else 0)
    said = attempt(lambda: connection.execute("DELETE FROM note"))
    connection.set_authorizer(None)
    return said


def _backup_day(connection: Any) -> Any:
    connection.commit()
    with contextlib.closing(sqlite3.connect(":memory:")) as target:
        connection.backup(target)
        return target.execute("SELECT count(*) FROM note").fetchone()


# the driver's own words name a class as C has it; a subclass is named by its last name
_OTHER_WORDS = ("weak", "room")


def test_ordinary_work_sees_no_difference(filing: Service, plain: Service, files: tuple[str, str]) -> None:
    """Results, exceptions, types, names and documentation are the same in a process without the agent."""
    # Given
    bare = Path(files[0]).with_name("bare.db")
    with contextlib.closing(sqlite3.connect(bare)) as made:
        made.execute(TABLE)
    # When
    attached, expected = filing.call(ordinary_day, files[0]), plain.call(ordinary_day, str(bare))
    # Then
    for name in _OTHER_WORDS:
        assert attached.pop(name) == expected.pop(name).replace("sqlite3.Connection", "Connection")
    assert attached == expected
    assert filing.call(noted, "refuse") == []


def spans_of(path: str) -> Any:
    forget()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        with connection:
            connection.execute(ADD, ["a"])
            connection.executemany(ADD, [["b"], ["c"]])
        connection.commit()
        list(connection.execute("SELECT text FROM note"))
        connection.execute("DELETE FROM note")
        connection.rollback()
    return [span_names(), noted("claim"), noted("step_aside")]


def test_every_statement_is_a_span(filing: Service, files: tuple[str, str], run: TestRun) -> None:
    """One for each statement and for each end of a transaction; SQLite's files are not claimed for."""
    names, claims, aside = filing.call(spans_of, files[0])
    assert names == ["INSERT note", "INSERT note", "COMMIT", "SELECT note", "DELETE note", "ROLLBACK"]
    assert (claims, aside) == ([], [])


def break_and_go_on(path: str) -> Any:
    """Break what the hook does before each statement, in the attached process."""
    from perflab.shadow.sql import session
    from perflab.shadow.sql import sqlite3 as hook

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    read, find = hook.read_statement, session.find
    hook.read_statement, session.find = broken, broken
    forget()
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            return [connection.execute(ADD, ["a"]).rowcount, noted("step_aside")]
    finally:
        hook.read_statement, session.find = read, find


def test_a_hook_that_fails_steps_aside(filing: Service, files: tuple[str, str]) -> None:
    """Ordinary work is served as ever, and it is counted."""
    done, aside = filing.call(break_and_go_on, files[0])
    assert done == 1
    assert aside == [["sql: a connection could not be told"], ["sqlite: execute: RuntimeError"]]


def factories(path: str, mark: Mark) -> Any:
    original = sqlite3.Connection.__mro__[-2]

    def bare(*given: Any, **options: Any) -> Any:
        return original(*given, **{**options, "factory": original})

    def use(factory: Any) -> Any:
        with contextlib.closing(sqlite3.connect(path, factory=factory)) as connection, connection:
            return connection.execute(ADD, [repr(factory)]).rowcount

    with marked(mark):
        said = {
            "class": attempt(lambda: use(Mine)),
            "early": attempt(lambda: use(type("Early", (original,), {}))),
            "function": attempt(lambda: use(_factory)),
            "bare": attempt(lambda: use(bare)),
            "memory": attempt(lambda: sqlite3.connect(":memory:").execute("SELECT 1").fetchone()[0]),
        }
    from perflab.shadow.scope import process

    return [said, sorted(process.ledger.holes("shop")), noted("session")]


def test_factories(filing: Service, files: tuple[str, str], run: TestRun) -> None:
    """Classes get the fence beneath them; a function is refused to marked work, a hole where it evades it."""
    said, holes, sessions = filing.call(factories, files[0], run.mark())
    assert (said["class"], said["early"], said["memory"], holes) == (1, 1, 1, [])
    assert is_refused(said["function"], "cannot be fenced")
    assert is_refused(said["bare"], "cannot be fenced")
    assert {tuple(told) for told in sessions} == {("notes", "", files[1], True)}
    said, holes, _ = filing.call(factories, files[0], None)
    assert set(said.values()) == {1}
    assert len(holes) == 1
    assert holes[0].endswith("bare is not covered")


def take_turns(path: str, pool: str, mark: Mark) -> Any:
    """Check out of one engine as marked and ordinary work in turn; count what they met."""
    classes = {one.__name__: one for one in (QueuePool, NullPool, SingletonThreadPool, StaticPool)}
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=classes[pool])
    met: Counter[str] = Counter()
    for turn in range(6):
        who = mark if turn % 2 else None
        with marked(who), engine.begin() as connection:
            listed = connection.execute(sqlalchemy.text("PRAGMA database_list")).all()
            connection.execute(sqlalchemy.text(f"INSERT INTO note (text) VALUES ('{turn}')"))
            met[f"{'marked' if who else 'ordinary'} {Path(listed[0][2]).name}"] += 1
    engine.dispose()
    return met


@pytest.mark.parametrize("pool", ["QueuePool", "NullPool", "SingletonThreadPool", "StaticPool"])
def test_engines_never_mix(pool: str, filing: Service, files: tuple[str, str], run: TestRun) -> None:
    """SQLAlchemy's pools of SQLite connections meet their own side each time."""
    met = filing.call(take_turns, files[0], pool, run.mark())
    assert met == {"ordinary shop.db": 3, "marked shadow of it.db": 3}
    for path, expected in zip(files, (["0", "2", "4"], ["1", "3", "5"]), strict=True):
        with contextlib.closing(sqlite3.connect(path)) as asked:
            assert [text for (text,) in asked.execute("SELECT text FROM note")] == expected
