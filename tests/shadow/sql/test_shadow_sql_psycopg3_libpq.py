"""libpq itself is closed to marked work, in psycopg's C and in its Python implementation."""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from attached_service import Service, attempt, is_refused, kept, marked
from two_sides import Sides, TestRun

from perflab.cli.attach import attached_environment

PAST = "marked work tried to talk to libpq itself"
FROM_BEFORE = "this connection was opened for production before the marked request"


@pytest.fixture(scope="module", params=["binary", "python"])
def implemented(
    request: pytest.FixtureRequest, sides: Sides, needs: Callable[[object, str], None]
) -> Iterator[Service]:
    """Start a service whose psycopg is of one implementation."""
    if request.param == "python":
        needs(ctypes.util.find_library("pq"), "libpq (the system's package libpq5)")
    environment = {**attached_environment(sides.target, "shop"), "PSYCOPG_IMPL": request.param}
    with Service(environment) as started:
        assert started.call(implementation) == request.param
        yield started


def implementation() -> str:
    return psycopg.pq.__impl__


def connect_with_libpq(dsn: str, mark: dict[str, Any] | None, way: str) -> Any:
    """Insert an item by libpq alone."""
    from psycopg import generators, pq, waiting

    def connected() -> Any:
        if way == "connect":
            return pq.PGconn.connect(dsn.encode())
        if way == "the implementation's":
            return vars(__import__(pq.PGconn.__module__, fromlist=["PGconn"]))["PGconn"].connect(dsn.encode())
        if way == "a subclass":
            return type("Own", (pq.PGconn,), {}).connect(dsn.encode())
        if way == "generator":
            return waiting.wait_conn(generators.connect(dsn))
        connection = pq.PGconn.connect_start(dsn.encode())
        while connection.connect_poll() not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            pass
        return connection

    def insert() -> Any:
        with marked(mark):
            connection = connected()
            try:
                said = connection.exec_(b"INSERT INTO item (note) VALUES ('libpq') RETURNING owner")
                return said.get_value(0, 0).decode()
            finally:
                connection.finish()

    return attempt(insert)


@pytest.mark.parametrize(
    "way", ["connect", "connect_start", "the implementation's", "a subclass", "generator"]
)
def test_marked_work_cannot_connect_with_libpq(
    implemented: Service, sides: Sides, run: TestRun, way: str
) -> None:
    """Nothing is connected and nothing written; ordinary work does as it did."""
    assert is_refused(implemented.call(connect_with_libpq, sides.app, run.mark(), way), PAST)
    assert (sides.notes("production"), sides.notes("shadow")) == ([], [])
    assert implemented.call(connect_with_libpq, sides.app, None, way) == "both_app"
    assert sides.notes("production") == ["libpq"]


def ping(dsn: str, mark: dict[str, Any] | None) -> Any:
    with marked(mark):
        return attempt(lambda: int(psycopg.pq.PGconn.ping(dsn.encode())))


def test_nor_ping_a_server(implemented: Service, sides: Sides, run: TestRun) -> None:
    """It would reach production's server; ordinary work may."""
    assert is_refused(implemented.call(ping, sides.app, run.mark()), PAST)
    assert implemented.call(ping, sides.app, None) == psycopg.pq.Ping.OK


def keep_connection(dsn: str) -> None:
    kept["early"] = psycopg.connect(dsn, autocommit=True)


def send_on_kept(mark: dict[str, Any] | None, way: str) -> Any:
    """Insert by the libpq connection of one that was opened before."""

    def insert() -> Any:
        with marked(mark):
            connection = kept["early"]
            libpq = connection.pgconn if way == "pgconn" else connection.info.pgconn
            said = libpq.exec_(b"INSERT INTO item (note) VALUES ('kept') RETURNING owner")
            return said.get_value(0, 0).decode()

    return attempt(insert)


def drop_kept(mark: dict[str, Any]) -> list[Any]:
    """Look at and give up a kept connection as marked work: no more than one may."""
    with marked(mark):
        connection = kept.pop("early")
        said = [connection.closed, connection.info.dbname, repr(connection).startswith("<psycopg.Connection")]
        del connection
        return said


@pytest.mark.parametrize("way", ["pgconn", "info"])
def test_marked_work_gets_no_libpq_of_production(
    implemented: Service, sides: Sides, run: TestRun, way: str
) -> None:
    """Of a connection that ordinary work opened; what only looks at it is not disturbed."""
    implemented.call(keep_connection, sides.app)
    assert is_refused(implemented.call(send_on_kept, run.mark(), way), FROM_BEFORE)
    assert sides.notes("production") == []
    assert implemented.call(send_on_kept, None, way) == "both_app"
    assert sides.notes("production") == ["kept"]
    assert implemented.call(drop_kept, run.mark()) == [False, sides.production_database, True]


def send_on_shadow(dsn: str, mark: dict[str, Any] | None, kind: str) -> Any:
    def insert() -> Any:
        with marked(mark), psycopg.connect(dsn, autocommit=True) as connection:
            said = connection.pgconn.exec_(b"INSERT INTO item (note) VALUES ('own') RETURNING owner")
            assert isinstance(connection.pgconn, psycopg.pq.PGconn)
            return said.get_value(0, 0).decode()

    return attempt(insert)


def test_the_libpq_of_a_shadow_may_be_used(implemented: Service, sides: Sides, run: TestRun) -> None:
    """Marked work's own connection leads to the shadow, however it is used, while the run is live."""
    mark = run.mark()
    assert implemented.call(send_on_shadow, sides.app, mark, "") == sides.shadow_role
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["own"])
    assert implemented.call(send_on_shadow, sides.app, None, "") == "both_app"


def test_the_class_looks_as_it_did(service: Service, plain: Service) -> None:
    """Its name, where it comes from, what it has, and what is an instance of it."""
    assert service.call(describe) == plain.call(describe)


def describe() -> list[Any]:
    made = psycopg.pq.PGconn
    public = sorted(name for name in dir(made) if not name.startswith("__"))
    kinds = [isinstance(1, made), issubclass(made, made)]
    return [made.__name__, made.__qualname__, made.__module__, made.__doc__, public, kinds]
