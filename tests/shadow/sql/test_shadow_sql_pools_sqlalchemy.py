"""SQLAlchemy 2.0 and 2.1, sync and async: every pool and way to a connection, on the side of who works."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import sqlalchemy
from attached_service import (
    Service,
    attempt,
    attempt_async,
    forget,
    kept,
    marked,
    noted,
)
from sqlalchemy import pool, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from two_sides import Sides, TestRun

WHO = text("SELECT current_database(), session_user")
SHADOW, PRODUCTION = ["both_shadow", "both_role"], ["both_shop", "both_app"]
FROM_BEFORE = "this connection was opened for production before"
TASKS, TURNS = 3, 8
Mark = dict[str, Any] | None


class Table(DeclarativeBase): ...


class Item(Table):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


def url(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


def hooked() -> Any:
    create_async_engine("postgresql+asyncpg://")
    from perflab.shadow.scope import process

    states = [process.ledger.hooks[name]["state"] for name in ("sqlalchemy", "asyncpg")]
    return [sqlalchemy.__version__, *states]


def test_the_hook_knows_the_version(engines: Service, version: str) -> None:
    """Both are hooked, and really the two versions."""
    number, *states = engines.call(hooked)
    assert number.startswith("2.0." if "sqlalchemy" in version else "2.1.")
    assert states == ["on"] * 2


SYNC: dict[str, dict[str, Any]] = {
    "queue": {"pool_size": 1, "max_overflow": 1, "pool_pre_ping": True, "pool_recycle": 1},
    "null": {"poolclass": pool.NullPool},
    "static": {"poolclass": pool.StaticPool},
    "assertion": {"poolclass": pool.AssertionPool},
    "per thread": {"poolclass": pool.SingletonThreadPool},
    "autocommit": {"isolation_level": "AUTOCOMMIT"},
}
ASYNC = {name: options for name, options in SYNC.items() if name != "per thread"}


def take_turns(kind: str, dsn: str, mark: Mark) -> Any:
    """Be marked every other time, with one engine; count who the server says it was."""
    met: Counter[str] = Counter()
    engine = sqlalchemy.create_engine(url(dsn, "psycopg"), **SYNC[kind])
    for at in range(TURNS):
        with marked(mark if at % 2 == 0 else None), engine.begin() as connection:
            connection.execute(text("INSERT INTO item (note) VALUES (:note)"), {"note": str(at)})
            met[" ".join([str(at % 2), *connection.execute(WHO).one()])] += 1
    engine.dispose()
    return met


async def take_turns_async(kind: str, driver: str, dsn: str, mark: Mark) -> Any:
    """Do the same in tasks, where the pool may give out more than one connection."""
    met: Counter[str] = Counter()
    engine = create_async_engine(url(dsn, driver), **ASYNC[kind])
    alone = asyncio.Lock() if kind in ("static", "assertion") else asyncio.Semaphore(TASKS)

    async def work(number: int) -> None:
        for at in range(TURNS):
            async with alone:
                with marked(mark if (at + number) % 2 == 0 else None):
                    async with engine.begin() as connection:
                        await connection.execute(text("INSERT INTO item (note) VALUES ('x')"))
                        who = (await connection.execute(WHO)).one()
                    met[" ".join([str((at + number) % 2), *who])] += 1

    await asyncio.gather(*map(work, range(TASKS)))
    await engine.dispose()
    return met


def _expect_both_sides(met: dict[str, int], each: int, sides: Sides) -> None:
    assert met == {"0 both_shadow both_role": each, "1 both_shop both_app": each}
    for side, owner in (("production", "both_app"), ("shadow", "both_role")):
        assert len(sides.notes(side)) == each
        assert sides.query(side, "SELECT DISTINCT owner FROM item") == [(owner,)]


@pytest.mark.parametrize("kind", SYNC)
def test_sync_engines_never_mix(kind: str, engines: Service, sides: Sides, run: TestRun) -> None:
    """Whatever pool an engine has, each turn is on its own side, and the first one is marked."""
    _expect_both_sides(engines.call(take_turns, kind, sides.app, run.mark()), TURNS // 2, sides)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("kind", ASYNC)
def test_async_engines_never_mix(
    kind: str, driver: str, engines: Service, sides: Sides, run: TestRun
) -> None:
    """The same in tasks, with both drivers; nothing stepped aside."""
    engines.call(forget)
    met = engines.call(take_turns_async, kind, driver, sides.app, run.mark())
    _expect_both_sides(met, TASKS * TURNS // 2, sides)
    assert engines.call(noted, "step_aside") == []


async def orm(dsn: str, driver: str, mark: Mark) -> Any:
    """Use sessions as a service does: flush, savepoint, rollback, RETURNING, a bulk insert, a stream."""
    engine = create_async_engine(url(dsn, driver))
    forget()
    with marked(mark):
        async with AsyncSession(engine, expire_on_commit=False) as session:
            first = Item(note="first")
            session.add_all([first, Item(note="second")])
            await session.flush()
            try:
                async with session.begin_nested():
                    session.add(Item(note="taken back"))
                    await session.flush()
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            await session.commit()
            numbered = isinstance(first.id, int)
            first.note = "changed"
            await session.commit()
            await session.execute(sqlalchemy.insert(Item), [{"note": "b1"}, {"note": "b2"}])
            await session.rollback()
            stream = await session.stream_scalars(sqlalchemy.select(Item.note).order_by(Item.note))
            notes = [note async for note in stream]
            gone = await session.scalars(
                sqlalchemy.delete(Item).where(Item.note == "second").returning(Item.note)
            )
            said = [notes, list(gone), numbered]
            await session.commit()
    await engine.dispose()
    return [said, noted("refuse"), [told for _, told, _, _ in noted("claim")]]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_sessions_work_on_their_side(driver: str, engines: Service, sides: Sides, run: TestRun) -> None:
    """The same answers on both sides; only ordinary work claims, and exactly what it committed."""
    # When
    of_marked, refused, claims_of_marked = engines.call(orm, sides.app, driver, run.mark())
    of_ordinary, _, claims = engines.call(orm, sides.app, driver, None)
    # Then
    assert of_marked == of_ordinary == [["changed", "second"], ["second"], True]
    assert (refused, claims_of_marked) == ([], [])
    assert claims == [
        '[["item", "insert", 2]]',
        '[["item", "update", 1]]',
        '[["item", "delete", 1]]',
    ]
    assert sides.notes("production") == sides.notes("shadow") == ["changed"]


def keep_session(dsn: str) -> None:
    engine = sqlalchemy.create_engine(url(dsn, "psycopg"))
    kept["session"] = scoped_session(sessionmaker(engine))
    kept["session"].add(Item(note="real user"))
    kept["session"].flush()


def use_session(mark: Mark) -> Any:
    session: Session = kept["session"]
    with marked(mark):
        said = [
            attempt(lambda: session.execute(text("INSERT INTO item (note) VALUES ('leaked')"))),
            attempt(lambda: session.connection().execute(WHO)),
            attempt(lambda: kept["session"].connection().connection.cursor().execute("SELECT 1")),
        ]
    session.commit()
    kept.pop("session").remove()
    return said


def test_a_session_from_before_is_refused(engines: Service, sides: Sides, run: TestRun) -> None:
    """A scoped session that checked out for a real user; that user's transaction is committed afterwards."""
    engines.call(keep_session, sides.app)
    for said in engines.call(use_session, run.mark()):
        assert FROM_BEFORE in said
    assert sides.notes("production") == ["real user"]


async def uncovered(directory: str, mark: Mark) -> Any:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory}/shop.db")

    async def ask() -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar_one()

    ordinary = await ask()
    with marked(mark):
        said = await attempt_async(ask)
    await engine.dispose()
    return [ordinary, said]


def test_a_driver_that_is_not_covered_is_refused(
    engines: Service, run: TestRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Marked work gets no connection of it, real users do."""
    ordinary, said = engines.call(uncovered, str(tmp_path_factory.mktemp("sqlite")), run.mark())
    assert ordinary == 1
    assert said.startswith("ShadowError: ")
    assert "aiosqlite" in said or "sqlite" in said


async def kill_and_go_on(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        said = await attempt_async(lambda: kept["connection"].execute(WHO))
        await kept["connection"].close()
        again = await attempt_async(lambda: kept["engine"].connect().start())
    ordinary = []
    async with kept["engine"].connect() as connection:
        ordinary = list((await connection.execute(WHO)).one())
    await kept["engine"].dispose()
    kept.clear()
    return [said, again, ordinary]


async def begin_work(dsn: str, mark: Mark) -> None:
    kept["engine"] = create_async_engine(url(dsn, "asyncpg"))
    with marked(mark):
        kept["connection"] = await kept["engine"].connect().start()
        await kept["connection"].execute(text("INSERT INTO item (note) VALUES ('half')"))


def test_a_killed_run_ends_in_the_middle(engines: Service, sides: Sides, run: TestRun) -> None:
    """Statements and checkouts are refused, what it began is taken back, and real users go on."""
    engines.call(begin_work, sides.app, run.mark())
    run.kill()
    said, again, ordinary = engines.call(kill_and_go_on, sides.app, run.mark())
    assert "not live" in said
    assert "not live" in again
    assert ordinary == PRODUCTION
    assert sides.notes("shadow") == sides.notes("production") == []
