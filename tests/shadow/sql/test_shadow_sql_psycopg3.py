"""psycopg routed on a real server: the shadow for marked work, production for everybody else."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest
from attached_service import Service, attempt, attempt_async, forget, is_refused, kept, marked, noted, poll
from two_sides import Sides, TestRun

WHO = "SELECT current_database(), session_user"
ELSEWHERE = "this database is not one of the target's stores"
FROM_BEFORE = "this connection was opened for production before the marked request"


def connect_and_ask(dsn: str, mark: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    def ask() -> Any:
        with marked(mark), psycopg.connect(dsn, **options) as connection:
            return list(connection.execute(WHO).fetchone() or ())

    return attempt(ask)


async def connect_and_ask_async(dsn: str, mark: dict[str, Any] | None, options: dict[str, Any]) -> Any:
    async def ask() -> Any:
        with marked(mark):
            async with await psycopg.AsyncConnection.connect(dsn, **options) as connection:
                return list(await (await connection.execute(WHO)).fetchone() or ())

    return await attempt_async(ask)


CONNECTING = pytest.mark.parametrize("connecting", [connect_and_ask, connect_and_ask_async])


@CONNECTING
def test_marked_work_connects_to_the_shadow(
    connecting: Any, service: Service, sides: Sides, run: TestRun
) -> None:
    """The same DSN leads marked work to the shadow with its own login, and everybody else to production."""
    assert service.call(connecting, sides.app, run.mark(), {}) == [sides.shadow_database, sides.shadow_role]
    assert service.call(connecting, sides.app, None, {}) == [sides.production_database, "both_app"]


@CONNECTING
def test_however_the_database_is_named(connecting: Any, service: Service, sides: Sides, run: TestRun) -> None:
    """Another name of the same host, key words, several hosts of one server: all are the known store."""
    # Given
    port, database = sides.postgres.port, sides.production_database
    words = {"host": "127.0.0.1", "port": port, "dbname": database, "user": "both_app", "password": "secret"}
    ways: list[tuple[str, dict[str, Any]]] = [
        (sides.app.replace("127.0.0.1", "localhost"), {}),
        ("", words),
        ("", {**words, "hostaddr": "127.0.0.1", "autocommit": True, "prepare_threshold": None}),
        (f"host=127.0.0.1,localhost port={port},{port} dbname={database} user=both_app", {}),
        (f"host=127.0.0.1,localhost port={port} dbname={database}", {"user": "somebody"}),
        (f"{sides.app}?application_name=shop&connect_timeout=5&target_session_attrs=read-write", {}),
    ]
    # Then
    for dsn, options in ways:
        assert service.call(connecting, dsn, run.mark(), options) == [
            sides.shadow_database,
            sides.shadow_role,
        ], (dsn, options)


@CONNECTING
def test_any_other_database_is_refused(connecting: Any, service: Service, sides: Sides, run: TestRun) -> None:
    """Another database, port, socket, a service file, an unknown second host: nothing is connected."""
    # Given
    port, database = sides.postgres.port, sides.production_database
    elsewhere = (
        sides.url("postgres"),
        f"postgresql://both_app:secret@127.0.0.1:1/{database}",
        f"host={sides.postgres.directory / 's'} port={port} dbname={database} user=postgres",
        f"service=shop dbname={database}",
        f"host=127.0.0.1,10.255.255.1 port={port} dbname={database}",
        "",
    )
    for dsn in elsewhere:
        # When
        said = service.call(connecting, dsn, run.mark(), {})
        # Then
        assert is_refused(said, ELSEWHERE), (dsn, said)
    said = service.call(connecting, f"host=127.0.0.1 port={port},{port},{port}", run.mark(), {})
    assert is_refused(said, "cannot be told")


def environment_and_ask(dsn: str, mark: dict[str, Any], environment: dict[str, str]) -> Any:
    import os

    os.environ.update(environment)
    try:
        return connect_and_ask(dsn, mark, {})
    finally:
        for name in environment:
            del os.environ[name]


def test_the_environment_names_a_database_too(service: Service, sides: Sides, run: TestRun) -> None:
    """PGHOST and its kin are read as libpq reads them, and cannot lead away from the shadow."""
    port, database = str(sides.postgres.port), sides.production_database
    named = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGDATABASE": database, "PGUSER": "both_app"}
    shadow = [sides.shadow_database, sides.shadow_role]
    assert service.call(environment_and_ask, "", run.mark(), named) == shadow
    assert service.call(environment_and_ask, sides.app, run.mark(), {"PGPORT": "1"}) == shadow
    said = service.call(environment_and_ask, sides.app, run.mark(), {"PGHOSTADDR": "10.255.255.1"})
    assert ELSEWHERE in said


def test_the_login_of_the_shadow_is_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work that names the shadow database with another login gets the shadow's login."""
    admin_of_the_shadow = sides.url(sides.shadow_database)
    assert service.call(connect_and_ask, admin_of_the_shadow, run.mark(), {}) == [
        sides.shadow_database,
        sides.shadow_role,
    ]
    # And: ordinary work may look at the shadow database as it always could
    assert service.call(connect_and_ask, admin_of_the_shadow, None, {}) == [sides.shadow_database, "postgres"]


def find_impostor(dsn: str, mark: dict[str, Any], options: dict[str, Any]) -> Any:
    """Connect with a class that leads elsewhere after the agent decided, as a password provider might."""

    class Impostor(psycopg.Connection[Any]):
        @classmethod
        def _get_connection_params(cls, conninfo: str, **given: Any) -> Any:
            return {**super()._get_connection_params(conninfo, **given), **options}

    def ask() -> Any:
        with marked(mark), Impostor.connect(dsn) as connection:
            return list(connection.execute(WHO).fetchone() or ())

    return attempt(ask)


def test_the_server_is_asked_who_it_is(service: Service, sides: Sides, run: TestRun) -> None:
    """A connection that ends up on production after all is closed before marked work gets it."""
    for given in (
        {"dbname": sides.production_database, "user": "both_app"},
        {"user": "postgres"},
    ):
        said = service.call(
            find_impostor, sides.app, run.mark(), {**given, "password": _password(sides, given)}
        )
        assert is_refused(said, "what should be the shadow is")


def _password(sides: Sides, given: dict[str, str]) -> str:
    own = psycopg.conninfo.conninfo_to_dict(sides.postgres.admin_dsn)["password"]
    return str(own) if given["user"] == "postgres" else "secret"


def keep_connection(dsn: str, mark: dict[str, Any] | None) -> None:
    with marked(mark):
        kept["connection"] = psycopg.connect(dsn)
        kept["connection"].execute("INSERT INTO item (note) VALUES ('from before')")


def use_kept(mark: dict[str, Any] | None) -> dict[str, Any]:
    connection = kept["connection"]
    cursor = connection.cursor()
    named = connection.cursor("named")

    def copy() -> None:
        with cursor.copy("COPY item (note) FROM STDIN") as copying:
            copying.write_row(["copied"])

    def transaction() -> None:
        with connection.transaction():
            pass

    forget()
    ways = {
        "execute": lambda: connection.execute("INSERT INTO item (note) VALUES ('leaked')"),
        "executemany": lambda: cursor.executemany("INSERT INTO item (note) VALUES (%s)", [["a"], ["b"]]),
        "named": lambda: named.execute("SELECT 1"),
        "stream": lambda: list(cursor.stream("SELECT 1")),
        "copy": copy,
        "transaction": transaction,
        "commit": connection.commit,
        "rollback": connection.rollback,
        "notifies": lambda: list(connection.notifies(timeout=0.01)),
        "cancel": connection.cancel,
        "cancel_safe": connection.cancel_safe,
        "prepare": lambda: connection.tpc_recover(),
    }
    with marked(mark):
        return {name: attempt(way) for name, way in ways.items()}


def finish_kept() -> Any:
    connection = kept.pop("connection")
    status = connection.info.transaction_status.name
    with contextlib.closing(connection):
        connection.commit()
    return status


def test_marked_work_cannot_use_a_connection_kept_from_before(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Nothing is sent on it, neither statements nor the end of a transaction that is somebody else's."""
    # Given: a real user's open transaction on a connection kept in a global
    service.call(keep_connection, sides.app, None)
    # When
    said = service.call(use_kept, run.mark())
    # Then: every way is refused
    for way, answer in said.items():
        assert is_refused(answer, FROM_BEFORE), (way, answer)
    # And: the real user's transaction is as it was, and can be committed
    assert service.call(finish_kept) == "INTRANS"
    assert sides.notes("production") == ["from before"]


def test_a_refused_access_is_no_session_on_production(service: Service, sides: Sides, run: TestRun) -> None:
    """What was refused before it was sent counts as a refusal, not as marked work on production."""
    service.call(keep_connection, sides.app, None)
    service.call(use_kept, run.mark())
    assert service.call(noted, "session") == []
    assert len(service.call(noted, "refuse")) >= 12
    service.call(finish_kept)


def ordinary_finds_shadow(mark: dict[str, Any], commit: bool) -> list[Any]:
    connection = kept["connection"]
    with marked(mark):
        connection.execute("SET statement_timeout = 9000")  # which a connection made anew would not have
    forget()
    said = [attempt(lambda: connection.execute("INSERT INTO item (note) VALUES ('real user')"))]
    if commit:
        said.append(attempt(connection.commit))
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
    said, ended, closed, aside = service.call(ordinary_finds_shadow, mark, True)
    # Then
    assert said == "OperationalError: perflab: this connection belonged to a load test; it was closed"
    assert ended.startswith("OperationalError")
    assert closed is True
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    assert sides.notes("production") == sides.notes("shadow") == []


def go_on_with_kept(mark: dict[str, Any], poll_first: bool) -> dict[str, Any]:
    connection = kept["connection"]
    if poll_first:
        poll()
    with marked(mark):
        said = {
            "execute": attempt(lambda: connection.execute("INSERT INTO item (note) VALUES ('late')")),
            "commit": attempt(connection.commit),
            "connect": attempt(lambda: psycopg.connect(connection.info.dsn, password="secret")),
            "rollback": attempt(connection.rollback),
        }
    connection.close()
    return said


def test_a_killed_run_ends_at_the_next_access(service: Service, sides: Sides, run: TestRun) -> None:
    """Mid-transaction: statement, COMMIT and new connections are refused, giving up is allowed."""
    # Given
    service.call(keep_connection, sides.app, run.mark())
    # When
    run.kill()
    said = service.call(go_on_with_kept, run.mark(), True)
    # Then
    for way in ("execute", "commit", "connect"):
        assert is_refused(said[way], "the run is not live any more"), way
    assert said["rollback"] is None
    assert sides.notes("shadow") == sides.notes("production") == []


def test_an_expired_run_ends_at_the_next_access(service: Service, sides: Sides, run: TestRun) -> None:
    """A run whose time is over is as dead as a killed one, though it is still listed."""
    # Given
    expired = sides.begin_run(lasts_s=-1)
    service.call(keep_connection, sides.app, run.mark())
    # When
    said = service.call(go_on_with_kept, expired.mark(), True)
    # Then
    assert "the run is not live any more" in said["execute"]
    expired.remove()


def test_a_shadow_that_is_not_there_fails_only_marked_work(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """A role that may not log in any more is an error for marked work; production goes on, unchanged."""
    # Given
    sides.query("production", f"ALTER ROLE {sides.shadow_role} NOLOGIN")
    try:
        # When
        said = service.call(connect_and_ask, sides.app, run.mark(), {})
        ordinary = service.call(connect_and_ask, sides.app, None, {})
    finally:
        sides.query("production", f"ALTER ROLE {sides.shadow_role} LOGIN")
    # Then
    assert said.startswith("OperationalError")
    assert "not permitted to log in" in said
    assert ordinary == [sides.production_database, "both_app"]


def write_then_lose_rights(mark: dict[str, Any], dsn: str) -> str:
    with marked(mark):
        if "worker" not in kept:
            kept["worker"] = psycopg.connect(dsn, autocommit=True)
        connection = kept["worker"]
        return str(attempt(lambda: connection.execute("INSERT INTO item (note) VALUES ('x')").rowcount))


def test_a_shadow_whose_rights_were_revoked_is_no_way_to_production(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Rights revoked, sessions ended half way: errors, and no row in production."""
    # Given
    assert service.call(write_then_lose_rights, run.mark(), sides.app) == "1"
    # When
    sides.query("shadow", "ALTER TABLE item OWNER TO postgres")
    try:
        denied = service.call(write_then_lose_rights, run.mark(), sides.app)
    finally:
        sides.query("shadow", f"ALTER TABLE item OWNER TO {sides.shadow_role}")
    sides.query(
        "production",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{sides.shadow_role}'",
    )
    lost = service.call(write_then_lose_rights, run.mark(), sides.app)
    # Then
    assert denied.startswith("InsufficientPrivilege")
    assert lost.startswith(("AdminShutdown", "OperationalError"))
    assert sides.notes("production") == []
