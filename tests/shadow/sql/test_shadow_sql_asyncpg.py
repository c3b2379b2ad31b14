"""asyncpg routed on a real server: the shadow for marked work, production for everybody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncpg
from attached_service import Service, attempt_async, forget, is_refused, kept, marked, noted, poll
from two_sides import Sides, TestRun

WHO = "SELECT current_database(), session_user"
ADD = "INSERT INTO item (note) VALUES ($1)"
ELSEWHERE = "this database is not one of the target's stores"
FROM_BEFORE = "this connection was opened for production before the marked request"
Mark = dict[str, Any] | None


class Particular(asyncpg.Connection):
    """A connection class of a service's own."""

    async def who(self) -> list[Any]:
        return list(await self.fetchrow(WHO))


async def connect_and_ask(dsn: str | None, mark: Mark, options: dict[str, Any]) -> Any:
    connecting = asyncpg.connection.connect if options.pop("other name", False) else asyncpg.connect
    if options.pop("particular", False):
        options["connection_class"] = Particular
    if "password" in options:
        password = options["password"]
        options["password"] = lambda: password

    async def ask() -> Any:
        with marked(mark):
            connection = await connecting(dsn, **options)
            try:
                return list(await connection.fetchrow(WHO))
            finally:
                await connection.close()

    return await attempt_async(ask)


def test_marked_work_connects_to_the_shadow(service: Service, sides: Sides, run: TestRun) -> None:
    """The same DSN leads marked work to the shadow with its own login, and everybody else to production."""
    shadow, production = [sides.shadow_database, sides.shadow_role], [sides.production_database, "both_app"]
    assert service.call(connect_and_ask, sides.app, run.mark(), {}) == shadow
    assert service.call(connect_and_ask, sides.app, None, {}) == production


def test_however_the_database_is_named(service: Service, sides: Sides, run: TestRun) -> None:
    """Another name of the host, key words, several hosts, a class or a password function: the known store."""
    # Given
    port, database = sides.postgres.port, sides.production_database
    words = {
        "host": "127.0.0.1",
        "port": port,
        "database": database,
        "user": "both_app",
        "password": "secret",
    }
    ways: list[tuple[str | None, dict[str, Any]]] = [
        (sides.app.replace("127.0.0.1", "localhost"), {}),
        (None, words),
        (None, {**words, "other name": True, "particular": True, "statement_cache_size": 0}),
        (f"postgresql://both_app:no@127.0.0.1:{port},localhost:{port}/{database}", {"ssl": False}),
        (f"postgres://somebody@/{database}?host=127.0.0.1&port={port}&application_name=shop", {}),
        (f"{sides.app}?sslmode=prefer", {"target_session_attrs": "read-write", "timeout": 5}),
        (sides.app, {"server_settings": {"application_name": "shop"}, "command_timeout": 5}),
    ]
    for dsn, options in ways:
        # When
        said = service.call(connect_and_ask, dsn, run.mark(), options)
        # Then
        assert said == [sides.shadow_database, sides.shadow_role], (dsn, options)
    assert service.call(connect_and_ask, None, None, words) == [database, "both_app"]


def test_any_other_database_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Another database, port, socket, an unknown second host, none at all: nothing is connected."""
    # Given
    port, database = sides.postgres.port, sides.production_database
    elsewhere = (
        sides.url("postgres"),
        f"postgresql://both_app:secret@127.0.0.1:1/{database}",
        f"postgresql://postgres@/{database}?host={sides.postgres.directory / 's'}&port={port}",
        f"postgresql://both_app@127.0.0.1:{port},10.255.255.1:{port}/{database}",
        None,
    )
    for dsn in elsewhere:
        # When
        said = service.call(connect_and_ask, dsn, run.mark(), {})
        # Then
        assert is_refused(said, ELSEWHERE), (dsn, said)
    said = service.call(connect_and_ask, "mysql://127.0.0.1/x", run.mark(), {})
    assert is_refused(said, "cannot be told")


async def environment_and_ask(dsn: str | None, mark: Mark, environment: dict[str, str], options: Any) -> Any:
    os.environ.update(environment)
    try:
        return await connect_and_ask(dsn, mark, options)
    finally:
        for name in environment:
            del os.environ[name]


def test_environment_and_files_name_a_database_too(
    service: Service, sides: Sides, run: TestRun, tmp_path: Path
) -> None:
    """PGHOST and its kin, a service file and a password file are read by asyncpg, and lead nowhere else."""
    # Given
    port, database = str(sides.postgres.port), sides.production_database
    named = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGDATABASE": database, "PGUSER": "both_app"}
    (tmp_path / "service").write_text(
        f"[shop]\nhost=127.0.0.1\nport={port}\ndbname={database}\nuser=both_app\n"
    )
    (tmp_path / "pass").write_text(f"127.0.0.1:{port}:*:*:wrong\n")
    (tmp_path / "pass").chmod(0o600)
    files = {"PGSERVICEFILE": str(tmp_path / "service"), "PGPASSFILE": str(tmp_path / "pass")}
    shadow = [sides.shadow_database, sides.shadow_role]
    # Then
    assert service.call(environment_and_ask, None, run.mark(), named, {}) == shadow
    assert (
        service.call(environment_and_ask, sides.app, run.mark(), {"PGPORT": "1", "PGUSER": "x"}, {}) == shadow
    )
    of_service = ["postgresql://?service=shop", run.mark(), files, {}]
    assert service.call(environment_and_ask, *of_service) == shadow
    away = service.call(
        environment_and_ask, f"postgresql:///{database}", run.mark(), {"PGHOST": "10.9.9.9"}, {}
    )
    assert is_refused(away, ELSEWHERE)


def test_the_login_of_the_shadow_is_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work that names the shadow database with another login gets the shadow's login."""
    admin_of_the_shadow = sides.url(sides.shadow_database)
    assert service.call(connect_and_ask, admin_of_the_shadow, run.mark(), {}) == [
        sides.shadow_database,
        sides.shadow_role,
    ]
    # And: ordinary work may look at the shadow database as it always could
    assert service.call(connect_and_ask, admin_of_the_shadow, None, {}) == [sides.shadow_database, "postgres"]


async def find_impostor(dsn: str, mark: Mark, user: str, password: str) -> Any:
    """Connect by way of something that logs in as somebody else after the agent decided, as a pooler may."""
    connect_addr = asyncpg.connect_utils._connect_addr

    async def elsewhere(*, params: Any, **given: Any) -> Any:
        return await connect_addr(params=params._replace(user=user, password=password), **given)

    asyncpg.connect_utils._connect_addr = elsewhere
    try:
        return await connect_and_ask(dsn, mark, {})
    finally:
        asyncpg.connect_utils._connect_addr = connect_addr


def test_the_server_is_asked_who_it_is(service: Service, sides: Sides, run: TestRun) -> None:
    """A connection that ends up with another login after all is closed before marked work gets it."""
    password = sides.postgres.admin_dsn.split(":")[2].partition("@")[0]
    said = service.call(find_impostor, sides.app, run.mark(), "postgres", password)
    assert is_refused(said, "what should be the shadow is")


async def keep_connection(dsn: str, mark: Mark) -> None:
    with marked(mark):
        kept["connection"] = connection = await asyncpg.connect(dsn)
        kept["statement"] = await connection.prepare(ADD)
        await connection.fetch("SELECT 1")  # which asyncpg keeps prepared
        kept["transaction"] = connection.transaction()
        await kept["transaction"].start()
        kept["cursor"] = await connection.cursor("SELECT generate_series(1, 3)")
        await connection.execute(ADD, "from before")


async def use_kept(mark: Mark) -> dict[str, Any]:
    connection, statement = kept["connection"], kept["statement"]

    def hear(*said: Any) -> None: ...

    async def iterate() -> None:
        async for _ in connection.cursor("SELECT 1"):
            pass

    async def copy_out(data: bytes) -> None: ...

    async def transaction() -> None:
        async with connection.transaction():
            pass

    async def terminate() -> None:
        connection.terminate()

    async def add_log_listener() -> None:
        connection.add_log_listener(hear)

    forget()
    ways = {
        "execute": lambda: connection.execute("INSERT INTO item (note) VALUES ('leaked')"),
        "execute with": lambda: connection.execute(ADD, "leaked"),
        "executemany": lambda: connection.executemany(ADD, [["a"], ["b"]]),
        "fetch": lambda: connection.fetch("SELECT 1"),
        "fetchval": lambda: connection.fetchval("SELECT 2"),
        "prepare": lambda: connection.prepare("SELECT 3"),
        "prepared": lambda: statement.fetch("leaked"),
        "prepared many": lambda: statement.executemany([["leaked"]]),
        "cursor": iterate,
        "fetch of cursor": lambda: kept["cursor"].fetch(1),
        "move": lambda: kept["cursor"].forward(1),
        "copy in": lambda: connection.copy_records_to_table("item", columns=["note"], records=[["c"]]),
        "copy out": lambda: connection.copy_from_table("item", output=copy_out),
        "transaction": transaction,
        "commit": kept["transaction"].commit,
        "rollback": kept["transaction"].rollback,
        "listen": lambda: connection.add_listener("news", hear),
        "log": add_log_listener,
        "codec": lambda: connection.set_type_codec("json", encoder=str, decoder=str, schema="pg_catalog"),
        "reset": connection.reset,
        "close": connection.close,
        "terminate": terminate,
    }
    with marked(mark):
        return {name: await attempt_async(way) for name, way in ways.items()}


async def finish_kept() -> Any:
    connection = kept["connection"]
    rows = await kept["cursor"].fetch(5)
    async with connection.transaction():
        await kept["statement"].fetch("nested")
    await kept["transaction"].commit()
    await connection.close()
    kept.clear()
    return [len(rows), noted("session"), len(noted("refuse"))]


def test_marked_work_cannot_use_a_connection_kept_from_before(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Nothing is sent on it, and nothing changes in it: neither its transaction nor its listeners."""
    # Given: a real user's open transaction, a prepared statement and a cursor, kept in globals
    service.call(keep_connection, sides.app, None)
    # When
    said = service.call(use_kept, run.mark())
    # Then: every way is refused
    for way, answer in said.items():
        assert is_refused(answer, FROM_BEFORE), (way, answer)
    # And: the real user's transaction is as it was, and can be committed
    rows, sessions, refusals = service.call(finish_kept)
    assert (rows, sessions) == (3, [])
    assert refusals >= len(said)
    assert sides.notes("production") == ["from before", "nested"]


async def ordinary_finds_shadow() -> list[Any]:
    connection = kept["connection"]
    forget()
    said = await attempt_async(lambda: connection.execute(ADD, "real user"))
    again = await attempt_async(lambda: connection.fetch("SELECT 1"))
    kept.clear()
    return [said, again, connection.is_closed(), noted("step_aside")]


def test_ordinary_work_that_finds_a_shadow_connection_loses_it(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """It is closed, as a lost connection is: a real user's row is never silently a shadow row."""
    # Given
    service.call(keep_connection, sides.app, run.mark())
    # When
    said, again, closed, aside = service.call(ordinary_finds_shadow)
    # Then
    assert said == (
        "ConnectionDoesNotExistError: perflab: this connection belonged to a load test; it was closed"
    )
    assert again == "InterfaceError: connection is closed"
    assert closed is True
    assert aside == [["sql: ordinary work found a shadow connection; it was closed"]]
    assert sides.notes("production") == sides.notes("shadow") == []


async def go_on_with_kept(mark: Mark, dsn: str) -> dict[str, Any]:
    connection = kept["connection"]
    poll()
    with marked(mark):
        said = {
            "execute": await attempt_async(lambda: connection.execute(ADD, "late")),
            "prepared": await attempt_async(lambda: kept["statement"].fetch("late")),
            "nested": await attempt_async(connection.transaction().start),
            "connect": await attempt_async(lambda: asyncpg.connect(dsn)),
            "rollback": await attempt_async(lambda: connection.execute("ROLLBACK")),
            "close": await attempt_async(connection.close),
        }
    kept.clear()
    return said


def test_a_killed_run_ends_at_the_next_access(service: Service, sides: Sides, run: TestRun) -> None:
    """Mid-transaction: statements and new connections are refused, giving up is allowed."""
    # Given
    service.call(keep_connection, sides.app, run.mark())
    # When
    run.kill()
    said = service.call(go_on_with_kept, run.mark(), sides.app)
    # Then
    for way in ("execute", "prepared", "nested", "connect"):
        assert is_refused(said[way], "the run is not live any more"), (way, said)
    assert (said["rollback"], said["close"]) == ("ROLLBACK", None)
    assert sides.notes("shadow") == sides.notes("production") == []


async def commit_after_kill(mark: Mark) -> Any:
    poll()
    with marked(mark):
        said = await attempt_async(kept["transaction"].commit)
        await kept["connection"].close()
    kept.clear()
    return said


def test_a_killed_run_does_not_commit(service: Service, sides: Sides, run: TestRun) -> None:
    """COMMIT is refused to a run that is over; the server takes back what the connection began."""
    service.call(keep_connection, sides.app, run.mark())
    run.kill()
    assert is_refused(service.call(commit_after_kill, run.mark()), "not live")
    assert sides.notes("shadow") == []


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
    assert "not permitted to log in" in said
    assert ordinary == [sides.production_database, "both_app"]
