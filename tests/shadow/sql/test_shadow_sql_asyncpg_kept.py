"""asyncpg: ordinary work takes over a connection that marked work opened, where it can be awaited."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import asyncpg
import pytest
from attached_service import Service, attempt_async, forget, is_refused, marked, noted
from two_sides import Sides, TestRun

from perflab.cli.attach import attached_environment
from perflab.shadow import scope
from perflab.shadow.sql.takeover import TAKEN_OVER

Mark = dict[str, Any] | None
ADD = "INSERT INTO item (note) VALUES ($1)"
LOST = "ConnectionDoesNotExistError: perflab: this connection belonged to a load test; it was closed"
FROM_BEFORE = "this connection was opened for production"


async def executed(connection: Any) -> Any:
    return await connection.execute(ADD, "user")


async def executed_plain(connection: Any) -> Any:
    return await connection.execute("INSERT INTO item (note) VALUES ('user')")


async def fetched(connection: Any) -> Any:
    return await connection.fetchval(f"{ADD} RETURNING note", "user")


async def many(connection: Any) -> Any:
    return await connection.executemany(ADD, [["user"]])


async def in_a_block(connection: Any) -> Any:
    async with connection.transaction():
        await connection.execute(ADD, "user")


async def copied(connection: Any) -> Any:
    return await connection.copy_records_to_table("item", records=[["user"]], columns=["note"])


async def prepared(connection: Any) -> Any:
    statement = await connection.prepare(ADD)
    return await statement.fetch("user")


async def by_a_cursor(connection: Any) -> Any:
    async with connection.transaction():
        return [row[0] async for row in connection.cursor(f"{ADD} RETURNING note", "user")]


WAYS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    way.__name__: way
    for way in (executed, executed_plain, fetched, many, in_a_block, copied, prepared, by_a_cursor)
}


async def take_over(way: str, dsn: str, mark: Mark, open_work: bool) -> Any:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with marked(mark):
            connection = await asyncpg.connect(dsn, statement_cache_size=5)
            await connection.execute(ADD, "marked")
            if open_work:
                await connection.transaction().start()
                await connection.execute(ADD, "open")
        forget()
        said = await attempt_async(lambda: WAYS[way](connection))
        aside, claimed = noted("step_aside"), noted("claim") != []
        for number in range(8):  # more than are kept prepared
            await connection.fetch(f"SELECT {number}::int, $1::text", "a")
        left = await connection.fetchval("SELECT count(*) FROM pg_prepared_statements")
        with marked(mark):
            after = await attempt_async(lambda: connection.execute(ADD, "later"))
        open_still = not connection.is_closed()
        await connection.close()
    return [said, aside, claimed, left <= 7, after, open_still, [str(one.message) for one in warned]]


@pytest.mark.parametrize("open_work", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_comes_first(
    service: Service, sides: Sides, run: TestRun, way: str, open_work: bool
) -> None:
    """Each way a real user's request may begin: it is done on production, once, and accounted for."""
    said, aside, claimed, tidy, after, open_still, warned = service.call(
        take_over, way, sides.app, run.mark(), open_work
    )
    assert "Error" not in str(said), said
    assert (aside, claimed, tidy, open_still, warned) == ([[TAKEN_OVER]], True, True, True, [])
    assert is_refused(after, FROM_BEFORE)
    assert (sides.notes("production"), sides.notes("shadow")) == (["user"], ["marked"])


async def change(what: str, dsn: str, mark: Mark) -> Any:
    def heard(*_: Any) -> None: ...

    with marked(mark):
        connection = await asyncpg.connect(dsn)
        statement = None
        if what == "a setting":
            await connection.execute("SET statement_timeout = 7000")
        elif what == "a listener":
            await connection.add_listener("news", heard)
        elif what == "a codec":
            await connection.set_type_codec("json", encoder=str, decoder=str, schema="pg_catalog")
        else:
            statement = await connection.prepare(ADD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # listeners that are left, says the driver
        said = await attempt_async(
            lambda: statement.fetch("user") if statement else connection.execute(ADD, "user")
        )
        await connection.close()
    return said


@pytest.mark.parametrize("what", ["a setting", "a listener", "a codec", "a prepared statement"])
def test_what_would_not_be_the_same_is_lost(service: Service, sides: Sides, run: TestRun, what: str) -> None:
    """What the session or its reading of types was changed by, and statements somebody keeps."""
    assert service.call(change, what, sides.app, run.mark()) == LOST
    assert sides.notes("production") == []


seen: ContextVar[str] = ContextVar("seen", default="a context of its own")


async def be_forgotten(dsn: str, mark: Mark) -> Any:
    connection = await asyncpg.connect(dsn)
    told: list[Any] = []
    with marked(mark), warnings.catch_warnings():
        warnings.showwarning = lambda *_: told.append([seen.get(), scope.current() is None])
        warnings.simplefilter("always")
        seen.set("the interrupted context")
        del connection
        gc.collect()
        await asyncio.sleep(0)
    return told


def test_a_finalizer_runs_in_a_context_of_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Within ``ContextVar.set`` of Python 3.11 it would else free what is being copied: a crash."""
    assert service.call(be_forgotten, sides.app, run.mark()) == [["a context of its own", True]]


CRASH = """
import asyncio, contextvars, gc, sys, warnings
import asyncpg

def change(kept, size, late):
    variables = [contextvars.ContextVar(f"v{at}") for at in range(16)]
    gc.collect()
    gc.disable()
    cycle = [kept.pop()]
    cycle.append(cycle)  # only the garbage collector finds it
    for variable in variables[:size]:
        variable.set(late)
    last = variables[size]
    gc.set_threshold(10**6)
    del cycle
    gc.set_threshold(gc.get_count()[0] + late)
    gc.enable()
    last.set(late)  # one of the things allocated in here has the collector run
    gc.disable()
    gc.set_threshold(700)

async def main():
    for size in range(6, 16):
        for late in range(1, 8):
            kept = [await asyncpg.connect(sys.argv[1])]
            contextvars.Context().run(change, kept, size, late)

warnings.simplefilter("ignore")
asyncio.run(main())
print("alive")
"""


def test_garbage_found_while_a_context_is_changed_ends_no_process(sides: Sides) -> None:
    """Connections nobody closed, collected in the worst moment, with memory that is overwritten once free."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, sides.app],
        env={**attached_environment(sides.target, "crash"), "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-2000:]


async def be_early(dsn: str, mark: Mark, down: bool) -> Any:
    with marked(mark):
        connection = await asyncpg.connect(dsn)
    said = await attempt_async(lambda: connection.execute(ADD, "user"))
    connection.terminate()
    return str(said)


def test_production_that_is_down_says_so(service: Service, sides: Sides, run: TestRun) -> None:
    """A real user gets the driver's own error, as from a connect."""
    sides.query("production", "ALTER ROLE both_app NOLOGIN")
    try:
        said = service.call(be_early, sides.app, run.mark(), True)
    finally:
        sides.query("production", "ALTER ROLE both_app LOGIN")
    assert 'role "both_app" is not permitted to log in' in said


async def be_two(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = await asyncpg.connect(dsn)
    forget()
    ways = [attempt_async(lambda: connection.execute(ADD, "user")) for _ in range(2)]
    said = await asyncio.gather(*ways)
    await connection.execute(ADD, "user")
    await connection.close()
    return [sorted(str(answer).split(":")[0] for answer in said), noted("step_aside")]


def test_two_tasks_at_once(service: Service, sides: Sides, run: TestRun) -> None:
    """They open one connection that stays; that two may not use it at once is the driver's rule."""
    said, aside = service.call(be_two, sides.app, run.mark())
    assert "INSERT 0 1" in said
    assert aside == [[TAKEN_OVER]]
    assert set(sides.notes("production")) == {"user"}
    asked = "SELECT count(*)::int FROM pg_stat_activity WHERE usename IN ('both_app', 'both_role')"
    assert sides.query("production", asked) == [(0,)]


async def keep_from_a_pool(dsn: str, mark: Mark) -> Any:
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=1)
    with marked(mark):
        proxy = await pool.acquire()
        connection = proxy._con
    said = await attempt_async(lambda: connection.execute(ADD, "user"))
    with marked(mark):
        await pool.release(proxy)
        async with pool.acquire() as fresh:
            where = await fresh.fetchval("SELECT current_database()")
    await pool.close()
    return [said, where]


def test_a_twin_pools_connection_stays_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Ordinary work that was handed one loses it; the twin goes on."""
    assert service.call(keep_from_a_pool, sides.app, run.mark()) == [LOST, sides.shadow_database]
    assert sides.notes("production") == []
