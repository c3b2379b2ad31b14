"""Modes ``schema`` and ``table`` in an attached service: every way of psycopg."""

from __future__ import annotations

from typing import Any

import psycopg
from attached_service import attempt, forget, is_refused, marked, noted
from tables_apart import Apart
from two_sides import TestRun

PROOF = "it cannot be proven that this stays apart"


def every_way(dsn: str, mark: dict[str, Any]) -> list[Any]:
    from psycopg import sql

    add, seen = "INSERT INTO item (note) VALUES (%s)", []
    with marked(mark), psycopg.connect(dsn) as connection:
        seen.append(connection.execute("SELECT current_user = session_user, count(*) FROM item").fetchone())
        connection.execute(add, ["execute"])
        connection.execute(add.encode(), ["bytes"])
        connection.execute(
            sql.SQL("INSERT INTO {} (note) VALUES ({})").format(
                sql.Identifier("public", "item"), sql.Literal("composed")
            )
        )
        for turn in range(3):
            connection.execute(
                "INSERT INTO item (note) VALUES (%(note)s)", {"note": f"prepared {turn}"}, prepare=True
            )
        cursor = connection.cursor()
        cursor.executemany(add, [["many 1"], ["many 2"]])
        cursor.executemany(f"{add} RETURNING note", [["more 1"]], returning=True)
        with cursor.copy("COPY item (note) FROM STDIN") as copy:
            copy.write_row(["copied"])
        with cursor.copy("COPY (SELECT note FROM item WHERE note = %s) TO STDOUT", ["copied"]) as copy:
            seen.append([row[0] for row in copy.rows()])
        seen.append(
            sorted(note for (note,) in cursor.stream("SELECT note FROM item WHERE note LIKE %s", ["many%"]))
        )
        with connection.cursor("named") as named:
            named.execute("SELECT note FROM item WHERE note = %s", ["bytes"])
            seen.append(named.fetchall())
        client = psycopg.ClientCursor(connection)
        client.execute(add, ["client; it's"])
        client.executemany(add, [["client 1"], ["client 2"]])
        psycopg.RawCursor(connection).execute("INSERT INTO item (note) VALUES ($1)", ["raw"])
        with connection.transaction(), connection.transaction():
            connection.execute(add, ["nested"])
        with connection.pipeline():
            connection.execute(add, ["pipeline"])
    return [list(map(list, row)) if row and isinstance(row[0], tuple) else list(row) for row in seen]


async def every_way_async(dsn: str, mark: dict[str, Any]) -> list[Any]:
    seen = []
    with marked(mark):
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            for turn in range(7):
                await connection.execute("INSERT INTO item (note) VALUES (%s)", [f"async {turn}"])
            async with connection.cursor() as cursor, cursor.copy("COPY item (note) FROM STDIN") as copy:
                await copy.write_row(["async copied"])
            async with connection.cursor("named") as named:
                await named.execute("SELECT note FROM item WHERE note LIKE 'async %'")
                seen = [note async for (note,) in named]
    return sorted(seen)


def test_every_way_of_psycopg_reaches_shadow_tables(apart: Apart, run: TestRun) -> None:
    """Execute, executemany, copy, stream, server and client cursors, prepared, composed, bytes, pipelines."""
    # Given
    before = apart.production()
    # When
    seen = apart.service.call(every_way, apart.url, run.mark())
    seen_async = apart.service.call(every_way_async, apart.url, run.mark())
    # Then
    assert seen == [[True, 0], ["copied"], ["many 1", "many 2"], [["bytes"]]]
    assert seen_async == sorted([*(f"async {turn}" for turn in range(7)), "async copied"])
    assert apart.notes() == sorted(
        [
            "execute",
            "bytes",
            "composed",
            "prepared 0",
            "prepared 1",
            "prepared 2",
            "many 1",
            "many 2",
            "more 1",
            "copied",
            "client; it's",
            "client 1",
            "client 2",
            "raw",
            "nested",
            "pipeline",
            *seen_async,
        ]
    )
    assert apart.production() == before


REFUSED = (
    "SELECT add_item('x')",
    "SELECT public.add_item('x')",
    "CALL put_item('x')",
    "DO $$ BEGIN END $$",
    "NOTIFY news",
    "SELECT pg_advisory_lock(7)",
    "SELECT lo_create(0)",
    "SET search_path = public",
    "CREATE TABLE made (id int)",
    "SELECT nextval(%(x)s)",
    "COPY item TO PROGRAM 'cat'",
    "SET ROLE postgres",
    "LISTEN news",
)


def try_all(dsn: str, mark: dict[str, Any], texts: list[str]) -> list[Any]:
    said = []
    forget()
    with marked(mark), psycopg.connect(dsn) as connection:
        for text in texts:
            said.append(attempt(lambda text=text: connection.execute(text)))  # type: ignore[misc]  # a default
            connection.rollback()
        for call in (
            lambda: connection.tpc_begin("x"),
            lambda: connection.cursor("n").execute("SELECT add_item('x')"),
        ):
            said.append(attempt(call))
            connection.rollback()
        connection.execute("INSERT INTO item (note) VALUES ('after')")
    return [said, len(noted("refuse"))]


def test_what_cannot_be_proven_is_refused_and_nothing_sent(apart: Apart, run: TestRun) -> None:
    """Each refusal is counted; the connection goes on."""
    before = apart.production()
    said, counted = apart.service.call(try_all, apart.url, run.mark(), list(REFUSED))
    assert [text for text in said if not is_refused(text, PROOF)] == []
    assert counted == len(said)
    assert (apart.notes(), apart.production()) == (["after"], before)


def ordinary(dsn: str) -> Any:
    with psycopg.connect(dsn) as connection:
        return attempt(lambda: list(connection.execute("SELECT add_item('by a real user')").fetchone() or ()))


def test_ordinary_work_is_sent_as_it_is(apart: Apart, run: TestRun) -> None:
    """Functions and all; only marked work is rewritten."""
    assert apart.service.call(ordinary, apart.url) == [2]
    assert apart.notes(shadow=False) == ["by a real user", "real"]
    assert apart.notes() == []
