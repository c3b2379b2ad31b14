"""psycopg 2: an object that ordinary work took over stands for another one, as if it were that."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest
from attached_service import Service, attempt, forget, is_refused, marked, noted, wait_for
from two_sides import Sides, TestRun

from perflab.shadow.sql.takeover import TAKEN_OVER

Mark = dict[str, Any] | None
ADD = "INSERT INTO item (note) VALUES (%s)"
LOST = "OperationalError: perflab: this connection belonged to a load test; it was closed"
FROM_BEFORE = "this connection was opened for production"


class Mixed:
    """What a service mixes in."""

    def where(self: Any) -> str:
        with self.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            return str(cursor.fetchone()[0])


class Mine(psycopg2.extensions.connection, Mixed):
    """A service's own class."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.commits = 0

    def commit(self) -> None:
        self.commits += 1
        super().commit()


def stand_in(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg2.connect(dsn, connection_factory=Mine)
        connection.set_session("SERIALIZABLE", readonly=False)
        cursor = connection.cursor(cursor_factory=psycopg2.extras.DictCursor)
        cursor.arraysize = 7
        cursor.execute(ADD, ["marked"])
        connection.commit()
        cursor.execute(ADD, ["open"])
    forget()
    cursor.execute(f"{ADD} RETURNING note", ["by a cursor from before"])
    said: dict[str, Any] = {"row": dict(cursor.fetchone()), "aside": noted("step_aside")}
    connection.commit()
    with connection as entered, connection.cursor() as other:
        other.execute(ADD, ["with"])
        said["entered"] = entered is connection
    said["counted"] = connection.commits
    connection.mine = 1
    said["own"] = [connection.mine, cursor.arraysize, connection.where(), connection.isolation_level]
    said["kinds"] = [isinstance(connection, Mine), isinstance(connection, psycopg2.extensions.connection),
                     type(connection).__name__, connection.__class__ is Mine,
                     weakref.ref(connection)() is connection]  # fmt: skip
    said["looks"] = [connection.closed, connection.info.dbname, connection.encoding, connection.autocommit,
                     connection.get_backend_pid() == connection.info.backend_pid]  # fmt: skip
    large = connection.lobject(0, "w")
    said["large"] = large.write("abc")
    large.close()
    connection.rollback()
    connection.autocommit = True
    said["claims"] = len(noted("claim"))
    with marked(mark):
        said["marked"] = [attempt(lambda: connection.cursor().execute(ADD, ["later"])),
                          attempt(lambda: cursor.execute(ADD, ["later"])),
                          attempt(lambda: connection.set_session(readonly=True))]  # fmt: skip
    connection.close()
    said["closed"] = [connection.closed, attempt(connection.cursor)]
    return said


def test_an_object_that_stands_for_another(service: Service, sides: Sides, run: TestRun) -> None:
    """Attributes, settings, blocks, cursors, a class of the service's own: nothing tells the difference."""
    before = _sessions(sides)
    said = service.call(stand_in, sides.app, run.mark())
    assert said["row"] == {"note": "by a cursor from before"}
    assert said["aside"] == [[TAKEN_OVER]]
    assert said["entered"] is True
    assert said["counted"] == 3  # the marked one, a user's, and that of "with"
    assert said["own"] == [1, 7, sides.production_database, 3]
    assert said["kinds"] == [True, True, "Mine", True, True]
    assert said["looks"] == [0, sides.production_database, "UTF8", False, True]
    assert (said["large"], said["claims"]) == (3, 2)
    assert all(is_refused(answer, FROM_BEFORE) for answer in said["marked"]), said["marked"]
    assert said["closed"] == [1, "InterfaceError: connection already closed"]
    assert sides.notes("production") == ["by a cursor from before", "with"]
    assert sides.notes("shadow") == ["marked"]
    wait_for(lambda: _sessions(sides) <= before, "its sessions end on both sides")


def _sessions(sides: Sides) -> set[int]:
    asked = "SELECT pid FROM pg_stat_activity WHERE usename IN ('both_role', 'both_app')"
    return {int(pid) for (pid,) in sides.query("production", asked)}


def ended(connection: Any) -> Any:
    connection.commit()
    return None


def given_up(connection: Any) -> Any:
    connection.rollback()
    return None


def let_go(connection: Any) -> Any:
    connection.close()
    return None


def looked_at(connection: Any) -> Any:
    return connection.get_parameter_status("server_encoding") and None


FIRST: dict[str, Callable[[Any], Any]] = {way.__name__: way for way in (ended, given_up, let_go, looked_at)}


def begin_with(way: str, dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg2.connect(dsn)
        connection.cursor().execute(ADD, ["open"])
    forget()
    first = attempt(lambda: FIRST[way](connection))
    if connection.closed:  # as a service does
        connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        cursor.execute(ADD, ["user"])
    connection.commit()
    connection.close()
    return [first, noted("refuse")]


@pytest.mark.parametrize("way", FIRST)
def test_what_marked_work_left_open_is_gone(service: Service, sides: Sides, run: TestRun, way: str) -> None:
    """Whatever a real user begins with: nothing of the marked transaction is committed anywhere."""
    assert service.call(begin_with, way, sides.app, run.mark()) == [None, []]
    assert (sides.notes("production"), sides.notes("shadow")) == (["user"], [])


def use_what_is_lost(what: str, dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg2.connect(dsn)
        if what == "a type":
            kind = psycopg2.extensions.new_type((99999,), "MINE", lambda value, _: value)
            psycopg2.extensions.register_type(kind, connection)
        elif what == "an encoding":
            connection.set_client_encoding("LATIN1")
        named = connection.cursor("named")
        named.execute("SELECT generate_series(1, 10)")
        if what == "closed":
            connection.close()
    if what == "a named cursor":
        return [attempt(named.fetchone)]
    return [attempt(lambda: connection.cursor().execute(ADD, ["user"]))]


@pytest.mark.parametrize("what", ["a type", "an encoding", "a named cursor", "closed"])
def test_what_would_not_be_the_same_is_lost(service: Service, sides: Sides, run: TestRun, what: str) -> None:
    """Types and encodings of the connection, a cursor the server kept; what was closed stays closed."""
    closed = "InterfaceError: connection already closed"
    assert service.call(use_what_is_lost, what, sides.app, run.mark()) == [
        closed if what == "closed" else LOST
    ]
    assert sides.notes("production") == []


def break_before(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg2.connect(dsn)
        cursor = connection.cursor()
        attempt(lambda: cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())"))
    broken = connection.closed
    with connection.cursor() as cursor:
        cursor.execute(ADD, ["user"])
    connection.commit()
    connection.close()
    return broken


def test_a_shadow_that_broke_does_no_harm(service: Service, sides: Sides, run: TestRun) -> None:
    """What the shadow's server ended goes on in production."""
    assert service.call(break_before, sides.app, run.mark()) == 2
    assert sides.notes("production") == ["user"]


def keep_from_a_pool(dsn: str, mark: Mark) -> Any:
    pool = psycopg2.pool.SimpleConnectionPool(0, 1, dsn)
    with marked(mark):
        connection = pool.getconn()
    said = attempt(lambda: connection.cursor().execute(ADD, ["user"]))
    with marked(mark):
        pool.putconn(connection)
        where = pool.getconn().info.dbname
    pool.closeall()
    return [said, where]


def test_a_twin_pools_connection_stays_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Ordinary work that was handed one loses it; the twin goes on."""
    assert service.call(keep_from_a_pool, sides.app, run.mark()) == [LOST, sides.shadow_database]
    assert sides.notes("production") == []


def keep_from_an_engine(dsn: str, mark: Mark) -> Any:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"postgresql+psycopg2://{dsn.partition('://')[2]}")
    with marked(mark):
        checked_out = engine.raw_connection()
        connection = checked_out.driver_connection
    said = attempt(lambda: connection.cursor().execute(ADD, ["user"]))
    with marked(mark):
        checked_out.invalidate()
    engine.dispose()
    return said


def test_an_engines_connection_stays_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Also where the twin is SQLAlchemy's."""
    assert service.call(keep_from_an_engine, sides.app, run.mark()) == LOST
    assert sides.notes("production") == []
