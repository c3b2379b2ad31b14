"""Ways around an engine's pool: creators, listeners, disposal, detached connections, two phases."""

from __future__ import annotations

import gc
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted, wait_for
from sqlalchemy import event, pool, text
from sqlalchemy.ext.asyncio import create_async_engine
from two_sides import Sides, TestRun

WHO = text("SELECT current_database(), session_user")
SHADOW, PRODUCTION = ["both_shadow", "both_role"], ["both_shop", "both_app"]
Mark = dict[str, Any] | None


def url(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


def who_is(engine: sqlalchemy.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(WHO).one())


def own_ways_to_connect(dsn: str, mark: Mark) -> Any:
    """Connect by a creator, by a do_connect listener, and by one that returns a kept connection."""
    before = psycopg.connect(dsn)
    listened = sqlalchemy.create_engine(url(dsn, "psycopg").replace("both_app", "nobody"))

    @event.listens_for(listened, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
        parameters["user"] = "both_app"

    made = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    old = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: before, poolclass=pool.NullPool)
    said = []
    for engine in (made, listened, old):
        with marked(mark):
            said.append(attempt(lambda engine=engine: who_is(engine)))
    said.append(list(before.execute("SELECT session_user").fetchone()))
    before.close()
    for engine in (made, listened):
        said.append(who_is(engine))
        engine.dispose()
    return said


def test_however_an_engine_connects(engines: Service, sides: Sides, run: TestRun) -> None:
    """Creators and listeners lead to the shadow; what they kept from before is refused, and left alone."""
    made, listened, old, still, *ordinary = engines.call(own_ways_to_connect, sides.app, run.mark())
    assert made == listened == SHADOW
    assert is_refused(old, "not known to be shadows")
    assert still == ["both_app"]
    assert ordinary == [PRODUCTION] * 2


async def own_async_creator(dsn: str, mark: Mark) -> Any:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn))
    said = []
    for who in (mark, None, mark):
        with marked(who):
            async with engine.connect() as connection:
                said.append(list((await connection.execute(WHO)).one()))
    await engine.dispose()
    return said


def test_an_async_creator_is_followed(engines: Service, sides: Sides, run: TestRun) -> None:
    """It connects by itself, and so is routed where it connects."""
    assert engines.call(own_async_creator, sides.app, run.mark()) == [SHADOW, PRODUCTION, SHADOW]


def pool_events(dsn: str, mark: Mark) -> Any:
    """Listen to a pool, with listeners that use the connection."""
    engine = sqlalchemy.create_engine(url(dsn, "psycopg"), pool_size=1)
    heard: list[str] = []

    def listen(name: str) -> None:
        def note(connection: Any, *rest: Any) -> None:
            heard.append(f"{name} {connection.execute('SELECT session_user').fetchone()[0]}")
            connection.rollback()

        event.listen(engine, name, note)

    for name in ("connect", "checkout", "reset", "checkin"):
        listen(name)
    for who in (mark, None):
        with marked(who), engine.begin() as connection:
            connection.execute(text("INSERT INTO item (note) VALUES ('x')"))
    with marked(mark):
        held = engine.connect()
        held.execute(text("INSERT INTO item (note) VALUES ('half')"))
    held.close()
    engine.dispose()
    return [heard, engine.dialect.server_version_info is not None, noted("step_aside")]


def test_listeners_of_a_pool_hear_their_own_side(engines: Service, sides: Sides, run: TestRun) -> None:
    """A dialect meets production first, though marked work came first: it learns from real users' server."""
    engines.call(forget)
    heard, known, aside = engines.call(pool_events, sides.app, run.mark())
    use = ["checkout", "reset", "checkin"]
    expected = [f"{name} both_app" for name in ["connect", *use]]
    expected += [f"{name} both_role" for name in ["connect", *use]]
    expected += [f"{name} both_app" for name in use] + [f"{name} both_role" for name in use]
    assert heard == expected
    assert (known, aside) == (True, [])
    assert (sides.notes("production"), sides.notes("shadow")) == (["x"], ["x"])


def disposals(dsn: str, mark: Mark) -> Any:
    """Invalidate, detach, dispose and use again."""
    gc.collect()  # what an earlier test left behind is no twin's
    engine = sqlalchemy.create_engine(url(dsn, "psycopg"))
    said = []
    for who in (mark, None):
        with marked(who):
            connection = engine.connect()
            connection.invalidate()
            connection.close()
            connection = engine.connect()
            connection.detach()
            said.append(list(connection.execute(WHO).one()))
            connection.close()
    with marked(mark):
        engine.connect().close()
        engine.dispose()
        said.append(who_is(engine))
    engine.dispose()
    kept["engine"] = engine
    return [said, noted("step_aside"), noted("refuse")]


async def disposals_async(dsn: str, mark: Mark) -> Any:
    engine = create_async_engine(url(dsn, "asyncpg"))
    said = []
    for who in (mark, None):
        with marked(who):
            async with engine.connect() as connection:
                await connection.invalidate()
            async with engine.connect() as connection:
                said.append(list((await connection.execute(WHO)).one()))
    await engine.dispose()
    with marked(mark):
        async with engine.connect() as connection:
            said.append(list((await connection.execute(WHO)).one()))
    await engine.dispose()
    kept["engine"] = engine
    return [said, noted("step_aside"), noted("refuse")]


@pytest.mark.parametrize("disposing", [disposals, disposals_async])
def test_a_disposed_pool_s_twin_is_disposed_of(
    disposing: Any, engines: Service, sides: Sides, run: TestRun
) -> None:
    """With the engine still there; a connection invalidated or detached stays on its side."""
    engines.call(forget)
    sessions = f"SELECT pid FROM pg_stat_activity WHERE usename = '{sides.shadow_role}'"
    others = set(sides.query("shadow", sessions))
    said, aside, refused = engines.call(disposing, sides.app, run.mark())
    assert said == [SHADOW, PRODUCTION, SHADOW]
    assert aside == refused == []
    wait_for(lambda: set(sides.query("shadow", sessions)) <= others, "the twins' sessions end")


def two_phases(dsn: str, mark: Mark) -> Any:
    engine = sqlalchemy.create_engine(url(dsn, "psycopg"))
    with marked(mark), engine.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(text("INSERT INTO item (note) VALUES ('two phases')"))
        said = attempt(transaction.prepare)
        said = [said, attempt(transaction.commit)]
    engine.dispose()
    return said


def test_two_phase_transactions_stay_on_their_side(engines: Service, sides: Sides, run: TestRun) -> None:
    """Whatever the server allows: a prepared transaction belongs to the database it was prepared in."""
    said = engines.call(two_phases, sides.app, run.mark())
    allowed = sides.query("shadow", "SHOW max_prepared_transactions") != [("0",)]
    assert (said == [None, None]) is allowed
    assert sides.notes("production") == []
    assert sides.notes("shadow") == (["two phases"] if allowed else [])
