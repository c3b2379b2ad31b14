"""asyncpg's pool with real connections: the two sides never meet, whoever acquires, in whichever context."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import asyncpg
import pytest
from attached_service import (
    Service,
    attempt_async,
    forget,
    is_refused,
    kept,
    marked,
    noted,
    poll,
    span_names,
    wait_for,
)  # fmt: skip
from two_sides import Sides, TestRun

WHO = "SELECT current_database(), session_user"
ADD = "INSERT INTO item (note) VALUES ($1)"
SHADOW, PRODUCTION = ["both_shadow", "both_role"], ["both_shop", "both_app"]
TASKS, TURNS = 4, 12
Mark = dict[str, Any] | None


async def turn(pool: Any, note: str) -> list[str]:
    async with pool.acquire() as connection, connection.transaction():
        who = await connection.fetchrow(WHO)
        await connection.execute(ADD, note)
    return list(who)


async def take_turns(kind: str, dsn: str, marks: list[dict[str, Any]]) -> Any:
    """Let tasks acquire in turn as marked and ordinary work; count what they and the callbacks met."""
    met: Counter[str] = Counter()
    called: dict[str, set[str]] = {"init": set(), "setup": set(), "reset": set()}

    def callback(name: str) -> Any:
        async def ask(connection: Any) -> None:
            called[name].add(await connection.fetchval("SELECT session_user"))

        return ask

    async def work(number: int, pool: Any) -> None:
        for at in range(TURNS):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                who = await turn(pool, f"{kind} {number} {at}")
                met[" ".join(["marked" if mark else "ordinary", *who])] += 1

    options: dict[str, Any] = {
        "plain": {},
        "callbacks": {name: callback(name) for name in called},
        "no cache": {"statement_cache_size": 0, "max_queries": 3},
        "factory": {"connect": asyncpg.connect, "max_inactive_connection_lifetime": 0.01},
    }[kind]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2, **options) as pool:
        await asyncio.gather(*(work(number, pool) for number in range(TASKS)))
        await pool.expire_connections()
        await work(0, pool)
    return [met, {name: sorted(users) for name, users in called.items()}, noted("step_aside")]


@pytest.mark.parametrize("kind", ["plain", "callbacks", "no cache", "factory"])
def test_pools_never_mix(kind: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Tasks that are marked every other time meet their own side, and so do the pool's callbacks."""
    # When
    service.call(forget)
    met, called, aside = service.call(take_turns, kind, sides.app, [run.mark() for _ in range(TASKS)])
    # Then
    half = TASKS * TURNS // 2 + TURNS // 2
    assert met == {"marked both_shadow both_role": half, "ordinary both_shop both_app": half}
    assert set(map(tuple, called.values())) == {("both_app", "both_role") if kind == "callbacks" else ()}
    assert aside == []
    for side, owner in (("production", "both_app"), ("shadow", "both_role")):
        assert len(sides.notes(side)) == half
        assert sides.query(side, "SELECT DISTINCT owner FROM item") == [(owner,)]


async def shortcuts(dsn: str, mark: Mark) -> Any:
    """Use the pool's own methods, and acquire without a block."""
    async with asyncpg.create_pool(dsn, min_size=0, max_size=2) as pool:
        with marked(mark):
            said = [
                await pool.execute(ADD, "a"),
                await pool.executemany(ADD, [["b"], ["c"]]),
                await pool.fetchval("SELECT session_user"),
                [tuple(row) for row in await pool.fetch("SELECT note FROM item ORDER BY 1")],
                tuple(await pool.fetchrow(WHO)),
                await pool.copy_records_to_table("item", columns=["note"], records=[("d",)]),
            ]
            connection = await pool.acquire(timeout=5)
            said.append(await connection.fetchval("SELECT count(*) FROM item"))
            await pool.release(connection)
        said += [pool.get_size(), pool.get_idle_size(), pool.get_max_size()]
    return said


def test_shortcuts_of_the_pool_are_routed(
    service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """Each acquires for itself; ordinary work gets what it gets without the agent."""
    said = service.call(shortcuts, sides.app, run.mark())
    assert said[2] == "both_role"
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["a", "b", "c", "d"])
    assert said[-3:] == [0, 0, 2]
    ordinary = service.call(shortcuts, sides.app, None)
    sides.empty()
    assert ordinary == plain.call(shortcuts, sides.app, None)


async def open_in_a_marked_request(dsn: str, mark: Mark) -> list[Any]:
    """Make the pool lazily, as many services do, in a request that happens to be marked."""
    forget()
    with marked(mark):
        pool = await asyncpg.create_pool(dsn, min_size=2, max_size=2)
        first = await turn(pool, "marked")
    then = [await turn(pool, "ordinary") for _ in range(3)]
    with marked(mark):
        again = await turn(pool, "marked")
    await pool.close()
    return [first, then, again, noted("step_aside"), noted("refuse")]


def test_a_pool_opened_by_marked_work_serves_ordinary_work(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """What it opens ahead is ordinary: the pool outlives the request that made it."""
    # When
    first, then, again, aside, refused = service.call(open_in_a_marked_request, sides.app, run.mark())
    # Then
    assert then == [PRODUCTION] * 3
    assert first == again == SHADOW
    assert aside == refused == []
    assert (sides.notes("production"), sides.notes("shadow")) == (["ordinary"] * 3, ["marked"] * 2)


async def return_in_any_context(dsn: str, mark: Mark) -> list[Any]:
    """Release a twin's connection in the middle of a transaction, in a context without the mark."""
    forget()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncpg tells it of the transaction
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        with marked(mark):
            connection = await pool.acquire()
            await connection.execute("BEGIN")
            await connection.execute(ADD, "half")
        await pool.release(connection)
        with marked(mark):
            after = await turn(pool, "whole")
    asyncio.get_running_loop().set_exception_handler(None)
    return [after, noted("step_aside")]


def test_a_twin_s_connection_comes_back_in_any_context(service: Service, sides: Sides, run: TestRun) -> None:
    """It is rolled back and serves marked work again; nobody is refused for tidying up."""
    assert service.call(return_in_any_context, sides.app, run.mark()) == [SHADOW, []]
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["whole"])


async def release_another_s(dsn: str, mark: Mark) -> Any:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        connection = await pool.acquire()
        async with connection.transaction():
            await connection.execute(ADD, "real user")
            with marked(mark):
                said = [
                    await attempt_async(lambda: pool.release(connection)),
                    await attempt_async(lambda: connection.execute(ADD, "leaked")),
                    await attempt_async(lambda: connection.close()),
                ]
        await pool.release(connection)
        return said


def test_marked_work_cannot_release_a_real_user_s_connection(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Acquired before the mark: its transaction goes on as if nothing had been tried."""
    for said in service.call(release_another_s, sides.app, run.mark()):
        assert is_refused(said, "opened for production before")
    assert sides.notes("production") == ["real user"]


async def keep_pool(dsn: str, mark: Mark) -> None:
    kept["pool"] = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    with marked(mark):
        await turn(kept["pool"], "before")
        kept["held"] = await kept["pool"].acquire()
        await kept["held"].execute("BEGIN")


async def turns_of_the_dead(mark: Mark) -> list[Any]:
    pool, held = kept.pop("pool"), kept.pop("held")
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    poll()
    with marked(mark):
        said = [
            await attempt_async(lambda: held.execute(ADD, "after")),
            await attempt_async(lambda: pool.release(held)),
            await attempt_async(lambda: turn(pool, "after")),
        ]
    ordinary = await turn(pool, "real")
    await pool.close()
    asyncio.get_running_loop().set_exception_handler(None)
    return [*said, ordinary]


def test_a_killed_run_gets_no_connection(service: Service, sides: Sides, run: TestRun) -> None:
    """At once, not after the pool's timeout; what it held goes back, and real users go on."""
    # Given
    service.call(keep_pool, sides.app, run.mark())
    # When
    run.kill()
    execute, released, acquire, ordinary = service.call(turns_of_the_dead, run.mark())
    # Then
    assert is_refused(execute, "not live")
    assert released is None
    assert is_refused(acquire, "not live")
    assert ordinary == PRODUCTION
    assert sides.notes("shadow") == ["before"]


class Own(asyncpg.Pool):
    """A pool that cannot be made again the same way."""

    def __init__(self, dsn: str) -> None:
        super().__init__(
            dsn, min_size=0, max_size=1, max_queries=9, max_inactive_connection_lifetime=0, loop=None,
            connection_class=asyncpg.Connection, record_class=asyncpg.Record,
        )  # fmt: skip


async def unknown_pools(dsn: str, mark: Mark) -> list[Any]:
    """Pools of another database, of a class of their own, whose connections are kept, and closed ones."""
    kept_connection = await asyncpg.connect(dsn)

    async def connect(*arguments: Any, **options: Any) -> Any:
        return kept_connection

    closed = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    await closed.close()
    said = []
    async with (
        asyncpg.create_pool(f"{dsn}_other", min_size=0, max_size=1) as other,
        Own(dsn) as own,
        asyncpg.create_pool(dsn, min_size=0, max_size=1, connect=connect) as one,
    ):
        for pool in (other, own, one, closed, asyncpg.create_pool(dsn, min_size=0, max_size=1)):
            with marked(mark):
                said.append(await attempt_async(lambda pool=pool: turn(pool, "x")))
        said += [await turn(own, "real"), await turn(one, "real")]
    return said


def test_pools_that_are_not_known_are_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """They fail closed; a closed pool and one that was never opened say so as ever."""
    # When
    other, own, one, closed, new, *ordinary = service.call(unknown_pools, sides.app, run.mark())
    # Then
    assert is_refused(other, "not one of the target's stores")
    assert is_refused(own, "no twin of a Own")
    assert is_refused(one, "returned a connection that is no shadow")
    assert closed == "InterfaceError: pool is closed"
    assert new == "InterfaceError: pool is not initialized"
    assert ordinary == [PRODUCTION] * 2
    assert sides.notes("production") == ["real"] * 2


async def hear(dsn: str, mark: Mark, other: Mark) -> Any:
    """Listen as marked work, be notified by other marked and by ordinary work, and look around."""
    from perflab.shadow import scope

    heard: list[Any] = []  # no queue: what is taken from one says whose work goes on
    changed = asyncio.Event()

    async def note(connection: Any, pid: int, channel: str, payload: str) -> None:
        await pool.execute(ADD, payload)  # the callback's own work
        shadow = scope.current()
        heard.append([payload, shadow and shadow.trace_id, scope.permitted()])
        changed.set()

    async with asyncpg.create_pool(dsn, min_size=0, max_size=3) as pool:
        with marked(mark):
            listening = await pool.acquire()
            await listening.add_listener("news", note)
        with marked(other):
            await pool.execute("SELECT pg_notify('news', 'of marked work')")
        await pool.execute("NOTIFY news, 'of real users'")
        await asyncio.wait_for(changed.wait(), 20)
        changed.clear()
        with marked(mark):
            await listening.execute("NOTIFY news, 'last'")
            await asyncio.wait_for(changed.wait(), 20)
            await listening.remove_listener("news", note)
            await pool.release(listening)
    return heard


def test_notifications_stay_on_their_side(service: Service, sides: Sides, run: TestRun) -> None:
    """NOTIFY ends at its own database; what the callback does is the work of whoever listens."""
    # Given
    mark = run.mark()
    # When
    said = service.call(hear, sides.app, mark, run.mark())
    # Then
    trace_id = int(mark["trace_id"])
    assert said == [["of marked work", trace_id, False], ["last", trace_id, False]]
    assert (sides.notes("production"), sides.notes("shadow")) == ([], ["last", "of marked work"])


async def cancel(dsn: str, mark: Mark) -> Any:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        with marked(mark):
            async with pool.acquire() as connection:
                said = await attempt_async(lambda: connection.execute("SELECT pg_sleep(60)", timeout=0.05))
                return [said, list(await connection.fetchrow(WHO)), connection.is_closed()]


def test_a_statement_of_marked_work_can_be_cancelled(service: Service, sides: Sides, run: TestRun) -> None:
    """Cancelling has a connection of its own, which reaches the shadow's server."""
    said, who, closed = service.call(cancel, sides.app, run.mark())
    assert (said, who, closed) == ("TimeoutError: ", SHADOW, False)


async def forget_pool(dsn: str, mark: Mark) -> None:
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    with marked(mark):
        await turn(pool, "x")
    await turn(pool, "y")
    pool.terminate()
    lost = await asyncpg.create_pool(dsn, min_size=0, max_size=1, max_inactive_connection_lifetime=0)
    with marked(mark):
        await turn(lost, "z")
    del lost
    gc.collect()
    await (await asyncpg.connect(dsn)).close()  # lets the event loop end what was ended


def test_twins_keep_nothing_alive(service: Service, sides: Sides, run: TestRun) -> None:
    """The twin of a pool that is terminated, or forgotten, ends with it."""
    service.call(forget_pool, sides.app, run.mark())
    open_sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{sides.shadow_role}'"
    wait_for(lambda: sides.query("shadow", open_sessions) == [(0,)], "the twins' sessions end")


async def spans_of_release(dsn: str) -> list[str]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        forget()
        await pool.fetchval("SELECT 1")
    return [*span_names(), *noted("claim")]


def test_returning_a_connection_is_no_write(service: Service, sides: Sides, run: TestRun) -> None:
    """What asyncpg sends when a connection comes back is a span of its own name, and no claim."""
    assert service.call(spans_of_release, sides.app) == ["SELECT", "RESET"]
