"""Pools of psycopg and SQLAlchemy, checked out by marked and ordinary work in turn: they never mix."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg_pool
import pytest
import sqlalchemy
from attached_service import (
    Service,
    attempt,
    attempt_async,
    forget,
    is_refused,
    kept,
    marked,
    noted,
    poll,
    wait_for,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool
from two_sides import Sides, TestRun

WHO = "SELECT current_database(), session_user"
ADD = "INSERT INTO item (note) VALUES ('{note}')"
THREADS, TURNS = 4, 12
Mark = dict[str, Any] | None


def _psycopg_turn(pool: Any, note: str) -> list[str]:
    with pool.connection() as connection:
        who = connection.execute(WHO).fetchone()
        connection.execute(ADD.format(note=note))
    return list(who)


def _sqlalchemy_turn(engine: Any, note: str) -> list[str]:
    with engine.begin() as connection:
        who = connection.execute(sqlalchemy.text(WHO)).one()
        connection.execute(sqlalchemy.text(ADD.format(note=note)))
    return list(who)


def take_turns(kind: str, dsn: str, marks: list[dict[str, Any]]) -> Any:
    """Let threads check out in turn as marked and ordinary work; count what they met."""
    met: Counter[str] = Counter()

    def work(number: int, turn: Callable[[str], list[str]]) -> None:
        for at in range(TURNS):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                met[" ".join(["marked" if mark else "ordinary", *turn(f"{kind} {number} {at}")])] += 1

    def all_work(turn: Callable[[str], list[str]]) -> None:
        threads = [threading.Thread(target=work, args=(number, turn)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    if kind.startswith("psycopg"):
        pool_class = psycopg_pool.NullConnectionPool if "null" in kind else psycopg_pool.ConnectionPool
        with pool_class(dsn, min_size=0, max_size=3, open=True) as pool:
            all_work(lambda note: _psycopg_turn(pool, note))
    else:
        engine = sqlalchemy.create_engine(_dialect(dsn), **_ENGINES[kind])
        all_work(lambda note: _sqlalchemy_turn(engine, note))
        engine.dispose()
    return met


_ENGINES: dict[str, dict[str, Any]] = {
    "sqlalchemy queue": {"poolclass": QueuePool, "pool_size": 2, "pool_pre_ping": True},
    "sqlalchemy null": {"poolclass": NullPool},
    "sqlalchemy per thread": {"poolclass": SingletonThreadPool, "pool_size": THREADS},
}


def _dialect(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://")


@pytest.mark.parametrize("kind", ["psycopg", "psycopg null", *_ENGINES])
def test_pools_never_mix(kind: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Threads that are marked every other time meet their own side each time, and write only there."""
    # When
    met = service.call(take_turns, kind, sides.app, [run.mark() for _ in range(THREADS)])
    # Then
    half = THREADS * TURNS // 2
    assert met == {"marked both_shadow both_role": half, "ordinary both_shop both_app": half}
    for side, odd, owner in (("production", 0, "both_app"), ("shadow", 1, "both_role")):
        expected = {
            f"{kind} {number} {at}"
            for number in range(THREADS)
            for at in range(TURNS)
            if (at + number) % 2 == odd
        }
        assert set(sides.notes(side)) == expected
        assert sides.query(side, "SELECT DISTINCT owner FROM item") == [(owner,)]


async def take_turns_async(kind: str, dsn: str, marks: list[dict[str, Any]]) -> Any:
    """Let tasks do what `take_turns` lets threads do."""
    met: Counter[str] = Counter()

    async def work(number: int, turn: Callable[[str], Any]) -> None:
        for at in range(TURNS):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                met[" ".join(["marked" if mark else "ordinary", *await turn(f"{kind} {number} {at}")])] += 1

    async def all_work(turn: Callable[[str], Any]) -> None:
        await asyncio.gather(*(work(number, turn) for number in range(THREADS)))

    if kind == "psycopg":
        configured: list[str] = []

        async def configure(connection: Any) -> None:
            await connection.set_autocommit(True)
            configured.append((await (await connection.execute("SELECT session_user")).fetchone())[0])

        async def reset(connection: Any) -> None:
            await connection.execute("SELECT 1")

        async def turn(note: str) -> list[str]:
            async with pool.connection() as connection:
                who = await (await connection.execute(WHO)).fetchone()
                await connection.execute(ADD.format(note=note))
            return list(who)

        check = psycopg_pool.AsyncConnectionPool.check_connection
        async with psycopg_pool.AsyncConnectionPool(
            dsn, min_size=1, max_size=2, open=False, configure=configure, check=check, reset=reset
        ) as pool:
            await all_work(turn)
        met["configured"] = len(set(configured))
    else:
        engine = create_async_engine(_dialect(dsn), pool_size=2)

        async def turn_of_engine(note: str) -> list[str]:
            async with engine.begin() as connection:
                who = (await connection.execute(sqlalchemy.text(WHO))).one()
                await connection.execute(sqlalchemy.text(ADD.format(note=note)))
            return list(who)

        await all_work(turn_of_engine)
        await engine.dispose()
    return met


@pytest.mark.parametrize("kind", ["psycopg", "sqlalchemy"])
def test_async_pools_never_mix(kind: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Tasks that are marked every other time; callbacks of the pool run on the side of their connection."""
    # When
    met = service.call(take_turns_async, kind, sides.app, [run.mark() for _ in range(THREADS)])
    # Then
    half = THREADS * TURNS // 2
    assert met.pop("configured", 2) == 2
    assert met == {"marked both_shadow both_role": half, "ordinary both_shop both_app": half}
    assert len(sides.notes("production")) == len(sides.notes("shadow")) == half
    assert service.call(noted, "step_aside") == []


def open_in_a_marked_request(dsn: str, mark: Mark) -> list[Any]:
    """Make the pool lazily, as many services do, in a request that happens to be marked."""
    forget()
    with marked(mark):
        pool = psycopg_pool.ConnectionPool(dsn, min_size=2, max_size=2, open=True)
        pool.wait()
        first = _psycopg_turn(pool, "marked")
    then = [_psycopg_turn(pool, "ordinary") for _ in range(3)]
    with marked(mark):
        again = _psycopg_turn(pool, "marked")
    pool.close()
    return [first, then, again, noted("step_aside")]


async def open_in_a_marked_request_async(dsn: str, mark: Mark) -> list[Any]:
    async def turn(note: str) -> list[Any]:
        async with pool.connection() as connection:
            await connection.execute(ADD.format(note=note))
            return list(await (await connection.execute(WHO)).fetchone())

    forget()
    with marked(mark):
        pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=2, max_size=2, open=False)
        await pool.open(wait=True)
        first = await turn("marked")
    then = [await turn("ordinary") for _ in range(3)]
    with marked(mark):
        again = await turn("marked")
    await pool.close()
    return [first, then, again, noted("step_aside")]


@pytest.mark.parametrize("opening", [open_in_a_marked_request, open_in_a_marked_request_async])
def test_a_pool_opened_by_marked_work_serves_ordinary_work(
    opening: Any, service: Service, sides: Sides, run: TestRun
) -> None:
    """The pool's workers outlive the request that started them: they are not marked."""
    # When
    first, then, again, aside = service.call(opening, sides.app, run.mark())
    # Then
    assert then == [["both_shop", "both_app"]] * 3
    assert first == again == ["both_shadow", "both_role"]
    assert aside == []
    assert (sides.notes("production"), sides.notes("shadow")) == (["ordinary"] * 3, ["marked"] * 2)


def leave_a_transaction_open(dsn: str, mark: Mark) -> list[Any]:
    """Return a twin's connection in the middle of a transaction, from a context without the mark."""
    forget()
    with psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1, open=True) as pool:
        with marked(mark):
            connection = pool.getconn()
            connection.execute(ADD.format(note="half"))
        pool.putconn(connection)
        with marked(mark):
            after = _psycopg_turn(pool, "whole")
    return [after, noted("step_aside")]


def test_a_twin_s_connection_comes_back_in_any_context(service: Service, sides: Sides, run: TestRun) -> None:
    """It is rolled back and serves marked work again; nobody is refused for tidying up."""
    assert service.call(leave_a_transaction_open, sides.app, run.mark()) == [["both_shadow", "both_role"], []]
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["whole"])


def check_out_after_kill(dsn: str, mark: Mark) -> None:
    kept["pool"] = psycopg_pool.ConnectionPool(
        dsn, min_size=0, max_size=1, open=True, check=psycopg_pool.ConnectionPool.check_connection
    )
    kept["engine"] = sqlalchemy.create_engine(_dialect(dsn), pool_size=1)
    with marked(mark):
        _psycopg_turn(kept["pool"], "before")
        _sqlalchemy_turn(kept["engine"], "before")


def turns_of_the_dead(mark: Mark) -> list[Any]:
    pool, engine = kept.pop("pool"), kept.pop("engine")
    poll()
    with marked(mark):
        said = [attempt(lambda: _psycopg_turn(pool, "after")), attempt(lambda: _sqlalchemy_turn(engine, "x"))]
    ordinary = [_psycopg_turn(pool, "real"), _sqlalchemy_turn(engine, "real")]
    pool.close()
    engine.dispose()
    return [*said, ordinary]


def test_a_killed_run_gets_no_connection(service: Service, sides: Sides, run: TestRun) -> None:
    """At once, not after the pool's timeout; real users go on."""
    # Given
    service.call(check_out_after_kill, sides.app, run.mark())
    # When
    run.kill()
    of_psycopg, of_sqlalchemy, ordinary = service.call(turns_of_the_dead, run.mark())
    # Then
    assert is_refused(of_psycopg, "not live")
    assert "not live" in of_sqlalchemy
    assert ordinary == [["both_shop", "both_app"]] * 2
    assert sides.notes("shadow") == ["before"] * 2


def _past_the_fence() -> Any:
    """Connect with the driver's own class, which is not the one the driver's modules hold."""
    return sqlite3.Connection.__mro__[-2](":memory:")  # type: ignore[call-arg]  # it takes a name


def unknown_pools(dsn: str, mark: Mark) -> list[Any]:
    """Pools whose database is none of the target's, whose driver is not covered, which are closed."""
    closed = psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1, open=False)
    engines = [
        sqlalchemy.create_engine(_dialect(f"{dsn}_other")),
        sqlalchemy.create_engine("sqlite://", poolclass=StaticPool, creator=_past_the_fence),
        sqlalchemy.create_engine("sqlite://", poolclass=AssertionPool, creator=_past_the_fence),
    ]
    said = []
    with (
        psycopg_pool.ConnectionPool(f"{dsn}_other", min_size=0, max_size=1, open=True) as other,
        marked(mark),
    ):
        said.append(attempt(lambda: _psycopg_turn(other, "x")))
        said += [attempt(engine.connect) for engine in engines]
        said.append(attempt(lambda: _psycopg_turn(closed, "x")))
    said.append(attempt(lambda: _psycopg_turn(closed, "x")))
    return said


def test_pools_that_are_not_known_are_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Other databases and drivers that are not covered fail closed; a closed pool says so as ever."""
    # When
    other, of_engine, *sqlite, closed, closed_ordinary = service.call(unknown_pools, sides.app, run.mark())
    # Then
    assert is_refused(other, "not one of the target's stores")
    assert "not one of the target's stores" in of_engine
    for said in sqlite:
        assert "this driver's connections are not known to be shadows" in said
    assert closed == closed_ordinary
    assert closed.startswith("PoolClosed")


class Particular(psycopg_pool.ConnectionPool):  # type: ignore[type-arg]
    """A pool that cannot be made again the same way."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, min_size=0, max_size=1, open=True)


def turn_of_particular(dsn: str, mark: Mark) -> list[Any]:
    with Particular(dsn) as pool:
        with marked(mark):
            said = attempt(lambda: _psycopg_turn(pool, "x"))
        return [said, _psycopg_turn(pool, "real")]


def test_a_pool_that_cannot_be_twinned_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work gets a reason, ordinary work its connection."""
    said, ordinary = service.call(turn_of_particular, sides.app, run.mark())
    assert is_refused(said, "no twin of a Particular")
    assert ordinary == ["both_shop", "both_app"]


def forget_pools(dsn: str, mark: Mark) -> list[bool]:
    engine = sqlalchemy.create_engine(_dialect(dsn))
    pool = psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1, open=True)
    with marked(mark):
        _sqlalchemy_turn(engine, "x")
        _psycopg_turn(pool, "x")
    engine.dispose()
    pool.close()
    watched = [weakref.ref(engine.pool), weakref.ref(engine), weakref.ref(pool)]
    del engine, pool
    gc.collect()
    return [watch() is None for watch in watched]


def test_twins_keep_nothing_alive(service: Service, sides: Sides, run: TestRun) -> None:
    """A pool that the service has done with is collected, and its twin's sessions end."""
    # Given what other tests have the same process keep open
    open_sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{sides.shadow_role}'"
    before = sides.query("shadow", open_sessions)
    # When
    assert service.call(forget_pools, sides.app, run.mark()) == [True, True, True]
    # Then
    wait_for(lambda: sides.query("shadow", open_sessions) <= before, "the twins' sessions end")


def shadow_is_gone(dsn: str, mark: Mark) -> list[Any]:
    with psycopg_pool.ConnectionPool(
        dsn, min_size=0, max_size=1, open=True, timeout=0.5, reconnect_timeout=0.1
    ) as pool:
        with marked(mark):
            said = attempt(lambda: _psycopg_turn(pool, "x"))
        return [said, _psycopg_turn(pool, "real")]


async def shadow_is_gone_async(dsn: str, mark: Mark) -> list[Any]:
    engine = create_async_engine(_dialect(dsn))

    async def turn() -> None:
        async with engine.begin() as connection:
            await connection.execute(sqlalchemy.text(ADD.format(note="x")))

    with marked(mark):
        said = await attempt_async(turn)
    await turn()
    await engine.dispose()
    return [said]


def test_a_shadow_that_cannot_be_reached_fails_only_marked_work(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Marked checkouts fail as those of a lost database do; real users are served and nothing leaks."""
    # Given
    sides.query("production", f"ALTER ROLE {sides.shadow_role} NOLOGIN")
    try:
        # When
        said, ordinary = service.call(shadow_is_gone, sides.app, run.mark())
        (of_engine,) = service.call(shadow_is_gone_async, sides.app, run.mark())
    finally:
        sides.query("production", f"ALTER ROLE {sides.shadow_role} LOGIN")
    # Then
    assert said.startswith("PoolTimeout")
    assert "not permitted to log in" in of_engine
    assert ordinary == ["both_shop", "both_app"]
    assert sides.notes("production") == ["real", "x"]
