"""psycopg 2 routed on a real server: the shadow for marked work, production for everybody else."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted, poll
from two_sides import Sides, TestRun

from perflab.shadow.ledger import LOST
from perflab.shadow.sql.takeover import KEPT

WHO = "SELECT current_database(), session_user"
ADD = "INSERT INTO item (note) VALUES (%s)"
ELSEWHERE = "this database is not one of the target's stores"
FROM_BEFORE = "this connection was opened for production before the marked request"
NO_FENCE = "cannot be fenced"
Mark = dict[str, Any] | None


def ask(connection: Any) -> Any:
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(WHO)
        return list(cursor.fetchone())


def connect_and_ask(dsn: str, mark: Mark, options: dict[str, Any]) -> Any:
    with marked(mark):
        return attempt(lambda: ask(psycopg2.connect(dsn, **options)))


def test_marked_work_connects_to_the_shadow(service: Service, sides: Sides, run: TestRun) -> None:
    """The same DSN leads marked work to the shadow with its own login, and everybody else to production."""
    assert service.call(connect_and_ask, sides.app, run.mark(), {}) == [
        sides.shadow_database,
        sides.shadow_role,
    ]
    assert service.call(connect_and_ask, sides.app, None, {}) == [sides.production_database, "both_app"]


def test_however_the_database_is_named(service: Service, sides: Sides, run: TestRun) -> None:
    """Another name of the same host, key words, several hosts of one server: all are the known store."""
    # Given
    port, database = sides.postgres.port, sides.production_database
    words = {"host": "127.0.0.1", "port": port, "database": database, "user": "both_app", "password": "no"}
    ways: list[tuple[str, dict[str, Any]]] = [
        (sides.app.replace("127.0.0.1", "localhost"), {}),
        ("", words),
        (f"host=127.0.0.1,localhost port={port},{port} dbname={database} user=both_app", {}),
        (f"host=127.0.0.1 port={port} dbname={database}", {"user": "somebody", "hostaddr": "127.0.0.1"}),
        (f"{sides.app}?application_name=shop&connect_timeout=5&target_session_attrs=read-write", {}),
    ]
    # Then
    for dsn, options in ways:
        assert service.call(connect_and_ask, dsn, run.mark(), options) == [
            sides.shadow_database,
            sides.shadow_role,
        ], (dsn, options)


def test_any_other_database_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Another database, port, a service file, an unknown second host: nothing is connected."""
    port, database = sides.postgres.port, sides.production_database
    elsewhere = (
        sides.url("postgres"),
        f"postgresql://both_app:secret@127.0.0.1:1/{database}",
        f"service=shop dbname={database}",
        f"host=127.0.0.1,10.255.255.1 port={port} dbname={database}",
    )
    for dsn in elsewhere:
        said = service.call(connect_and_ask, dsn, run.mark(), {})
        assert is_refused(said, ELSEWHERE), (dsn, said)
    said = service.call(connect_and_ask, f"host=127.0.0.1 port={port},{port},{port}", run.mark(), {})
    assert is_refused(said, "cannot be told")


def environment_and_ask(dsn: str, mark: dict[str, Any], environment: dict[str, str]) -> Any:
    os.environ.update(environment)
    try:
        return connect_and_ask(dsn, mark, {})
    finally:
        for name in environment:
            del os.environ[name]


def test_the_environment_leads_nobody_away(service: Service, sides: Sides, run: TestRun) -> None:
    """PGPORT and its kin are read as libpq reads them, and cannot lead away from the shadow."""
    shadow = [sides.shadow_database, sides.shadow_role]
    assert service.call(environment_and_ask, sides.app, run.mark(), {"PGPORT": "1"}) == shadow
    said = service.call(environment_and_ask, sides.app, run.mark(), {"PGHOSTADDR": "10.255.255.1"})
    assert ELSEWHERE in said


class Mine(psycopg2.extensions.connection):
    """A service's own class, as its factory."""

    def save(self) -> None:
        super().commit()


def ways_to_connect(dsn: str, mark: Mark) -> Any:
    direct = psycopg2.extensions.connection
    ways = {
        "class": lambda: psycopg2.connect(dsn, connection_factory=Mine),
        "extras": lambda: psycopg2.connect(dsn, connection_factory=psycopg2.extras.RealDictConnection),
        "direct": lambda: direct(dsn),
        "keyword": lambda: direct(dsn=dsn),
        "own": lambda: Mine(dsn),
        "native": lambda: psycopg2._psycopg._connect(dsn),
    }
    with marked(mark):
        said = {}
        for name, way in ways.items():
            with contextlib.closing(way()) as connection, connection.cursor() as cursor:
                cursor.execute(WHO)
                row = cursor.fetchone()
                said[name] = list(row.values() if isinstance(row, dict) else row)
        return said


@pytest.mark.parametrize("mark", [True, False])
def test_every_way_to_connect_is_routed(mark: bool, service: Service, sides: Sides, run: TestRun) -> None:
    """Factories, the classes themselves and the driver's inner function lead where ``connect`` leads."""
    said = service.call(ways_to_connect, sides.app, run.mark() if mark else None)
    there = [sides.shadow_database, sides.shadow_role] if mark else [sides.production_database, "both_app"]
    assert said == dict.fromkeys(("class", "extras", "direct", "keyword", "own", "native"), there)


def odd_factories(dsn: str, mark: Mark) -> Any:
    original = psycopg2.extensions.connection.__mro__[-2]
    forget()

    def made_by(factory: Any, **options: Any) -> Any:
        return ask(psycopg2.connect(dsn, connection_factory=factory, **options))

    def cursor_by(factory: Any) -> Any:
        with contextlib.closing(psycopg2.connect(dsn)) as connection:
            cursor = connection.cursor(cursor_factory=factory)
            cursor.execute(WHO)
            return list(cursor.fetchone())

    bare_cursor = psycopg2.extensions.cursor.__mro__[-2]

    def bare(dsn: str) -> Any:
        return original(dsn)

    def bare_cursors(*given: Any) -> Any:
        return bare_cursor(*given)

    with marked(mark):
        said = {
            "ours": attempt(lambda: made_by(lambda *given: Mine(*given))),
            "bare": attempt(lambda: made_by(bare)),
            "early": attempt(lambda: made_by(type("Early", (original,), {}))),
            "replication": attempt(lambda: made_by(psycopg2.extras.LogicalReplicationConnection)),
            "asynchronous": attempt(lambda: psycopg2.connect(dsn, async_=True).close()),
            "early cursor": attempt(lambda: cursor_by(type("Early", (bare_cursor,), {}))),
            "bare cursor": attempt(lambda: cursor_by(bare_cursors)),
        }
    from perflab.shadow.scope import process

    holes = sorted(name for name in process.ledger.uncovered if name.startswith("psycopg2"))
    process.ledger.uncovered.difference_update(holes)
    return [said, len(noted("step_aside")), holes]


def test_what_cannot_be_fenced(service: Service, sides: Sides, run: TestRun) -> None:
    """Classes made before the hook get a fence; what has none is refused to marked work, a hole otherwise."""
    # When
    said, _, holes = service.call(odd_factories, sides.app, run.mark())
    # Then
    shadow = [sides.shadow_database, sides.shadow_role]
    assert (said.pop("early"), said.pop("early cursor")) == (shadow, shadow)
    assert "asynchronous connection" in said.pop("asynchronous")
    assert all(is_refused(answer, NO_FENCE) for answer in said.values()), said
    assert holes == []
    # And
    said, aside, holes = service.call(odd_factories, sides.app, None)
    production = [sides.production_database, "both_app"]
    assert said.pop("replication").startswith(("OperationalError", "ObjectInUse", "ProgrammingError"))
    assert said.pop("asynchronous") is None
    assert said == dict.fromkeys(said, production)
    assert aside == len(holes) == 2, holes


def keep_connection(dsn: str, mark: Mark) -> None:
    with marked(mark):
        kept["connection"] = connection = psycopg2.connect(dsn, connection_factory=Mine)
        kept["cursor"] = connection.cursor()
        kept["cursor"].execute(ADD, ["from before"])
        kept["named"] = connection.cursor("named")
        kept["named"].execute("SELECT generate_series(1, 10)")
        kept["large"] = connection.lobject(0, "rw") if mark is None else None


def use_kept(mark: Mark) -> dict[str, Any]:
    connection, cursor, named, large = (kept[name] for name in ("connection", "cursor", "named", "large"))
    fresh = connection.cursor("other")
    stream = io.StringIO("copied\n")
    forget()
    ways = {
        "execute": lambda: cursor.execute(ADD, ["leaked"]),
        "executemany": lambda: cursor.executemany(ADD, [["a"], ["b"]]),
        "values": lambda: psycopg2.extras.execute_values(
            cursor, "INSERT INTO item (note) VALUES %s", [["a"]]
        ),
        "batch": lambda: psycopg2.extras.execute_batch(cursor, ADD, [["a"]]),
        "callproc": lambda: cursor.callproc("add_item", ["leaked"]),
        "copy_from": lambda: cursor.copy_from(stream, "item", columns=["note"]),
        "copy_to": lambda: cursor.copy_to(stream, "item"),
        "copy_expert": lambda: cursor.copy_expert("COPY item (note) FROM STDIN", stream),
        "declare": lambda: fresh.execute("SELECT 1"),
        "fetchone": named.fetchone,
        "fetchmany": lambda: named.fetchmany(2),
        "fetchall": named.fetchall,
        "iterate": lambda: list(named),
        "scroll": lambda: named.scroll(1),
        "close named": named.close,
        "bare cursor": lambda: psycopg2.extensions.cursor(connection).execute("SELECT 1"),
        "commit": connection.commit,
        "save": connection.save,
        "rollback": connection.rollback,
        "with": lambda: connection.__exit__(None, None, None),
        "reset": connection.reset,
        "cancel": connection.cancel,
        "poll": connection.poll,
        "close": connection.close,
        "encoding": lambda: connection.set_client_encoding("LATIN1"),
        "session": lambda: connection.set_session(readonly=True),
        "level": lambda: connection.set_isolation_level(0),
        "autocommit": lambda: setattr(connection, "autocommit", True),
        "readonly": lambda: setattr(connection, "readonly", True),
        "prepare": lambda: connection.tpc_begin(connection.xid(1, "a", "b")),
        "recover": connection.tpc_recover,
        "lobject": lambda: connection.lobject(0),
        "write": lambda: large.write(b"leaked"),
        "read": large.read,
        "unlink": large.unlink,
        "lobject class": lambda: psycopg2.extensions.lobject(connection, 0),
    }
    with marked(mark):
        return {name: attempt(way) for name, way in ways.items()}


def finish_kept() -> Any:
    connection = kept["connection"]
    large = kept["large"]
    rows = kept["named"].fetchall()
    kept.clear()
    status = connection.info.transaction_status
    large.unlink()
    with contextlib.closing(connection):
        connection.commit()
    return [status, len(rows)]


def test_marked_work_cannot_use_a_connection_kept_from_before(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Nothing is sent on it, neither statements nor the end of a transaction that is somebody else's."""
    # Given: a real user's open transaction on a connection kept in a global
    service.call(keep_connection, sides.app, None)
    # When
    said = service.call(use_kept, run.mark())
    # Then: every way is refused, and no session of marked work is counted
    for way, answer in said.items():
        assert is_refused(answer, FROM_BEFORE), (way, answer)
    assert service.call(noted, "session") == []
    # And: the real user's transaction and cursor are as they were, and can be committed
    assert service.call(finish_kept) == [psycopg2.extensions.TRANSACTION_STATUS_INTRANS, 10]
    assert sides.notes("production") == ["from before"]


def ordinary_finds_shadow(mark: Mark) -> list[Any]:
    connection = kept["connection"]
    with marked(mark):
        kept["cursor"].execute("SET statement_timeout = 9000")  # which a connection made anew would not have
    forget()
    said = [attempt(lambda: kept["cursor"].execute(ADD, ["real user"])), attempt(connection.commit)]
    kept.clear()
    return [*said, connection.closed, noted("step_aside")]


def test_ordinary_work_that_finds_a_shadow_connection_loses_it(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """It is closed, as a lost connection is: a real user's row is never silently a shadow row."""
    # Given
    mark = run.mark()
    service.call(keep_connection, sides.app, mark)
    # When
    said, ended, closed, aside = service.call(ordinary_finds_shadow, mark)
    # Then
    assert said == "OperationalError: perflab: this connection belonged to a load test; it was closed"
    assert ended == "InterfaceError: connection already closed"
    assert closed == 1
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    # And: the run ends, for a real user has felt it
    assert service.call(noted, "refuse") == [[LOST, KEPT, int(mark["trace_id"])]]
    assert sides.notes("production") == sides.notes("shadow") == []


def go_on_with_kept(mark: dict[str, Any]) -> dict[str, Any]:
    connection = kept["connection"]
    poll()
    with marked(mark):
        said = {
            "execute": attempt(lambda: kept["cursor"].execute(ADD, ["late"])),
            "fetch": attempt(kept["named"].fetchone),
            "commit": attempt(connection.commit),
            "connect": attempt(lambda: psycopg2.connect(connection.dsn, password="secret")),
            "close named": attempt(kept["named"].close),
            "rollback": attempt(connection.rollback),
            "close": attempt(connection.close),
        }
    kept.clear()
    return said


def test_a_killed_run_ends_at_the_next_access(service: Service, sides: Sides, run: TestRun) -> None:
    """Mid-transaction: statement, COMMIT and new connections are refused, giving up is allowed."""
    # Given
    service.call(keep_connection, sides.app, run.mark())
    # When
    run.kill()
    said = service.call(go_on_with_kept, run.mark())
    # Then
    for way in ("execute", "fetch", "commit", "connect"):
        assert is_refused(said[way], "the run is not live any more"), way
    assert (said["rollback"], said["close named"], said["close"]) == (None, None, None)
    assert sides.notes("shadow") == sides.notes("production") == []


def find_impostor(dsn: str, mark: dict[str, Any], elsewhere: str) -> Any:
    """Connect with a class that leads elsewhere after the agent decided, as a driver's fork might."""
    ours = psycopg2.extensions.connection
    original = ours.__mro__[-2]

    class Beneath(original):  # type: ignore[misc, valid-type]  # the driver's own class
        def __init__(self, dsn: str) -> None:
            super().__init__(elsewhere)

    class Impostor(ours, Beneath):  # type: ignore[misc, valid-type]  # the fence, with another class beneath
        pass

    with marked(mark):
        return attempt(lambda: ask(Impostor(dsn)))


def test_the_server_is_asked_who_it_is(service: Service, sides: Sides, run: TestRun) -> None:
    """A connection that ends up on production after all is closed before marked work gets it."""
    said = service.call(find_impostor, sides.app, run.mark(), sides.app)
    assert is_refused(said, "what should be the shadow is")


def test_a_shadow_that_is_not_there_fails_only_marked_work(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """A role that may not log in any more is an error for marked work; production goes on, unchanged."""
    sides.query("production", f"ALTER ROLE {sides.shadow_role} NOLOGIN")
    try:
        said = service.call(connect_and_ask, sides.app, run.mark(), {})
        ordinary = service.call(connect_and_ask, sides.app, None, {})
    finally:
        sides.query("production", f"ALTER ROLE {sides.shadow_role} LOGIN")
    assert said.startswith("OperationalError")
    assert "not permitted to log in" in said
    assert ordinary == [sides.production_database, "both_app"]
