"""psycopg 3: what an object keeps, and what it gets anew, when ordinary work takes its connection over."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg.rows
import psycopg.types
import psycopg_pool
import pytest
from attached_service import Service, attempt, attempt_async, forget, is_refused, kept, marked, noted
from two_sides import Sides, TestRun

from perflab.shadow.sql.takeover import TAKEN_OVER

Mark = dict[str, Any] | None
ADD = "INSERT INTO item (note) VALUES (%s)"
LOST = "OperationalError: perflab: this connection belonged to a load test; it was closed"
FROM_BEFORE = "this connection was opened for production"


def in_a_block(connection: Any) -> Any:
    with connection.transaction():
        return connection.execute(ADD, ["user"]).rowcount


def in_a_pipeline(connection: Any) -> Any:
    with connection.pipeline():
        connection.execute(ADD, ["user"])
    connection.commit()
    return 1


def many(connection: Any) -> Any:
    cursor = connection.cursor()
    cursor.executemany(ADD, [["user"]])
    connection.commit()
    return cursor.rowcount


def copied(connection: Any) -> Any:
    cursor = connection.cursor()
    with cursor.copy("COPY item (note) FROM STDIN") as copy:
        copy.write_row(["user"])
    connection.commit()
    return cursor.rowcount


def streamed(connection: Any) -> Any:
    answer = list(connection.cursor().stream(f"{ADD} RETURNING 1", ["user"]))
    connection.commit()
    return answer[0][0]


def by_a_cursor_from_before(connection: Any) -> Any:
    for _ in range(7):  # often enough to be prepared
        connection.execute("SELECT 1")
    connection.rollback()
    kept["cursor"].execute(ADD, ["user"])
    kept["cursor"].connection.commit()
    return kept["cursor"].rowcount


def by_a_named_cursor(connection: Any) -> Any:
    with connection.cursor("named") as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    connection.rollback()
    return in_a_block(connection)


def with_a_setting(connection: Any) -> Any:
    connection.autocommit = True
    return connection.execute(ADD, ["user"]).rowcount


def with_itself(connection: Any) -> Any:
    with connection:
        return connection.execute(ADD, ["user"]).rowcount


WAYS: dict[str, Callable[[Any], Any]] = {
    way.__name__: way
    for way in (
        in_a_block, in_a_pipeline, many, copied, streamed, by_a_cursor_from_before, by_a_named_cursor,
        with_a_setting, with_itself,
    )
}  # fmt: skip


def take_over(way: str, dsn: str, mark: Mark, *, open_work: bool) -> Any:
    with marked(mark):
        connection = psycopg.connect(dsn)
        kept["cursor"] = connection.cursor()
        connection.execute(ADD, ["marked"])
        connection.commit()
        if open_work:
            connection.execute(ADD, ["open"])
    forget()
    said = attempt(lambda: WAYS[way](connection))
    aside = noted("step_aside")
    with marked(mark):
        after = attempt(lambda: connection.execute(ADD, ["later"])) if not connection.closed else ""
    connection.close()
    return [said, aside, noted("claim") != [], after]


@pytest.mark.parametrize("open_work", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_comes_first(
    service: Service, sides: Sides, run: TestRun, way: str, open_work: bool
) -> None:
    """Each way a real user's request may begin: it is done on production, once, and accounted for."""
    said, aside, claimed, after = service.call(_call, way, sides.app, run.mark(), open_work)
    assert said == 1, said
    assert (aside, claimed) == ([[TAKEN_OVER]], True)
    assert not after or is_refused(after, FROM_BEFORE)
    assert (sides.notes("production"), sides.notes("shadow")) == (["user"], ["marked"])


def _call(way: str, dsn: str, mark: Mark, open_work: bool) -> Any:
    return take_over(way, dsn, mark, open_work=open_work)


def keep_settings(dsn: str, mark: Mark) -> Any:
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with marked(mark):
            connection = psycopg.connect(dsn, application_name="the service", autocommit=True)
            connection.row_factory = psycopg.rows.dict_row
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            connection.prepare_threshold, connection.prepared_max = 2, 7
            connection.adapters.register_dumper(float, psycopg.adapt.Dumper)
            connection.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
            connection.execute("SELECT 1")
            before = connection.info.backend_pid
        row = connection.execute(
            "SELECT current_setting('application_name') AS name, session_user AS who"
        ).fetchone()
        connection.execute("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")
        settings = [connection.autocommit, int(connection.isolation_level), connection.prepare_threshold,
                    connection.prepared_max, connection.closed, connection.broken]  # fmt: skip
        another = connection.info.backend_pid != before
        connection.close()
    return [row, settings, heard, another, connection.closed, [str(one.message) for one in warned]]


def test_an_object_keeps_its_settings(service: Service, sides: Sides, run: TestRun) -> None:
    """Factories, levels, handlers and limits stay; nothing is warned of."""
    row, settings, heard, another, closed, warned = service.call(keep_settings, sides.app, run.mark())
    assert row == {"name": "the service", "who": "both_app"}
    assert settings == [True, 4, 2, 7, False, False]
    assert (heard, another, closed, warned) == (["heard"], True, True, [])


def learn_a_type(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg.connect(dsn, autocommit=True)
        connection.execute("CREATE TYPE mood AS ENUM ('fair', 'foul')")
        found = psycopg.types.TypeInfo.fetch(connection, "mood")
        assert found is not None
        found.register(connection)
    said = attempt(lambda: connection.execute("SELECT 1"))
    connection.close()
    return said


def test_a_type_learned_from_the_shadow_is_not_carried_over(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Its number is another in production: the connection is lost."""
    try:
        assert service.call(learn_a_type, sides.app, run.mark()) == LOST
    finally:
        sides.query("shadow", "DROP TYPE IF EXISTS mood")


def open_a_pipeline(dsn: str, mark: Mark) -> Any:
    with marked(mark):
        connection = psycopg.connect(dsn)
        pipeline = connection.pipeline()
        pipeline.__enter__()
    said = attempt(lambda: connection.execute("SELECT 1"))
    return [said, connection.closed]


def test_an_open_pipeline_is_lost(service: Service, sides: Sides, run: TestRun) -> None:
    """Its answers are not in, and belong to nobody else."""
    assert service.call(open_a_pipeline, sides.app, run.mark()) == [LOST, True]


def close_before(dsn: str, mark: Mark, how: str) -> Any:
    with marked(mark):
        connection = psycopg.connect(dsn, autocommit=True)
        if how == "closed":
            connection.close()
        else:
            attempt(lambda: connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"))
    broken = connection.broken
    said = attempt(lambda: connection.execute(ADD, ["user"]).rowcount)
    connection.close()
    return [broken, said]


def test_a_shadow_that_broke_does_no_harm(service: Service, sides: Sides, run: TestRun) -> None:
    """What its service closed stays closed; what the shadow's server ended goes on in production."""
    assert service.call(close_before, sides.app, run.mark(), "closed") == [
        False, "OperationalError: the connection is closed"
    ]  # fmt: skip
    assert service.call(close_before, sides.app, run.mark(), "broken") == [True, 1]
    assert sides.notes("production") == ["user"]


async def take_over_async(dsn: str, mark: Mark, text: str) -> Any:
    with marked(mark):
        connection = await psycopg.AsyncConnection.connect(dsn)
        cursor = connection.cursor()
        await connection.execute(ADD, ["marked"])
        await connection.commit()
        await connection.execute(ADD, ["open"])
        if text:
            await connection.execute(text)
    forget()

    async def block() -> Any:
        async with connection.transaction():
            return (await connection.execute(ADD, ["user"])).rowcount

    async def again() -> Any:
        await cursor.execute(ADD, ["user too"])
        await connection.commit()
        return cursor.rowcount

    said = [await attempt_async(block), await attempt_async(again)]
    aside = noted("step_aside")
    with marked(mark):
        after = await attempt_async(lambda: connection.execute(ADD, ["later"]))
    await connection.close()
    return [said, aside, len(noted("claim")), after]


def test_an_asynchronous_connection(service: Service, sides: Sides, run: TestRun) -> None:
    """It is taken over as well: opening is awaited where a statement is."""
    said, aside, claims, after = service.call(take_over_async, sides.app, run.mark(), "")
    assert (said, aside, claims) == ([1, 1], [[TAKEN_OVER]], 2)
    assert is_refused(after, FROM_BEFORE)
    assert (sides.notes("production"), sides.notes("shadow")) == (["user", "user too"], ["marked"])


def test_an_asynchronous_connection_that_was_changed(service: Service, sides: Sides, run: TestRun) -> None:
    """It is lost."""
    said, *_ = service.call(take_over_async, sides.app, run.mark(), "SET statement_timeout = 7000")
    assert said == [LOST, "OperationalError: the connection is closed"]
    assert sides.notes("production") == []


def keep_from_a_pool(dsn: str, mark: Mark) -> Any:
    with psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1, kwargs={"autocommit": True}) as pool:
        with marked(mark):
            kept["connection"] = connection = pool.getconn()
        said = attempt(lambda: connection.execute(ADD, ["user"]))
        with marked(mark):
            pool.putconn(connection)
            with pool.connection() as fresh:
                where = fresh.execute("SELECT current_database()").fetchone()
    kept.clear()
    return [said, list(where or [])]


def test_a_twin_pools_connection_stays_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """Ordinary work that was handed one loses it; the twin goes on."""
    said, where = service.call(keep_from_a_pool, sides.app, run.mark())
    assert said == LOST
    assert where == [sides.shadow_database]
    assert sides.notes("production") == []
