"""A connection that a service keeps for all, opened by marked work: it serves real users afterwards."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pymysql
import pytest
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted
from maria_sides import APP, MariaSides
from sqlite_sides import FileSides, file_sides
from two_sides import Sides, TestRun

from perflab.shadow.ledger import LOST
from perflab.shadow.sql.takeover import KEPT, TAKEN_OVER, leaves_state

Mark = dict[str, Any] | None
ADD = {
    "psycopg": "INSERT INTO item (note) VALUES (%s)",
    "psycopg2": "INSERT INTO item (note) VALUES (%s)",
    "pymysql": "INSERT INTO item (note) VALUES (%s)",
    "sqlite3": "INSERT INTO note (text) VALUES (?)",
}
SET = {
    "psycopg": "SET statement_timeout = 7000",
    "psycopg2": "SET statement_timeout = 7000",
    "pymysql": "SET @mine = 1",
    "sqlite3": "PRAGMA foreign_keys = 1",
}
DOWN = {
    "psycopg": "is not permitted to log in",
    "psycopg2": "is not permitted to log in",
    "pymysql": "Access denied, this account is locked",
    "sqlite3": "unable to open database file",
}


@dataclass
class Ground:
    """A driver, a service that uses it, and both sides of its store."""

    driver: str
    service: Service
    sides: Any
    login: Any
    run: TestRun

    def notes(self, side: str) -> list[str]:
        """Return what is written on a side."""
        notes: list[str] = (self.sides.texts if self.driver == "sqlite3" else self.sides.notes)(side)
        return notes

    @contextlib.contextmanager
    def production_down(self) -> Iterator[None]:
        """Have production take no new connections of the service."""
        if self.driver == "sqlite3":
            path: Path = self.sides.production
            path.rename(path.with_suffix(".away"))
            path.mkdir()
            down, up = "", ""
        elif self.driver == "pymysql":
            down, up = (f"ALTER USER {APP}@'127.0.0.1' ACCOUNT {how}" for how in ("LOCK", "UNLOCK"))
        else:
            down, up = "ALTER ROLE both_app NOLOGIN", "ALTER ROLE both_app LOGIN"
        try:
            if down:
                self.sides.query("production", down)
            yield
        finally:
            if up:
                self.sides.query("production", up)
            else:
                path.rmdir()
                path.with_suffix(".away").rename(path)


@pytest.fixture(scope="module")
def opened(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileSides]:
    with file_sides(sides, tmp_path_factory.mktemp("files")) as made:
        yield made


@pytest.fixture(params=["psycopg", "psycopg2", "pymysql", "sqlite3"])
def ground(request: pytest.FixtureRequest) -> Ground:
    driver = request.param
    if driver == "pymysql":
        maria: MariaSides = request.getfixturevalue("maria")
        service, run = request.getfixturevalue("maria_service"), request.getfixturevalue("maria_run")
        return Ground(driver, service, maria, maria.login, run)
    run = request.getfixturevalue("run")
    if driver == "sqlite3":
        files: FileSides = request.getfixturevalue("opened")
        files.restore()
        return Ground(driver, files.service, files, {"database": str(files.production)}, run)
    sides: Sides = request.getfixturevalue("sides")
    return Ground(driver, request.getfixturevalue("service"), sides, {"dsn": sides.app}, run)


def connect(driver: str, login: dict[str, Any]) -> Any:
    """Open what an ordinary service would."""
    if driver == "psycopg":
        return psycopg.connect(login["dsn"])
    if driver == "psycopg2":
        return psycopg2.connect(**login)
    if driver == "pymysql":
        return pymysql.connect(**login)
    return sqlite3.connect(**login)


class Shape:
    """Where a service keeps its only connection: in a global, or in one for each of its threads."""

    def __init__(self, shape: str, driver: str, login: dict[str, Any]) -> None:
        self.driver, self.login = driver, login
        self.place: Any = threading.local() if shape == "thread" else type("Module", (), {})()
        self.pool = ThreadPoolExecutor(1) if shape == "thread" else None

    def connection(self) -> Any:
        """Return the connection, opened by who needs it first."""
        if not hasattr(self.place, "connection"):
            self.place.connection = connect(self.driver, self.login)
        return self.place.connection

    def serve(self, mark: Mark, work: Callable[[Any], Any]) -> Any:
        """Serve one request."""
        with marked(mark):
            if self.pool is not None:
                return attempt(lambda: self.pool.submit(lambda: work(self.connection())).result())  # type: ignore[union-attr]  # it is there
            return attempt(lambda: work(self.connection()))

    def close(self) -> None:
        """End the connection, and the thread."""
        self.serve(None, lambda connection: connection.close())
        if self.pool is not None:
            self.pool.shutdown()


def add(driver: str, note: str, *, commit: bool = True) -> Callable[[Any], Any]:
    """Return a request that writes a note."""

    def work(connection: Any) -> Any:
        cursor = connection.cursor()
        cursor.execute(ADD[driver], [note])
        if commit:
            connection.commit()
        return [cursor.rowcount, id(connection)]

    return work


def send(text: str) -> Callable[[Any], Any]:
    """Return a request that sends a statement and does not wait for anything else."""
    return lambda connection: connection.cursor().execute(text) and None


def serve_real_users(shape: str, driver: str, login: dict[str, Any], mark: Mark) -> Any:
    """Serve marked requests, real users, and a marked request again, with the one connection."""
    service = Shape(shape, driver, login)
    service.serve(mark, add(driver, "marked"))
    service.serve(mark, add(driver, "marked and open", commit=False))
    forget()
    said = [service.serve(None, add(driver, f"user {number}")) for number in range(3)]
    aside, refusals, claims = noted("step_aside"), noted("refuse"), noted("claim")
    after = service.serve(mark, add(driver, "marked later"))
    with marked(mark):
        kept_off = attempt(lambda: service.connection().commit()) if shape == "global" else ""
    last = service.serve(None, add(driver, "user 3"))
    service.close()
    return [said, aside, refusals, [claim[:2] for claim in claims], after, kept_off, last]


@pytest.mark.parametrize("shape", ["global", "thread"])
def test_a_connection_kept_for_all_serves_real_users(ground: Ground, shape: str) -> None:
    """In silence, in production only, accounted for; what was open is gone, and marked work is refused."""
    # When
    said, aside, refusals, claims, after, kept_off, last = ground.service.call(
        serve_real_users, shape, ground.driver, ground.login, ground.run.mark()
    )
    # Then: the same object, no error
    assert [answer[0] for answer in said] == [1, 1, 1], said
    assert len({answer[1] for answer in [*said, last]}) == 1
    assert (aside, refusals) == ([[TAKEN_OVER]], [])
    # And: real users' rows in production, accounted for
    assert ground.notes("production") == ["user 0", "user 1", "user 2", "user 3"]
    assert ground.notes("shadow") == ["marked"]
    if ground.driver != "sqlite3":
        assert claims == [["orders", '[["item", "insert", 1]]']] * 3
    # And: it is production's for life
    assert is_refused(after, "this connection was opened for production"), after
    assert not kept_off or is_refused(kept_off, "this connection was opened for production"), kept_off


def set_before(shape: str, driver: str, login: dict[str, Any], mark: Mark) -> Any:
    """Have marked work change its session before real users find it."""
    service = Shape(shape, driver, login)
    service.serve(mark, send(SET[driver]))
    forget()
    said = [service.serve(None, add(driver, "user")) for _ in range(2)]
    answer = [said, noted("step_aside"), noted("refuse")]
    service.close()
    return answer


@pytest.mark.parametrize("shape", ["global", "thread"])
def test_what_would_not_be_the_same_is_lost(ground: Ground, shape: str) -> None:
    """What marked work set for the session would be missing: the connection is closed, and the run ends."""
    mark = ground.run.mark()
    said, aside, refusals = ground.service.call(set_before, shape, ground.driver, ground.login, mark)
    assert all(isinstance(answer, str) for answer in said), said
    assert said[0].startswith("OperationalError"), said
    assert "this connection belonged to a load test; it was closed" in said[0]
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    assert refusals == [[LOST, KEPT, int(mark["trace_id"] if mark else 0)]]
    assert ground.notes("production") == ground.notes("shadow") == []


def begin(driver: str, login: dict[str, Any], mark: Mark) -> None:
    kept["shape"] = shape = Shape("global", driver, login)
    shape.serve(mark, add(driver, "marked"))


def go_on(driver: str, text: str) -> Any:
    forget()
    said = kept["shape"].serve(None, add(driver, text))
    return [said, noted("refuse"), noted("step_aside")]


def test_production_that_is_down_says_so(ground: Ground) -> None:
    """Real users get the driver's own error, as from a connect; when production is back, they are served."""
    # Given
    ground.service.call(begin, ground.driver, ground.login, ground.run.mark())
    # When
    with ground.production_down():
        said, refusals, aside = ground.service.call(go_on, ground.driver, "too early")
        again = ground.service.call(go_on, ground.driver, "too early")[0]
    # Then
    assert said.startswith("OperationalError"), said
    assert DOWN[ground.driver] in said
    assert DOWN[ground.driver] in again
    assert (refusals, aside) == ([], [])
    # And
    said, refusals, aside = ground.service.call(go_on, ground.driver, "user")
    assert (said[0], refusals, aside) == (1, [], [[TAKEN_OVER]])
    assert (ground.notes("production"), ground.notes("shadow")) == (["user"], ["marked"])
    ground.service.call(end)


def end() -> None:
    kept.pop("shape").close()


def hammer(driver: str, login: dict[str, Any], mark: Mark) -> list[str]:
    """Use one connection from many threads, half of them marked; many times anew. Return users' errors."""
    options = {"check_same_thread": False, "isolation_level": None} if driver == "sqlite3" else {}
    failed: list[str] = []
    for turn in range(10):
        with marked(mark):
            connection = connect(driver, {**login, **options})
            if driver != "sqlite3":
                connection.autocommit = True
        start = threading.Barrier(6)
        threads = []
        for who in range(6):
            name = f"{'marked' if who % 2 else 'user'} {turn} {who}"
            given = (connection, driver, name, mark if who % 2 else None, start, failed)
            threads.append(threading.Thread(target=strike, args=given))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.close()
    return failed[:3]


def strike(connection: Any, driver: str, name: str, mark: Mark, start: Any, failed: list[str]) -> None:
    """Write five notes; marked work may fail."""
    with marked(mark):
        start.wait(20)
        for number in range(5):
            try:
                connection.cursor().execute(ADD[driver], [f"{name} {number}"])
            except Exception as error:
                if mark is None:
                    failed.append(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("ground", ["psycopg", "psycopg2", "sqlite3"], indirect=True)
def test_marked_work_under_way_reaches_nothing_of_production(ground: Ground) -> None:
    """Threads of both sides share the object while it changes hands: no row, no error of a real user."""
    assert ground.service.call(hammer, ground.driver, ground.login, ground.run.mark()) == []
    users = {f"user {turn} {who} {number}" for turn in range(10) for who in (0, 2, 4) for number in range(5)}
    assert set(ground.notes("production")) == users
    assert not [note for note in ground.notes("shadow") if note.startswith("user")]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("postgresql", "INSERT INTO item (note) VALUES ('set_config(')", False),
        ("postgresql", "UPDATE stock SET amount = 1", False),
        ("postgresql", "WITH a AS (SELECT 1) SELECT * FROM a; COMMIT", False),
        ("postgresql", "-- SET x\nSELECT add_item('a')", False),
        ("postgresql", "SET LOCAL statement_timeout = 1", False),
        ("postgresql", "set transaction isolation level serializable", False),
        ("postgresql", "LOCK TABLE item", False),
        ("postgresql", "CREATE TABLE IF NOT EXISTS temperature (id int)", False),
        ("postgresql", "SET search_path = shop", True),
        ("postgresql", "SELECT 1; SET search_path = shop", True),
        ("postgresql", "select set_config('search_path', 'shop', false)", True),
        ("postgresql", "SELECT pg_try_advisory_lock_shared(1)", True),
        ("postgresql", "CREATE TEMP TABLE mine (id int)", True),
        ("postgresql", "SELECT 1 AS a INTO TEMPORARY mine", True),
        ("postgresql", "LISTEN news", True),
        ("postgresql", "PREPARE a AS SELECT 1", True),
        ("postgresql", "DECLARE a CURSOR WITH HOLD FOR SELECT 1", True),
        ("postgresql", "DO $$ BEGIN PERFORM 1; END $$", True),
        ("mariadb", "REPLACE INTO item (note) VALUES ('a@b.de')", False),
        ("mariadb", "SELECT @@autocommit", False),
        ("mariadb", "SET TRANSACTION READ ONLY", False),
        ("mariadb", "SELECT @mine := 1", True),
        ("mariadb", "SELECT 'a\\'', @mine := 1, 'b'", True),
        ("mariadb", "SET LOCAL sql_mode = ''", True),
        ("mariadb", "/*!50000 SET sql_mode = '' */", True),
        ("mariadb", "SELECT GET_LOCK('a', 1)", True),
        ("mariadb", "CREATE TEMPORARY TABLE mine (id int)", True),
        ("mariadb", "USE other", True),
        ("mariadb", "LOCK TABLES item WRITE", True),
        ("sqlite", "SELECT 1", False),
        ("sqlite", "PRAGMA foreign_keys = 1", True),
        ("sqlite", "ATTACH 'a' AS a", True),
        ("sqlite", "CREATE TEMP TABLE mine (id)", True),
        ("sqlite", "SELECT '" + "a" * 1_000_001 + "'", True),
        ("sqlite", "", False),
    ],
)
def test_what_a_statement_leaves_in_its_session(kind: str, text: str, expected: bool) -> None:
    """Data and transactions leave nothing; what lasts for the session does, and so does what is not known."""
    assert leaves_state(kind, text) is expected
