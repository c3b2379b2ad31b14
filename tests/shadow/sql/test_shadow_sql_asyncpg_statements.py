"""What ordinary transactions of asyncpg claim, against production's own log; every way of marked work."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from attached_service import Service, forget, marked, noted, plain_of
from two_sides import Sides, TestRun

from perflab.shadow.audit.attribution import attribute
from perflab.shadow.audit.walcapture import WalCapture

ADD = "INSERT INTO item (note) VALUES ($1)"
Work = Callable[[asyncpg.Connection], Awaitable[Any]]


async def commit(connection: asyncpg.Connection) -> Any:
    async with connection.transaction():
        return [
            await connection.execute(ADD, "a"),
            await connection.execute("INSERT INTO item (note) VALUES ('b'), ('c')"),
            await connection.execute("UPDATE item SET note = note || '!'"),
            await connection.fetch("DELETE FROM item WHERE note = 'b!' RETURNING note"),
        ]


async def rollback(connection: asyncpg.Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(ADD, "a")
    await transaction.rollback()
    await connection.execute(ADD, "b")


async def reads(connection: asyncpg.Connection) -> Any:
    await connection.execute("UPDATE item SET note = 'none' WHERE id = -1")
    async with connection.transaction(readonly=True, isolation="serializable"):
        return await connection.fetch("SELECT count(*), lower(max(note)) FROM item WHERE id IN (1, 2)")


async def aborted(connection: asyncpg.Connection) -> Any:
    await connection.execute("BEGIN")
    await connection.execute(ADD, "a")
    with contextlib.suppress(asyncpg.DivisionByZeroError):
        await connection.fetch("SELECT 1 / 0")
    said = [await connection.execute("COMMIT")]  # which the server answers with ROLLBACK
    await connection.execute("BEGIN")
    await connection.execute(ADD, "a")
    with contextlib.suppress(asyncpg.DivisionByZeroError):
        await connection.fetch("SELECT 1 / 0")
    await connection.fetch("COMMIT")
    return said


async def commit_that_fails(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.ForeignKeyViolationError):
        async with connection.transaction():
            await connection.execute("INSERT INTO child VALUES (1)")
    await connection.execute(ADD, "after")


async def by_hand(connection: asyncpg.Connection) -> None:
    await connection.execute("BEGIN")
    await connection.execute("SAVEPOINT one")
    await connection.execute(ADD, "a")
    await connection.execute("SAVEPOINT two")
    await connection.execute(ADD, "b")
    await connection.execute("ROLLBACK TO SAVEPOINT one")
    await connection.execute(ADD, "c")
    await connection.execute("RELEASE SAVEPOINT one")
    await connection.execute("COMMIT AND CHAIN")
    await connection.execute(ADD, "d")
    await connection.execute("ROLLBACK AND CHAIN")
    await connection.execute(ADD, "e")
    await connection.execute("END")


async def savepoints(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute(ADD, "a")
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute(ADD, "b")
                raise ZeroDivisionError
        async with connection.transaction():
            await connection.execute("UPDATE item SET note = 'c'")
    with contextlib.suppress(ZeroDivisionError):
        async with connection.transaction():
            await connection.execute(ADD, "d")
            raise ZeroDivisionError


async def returning(connection: asyncpg.Connection) -> Any:
    said = [
        await connection.fetchval(f"{ADD} RETURNING note", "a"),
        dict(await connection.fetchrow(f"{ADD} RETURNING note", "b")),
        await connection.fetchrow("UPDATE item SET note = 'c' WHERE note = 'none' RETURNING note"),
    ]
    statement = await connection.prepare(f"{ADD} RETURNING note")
    said += [await statement.fetchval("d"), statement.get_statusmsg()]
    said += [[tuple(row) for row in await statement.fetch("e")], statement.get_statusmsg()]
    said += [tuple(await statement.fetchrow("f")), statement.get_statusmsg()]
    return said


async def returning_first(connection: asyncpg.Connection) -> Any:
    await connection.execute("INSERT INTO item (note) SELECT n::text FROM generate_series(1, 5) n")
    return await connection.fetchval("DELETE FROM item WHERE note IN ('1', '2', '3') RETURNING 'gone'")


async def many(connection: asyncpg.Connection) -> Any:
    said = await connection.executemany(ADD, [["a"], ["b"], ["c"]])
    rows = await connection.fetchmany(f"{ADD} RETURNING note", [["d"], ["e"]])
    return [said, [tuple(row) for row in rows]]


async def copy_in(connection: asyncpg.Connection) -> Any:
    said = [
        await connection.copy_records_to_table("item", columns=["note"], records=[("a",), ("b",)]),
        await connection.copy_to_table("item", columns=["note"], source=io.BytesIO(b"c\nd\ne\n")),
    ]
    read: list[bytes] = []

    async def take(data: bytes) -> None:
        read.append(data)

    said.append(await connection.copy_from_table("item", columns=["note"], output=take))
    said.append(await connection.copy_from_query("SELECT note FROM item WHERE note > $1", "c", output=take))
    return [*said, b"".join(read)]


async def prepared(connection: asyncpg.Connection) -> None:
    statement = await connection.prepare(ADD)
    for number in range(3):
        await statement.fetch(str(number))
    await statement.executemany([["x"]])
    await connection.reload_schema_state()
    await statement.fetch("y")


async def cursors(connection: asyncpg.Connection) -> Any:
    await connection.execute("INSERT INTO item (note) SELECT n::text FROM generate_series(1, 4) n")
    async with connection.transaction():
        read = [
            row["note"] async for row in connection.cursor("SELECT note FROM item ORDER BY 1", prefetch=2)
        ]
        cursor = await connection.cursor("SELECT note FROM item ORDER BY 1")
        return [read, await cursor.forward(2), (await cursor.fetchrow())["note"], len(await cursor.fetch(9))]


async def writing_cursor(connection: asyncpg.Connection) -> Any:
    async with connection.transaction():
        cursor = await connection.cursor(f"{ADD} RETURNING note", "a")
        return len(await cursor.fetch(5))


async def upsert(connection: asyncpg.Connection) -> None:
    for _ in range(2):
        await connection.execute("INSERT INTO stock VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET amount = 3")
    await connection.execute("INSERT INTO stock VALUES (1, 2) ON CONFLICT DO NOTHING")


async def function(connection: asyncpg.Connection) -> Any:
    await connection.execute("SELECT add_item('x')")
    return isinstance(await connection.fetchval("SELECT add_item($1)", "y"), int)


async def several(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "BEGIN; INSERT INTO item (note) VALUES ('a'); COMMIT; INSERT INTO stock VALUES (5, 5)"
    )


async def schema(connection: asyncpg.Connection) -> Any:
    await connection.execute(
        "CREATE TABLE made (id int, j jsonb, t text[]); CREATE TYPE pair AS (a int, b text)"
    )
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.execute("INSERT INTO made VALUES ($1, $2, $3)", 1, {"a": [1]}, ["x"])
    said = [dict(await connection.fetchrow("SELECT j, t FROM made"))]
    said.append(tuple(await connection.fetchval("SELECT (1, 'b')::pair")))
    await connection.execute("ALTER TABLE made ADD COLUMN more int")
    said.append(len(await connection.fetchrow("SELECT * FROM made")))
    await connection.execute("DO $$ BEGIN INSERT INTO item (note) VALUES ('done'); END $$")
    await connection.execute(
        "CREATE PROCEDURE put() LANGUAGE sql AS 'INSERT INTO item (note) VALUES (''called'')'"
    )
    await connection.execute("CALL put()")
    await connection.execute("DROP PROCEDURE put; DROP TABLE made; DROP TYPE pair")
    return said


async def large_objects(connection: asyncpg.Connection) -> Any:
    async with connection.transaction():
        number = await connection.fetchval("SELECT lo_from_bytea(0, 'abc'::bytea)")
        await connection.execute("SELECT lo_put($1, 3, 'def'::bytea)", number)
        said = await connection.fetchval("SELECT lo_get($1)", number)
        await connection.execute("SELECT lo_unlink($1)", number)
        return said


async def locks(connection: asyncpg.Connection) -> Any:
    await connection.execute("SELECT pg_advisory_lock(42)")
    held = await connection.fetchval("SELECT pg_try_advisory_lock(42)")
    await connection.reset()
    return [held, await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")]


async def two_connections(connection: asyncpg.Connection) -> None:
    host, port = connection._addr
    again = await asyncpg.connect(
        host=host, port=port, database="both_shop", user="both_app", password="secret"
    )
    async with connection.transaction(), again.transaction():
        await connection.execute(ADD, "a")
        await again.execute("INSERT INTO stock VALUES (7, 7)")
    await again.close()


async def cancelled(connection: asyncpg.Connection) -> Any:
    with contextlib.suppress(asyncio.TimeoutError):
        await connection.execute("SELECT pg_sleep(60)", timeout=0.05)
    await connection.execute(ADD, "a")
    return connection.is_closed()


SCENARIOS: dict[str, Work] = {
    work.__name__: work
    for work in (
        commit, rollback, reads, aborted, commit_that_fails, by_hand, savepoints, returning, returning_first,
        many, copy_in, prepared, cursors, writing_cursor, upsert, function, several, schema, large_objects,
        locks, two_connections, cancelled,
    )
}  # fmt: skip
ONE, OPAQUE = [["item", "insert", 1]], "opaque"
EXPECTED: dict[str, list[Any]] = {
    "commit": [[["item", "delete", 1], ["item", "insert", 3], ["item", "update", 3]]],
    "rollback": [ONE],
    "reads": [],
    "aborted": [],
    "commit_that_fails": [ONE],
    "by_hand": [ONE, ONE],
    "savepoints": [[["item", "insert", 1], ["item", "update", 1]]],
    "returning": [ONE] * 5,
    "returning_first": [[["item", "insert", 5]], OPAQUE],
    "many": [OPAQUE, OPAQUE],
    "copy_in": [[["item", "insert", 2]], [["item", "insert", 3]]],
    "prepared": [ONE, ONE, ONE, OPAQUE, ONE],
    "cursors": [[["item", "insert", 4]]],
    "writing_cursor": [OPAQUE],
    "upsert": [OPAQUE, OPAQUE],
    "function": [OPAQUE, OPAQUE],
    "several": [OPAQUE, OPAQUE],
    "schema": [OPAQUE, [["made", "insert", 1]], *[OPAQUE] * 6],
    "large_objects": [OPAQUE],
    "locks": [],
    "two_connections": [[["stock", "insert", 1]], ONE],
    "cancelled": [ONE],
}


async def carry_out(name: str, dsn: str, mark: dict[str, Any] | None) -> Any:
    with marked(mark):
        connection = await asyncpg.connect(dsn)
        try:
            return plain_of(await SCENARIOS[name](connection))
        finally:
            await connection.close()


async def claims_of(name: str, dsn: str) -> list[Any]:
    forget()
    await carry_out(name, dsn, None)
    assert noted("step_aside") == []
    return noted("claim")


@pytest.mark.parametrize("name", SCENARIOS)
def test_ordinary_work_claims_what_it_commits(
    name: str, service: Service, sides: Sides, run: TestRun
) -> None:
    """Per transaction one claim with rows by table and operation; opaque where the server does not say."""
    claims = service.call(claims_of, name, sides.app)
    fingerprints = [told if told == OPAQUE else json.loads(told) for _, told, _, _ in claims]
    assert fingerprints == EXPECTED[name]
    assert {store for store, _, _, _ in claims} <= {"orders"}


def test_claims_account_for_production_s_own_log(service: Service, sides: Sides, run: TestRun) -> None:
    """Decoded from the write-ahead log: no transaction is left without a claim of its own."""
    # Given
    capture = WalCapture(sides.url(sides.production_database), lambda *_: None)
    capture.open()
    try:
        # When
        rows = []
        for name in SCENARIOS.keys() - {"schema"}:  # a table that is made later is not in the audit's list
            for store, told, begin_ns, end_ns in service.call(claims_of, name, sides.app):
                rows.append({"store": store, "fingerprint": told, "begin_ns": begin_ns, "end_ns": end_ns})
        capture.drain(20)
        changes = capture.changes()
        found = attribute(changes, capture.claims(rows), slack_ns=0)
    finally:
        capture.close()
    # Then
    assert found.unattributed == ()
    exact = [told for told in map(_fingerprint, rows) if told != OPAQUE]
    assert found.attributed == len(exact)
    assert len(exact) < len(changes) <= len(rows)


def _fingerprint(row: dict[str, Any]) -> str:
    return str(row["fingerprint"])


def test_ordinary_work_is_as_without_us(service: Service, plain: Service, sides: Sides, run: TestRun) -> None:
    """Results, statuses, types and rows are those of a process without the agent."""
    for name in SCENARIOS:
        # When
        outcomes = []
        for process in (plain, service):
            sides.empty()
            said = process.call(carry_out, name, sides.app, None)
            outcomes.append(
                [said, sides.notes("production"), sides.query("production", "SELECT * FROM stock")]
            )
        # Then
        assert outcomes[0] == outcomes[1], name


async def all_scenarios(dsn: str, mark: dict[str, Any]) -> Any:
    forget()
    for name in SCENARIOS:
        await carry_out(name, dsn, mark)
    return [
        noted("claim"),
        noted("refuse"),
        noted("step_aside"),
        sorted({tuple(s) for s in noted("session")}),
    ]


def test_every_way_of_marked_work_stays_on_the_shadow(service: Service, sides: Sides, run: TestRun) -> None:
    """The same scenarios, marked: nothing claimed, nothing refused, production not touched."""
    # When
    claims, refused, aside, sessions = service.call(all_scenarios, sides.app, run.mark())
    # Then
    assert (claims, refused, aside) == ([], [], [])
    assert sessions == [["orders", sides.shadow_role, sides.shadow_database, True]]
    assert sides.query("production", "SELECT (SELECT count(*) FROM item) + (SELECT count(*) FROM stock)") == [
        (0,)
    ]
    assert len(sides.notes("shadow")) > 10
    assert sides.query("shadow", "SELECT DISTINCT owner FROM item") == [(sides.shadow_role,)]
