"""Spans of asyncpg's statements, and what is claimed of one whose end nobody saw."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from attached_service import Service, attempt_async, forget, marked, noted, span_names, spans
from two_sides import Sides, TestRun

ADD = "INSERT INTO item (note) VALUES ($1)"
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
OPAQUE = "opaque"


async def lose_connection(dsn: str, admin: str, at_commit: bool) -> Any:
    forget()
    connection, other = await asyncpg.connect(dsn), await asyncpg.connect(admin)
    end = f"SELECT pg_terminate_backend({connection.get_server_pid()})"
    if at_commit:
        await connection.execute("BEGIN")
        await connection.execute(ADD, "x")
        transport = connection._transport
        transport.pause_reading()  # that it is lost is heard once COMMIT is on its way
        await other.execute(end)
        ending = asyncio.ensure_future(connection.execute("COMMIT"))
        await asyncio.sleep(0)
        transport.resume_reading()
        said = await attempt_async(lambda: ending)
    else:
        waiting = asyncio.ensure_future(
            connection.execute("INSERT INTO item (note) SELECT pg_sleep(60)::text")
        )
        for _ in range(10_000):
            if await other.fetchval(ACTIVE, connection.get_server_pid()):
                break
        await other.execute(end)
        said = await attempt_async(lambda: waiting)
    await other.close()
    connection.terminate()
    return [said, [told for _, told, _, _ in noted("claim")]]


@pytest.mark.parametrize(("at_commit", "claimed"), [(True, ['[["item", "insert", 1]]']), (False, [OPAQUE])])
def test_what_was_under_way_when_a_connection_was_lost_may_have_been_done(
    at_commit: bool, claimed: list[str], service: Service, sides: Sides, run: TestRun
) -> None:
    """It is claimed: production may have the row."""
    said, told = service.call(lose_connection, sides.app, sides.url("postgres"), at_commit)
    assert "Error" in said
    assert told == claimed


async def spans_of(dsn: str, mark: dict[str, Any] | None) -> Any:
    with marked(mark):
        connection = await asyncpg.connect(dsn)
        forget()
        async with connection.transaction():
            await connection.fetchval("SELECT count(*) FROM item")
            await connection.executemany(ADD, [["a"], ["b"]])
            await connection.copy_records_to_table("item", columns=["note"], records=[("c",)])
        await attempt_async(lambda: connection.execute("SELECT * FROM nothing"))
        await connection.close()
    last = dict(spans[-1].attributes)
    return [span_names(), last, "test" if mark else None, spans[-1].status.status_code.name]


@pytest.mark.parametrize("is_marked", [True, False])
def test_every_statement_is_a_span(is_marked: bool, service: Service, sides: Sides, run: TestRun) -> None:
    """Named by what it does; with the database it was sent to, and its error."""
    names, last, synthetic, status = service.call(spans_of, sides.app, run.mark() if is_marked else None)
    assert names == [
        "BEGIN", "SELECT item", "INSERT item", "COPY item", "COMMIT", "SELECT nothing",
    ] or names == [
        "BEGIN", "SELECT item", "INSERT item", "SELECT item", "COPY item", "COMMIT", "SELECT nothing",
    ]  # fmt: skip
    assert last["db.namespace"] == (sides.shadow_database if is_marked else sides.production_database)
    assert last["db.system.name"] == "postgresql"
    assert last.get("user_agent.synthetic.type") == synthetic
    assert last["error.type"] == "UndefinedTableError"
    assert status == "ERROR"
