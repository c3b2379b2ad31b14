"""Statements of ordinary work: their results are the driver's own, their spans say where they went."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from attached_service import Service, attempt, forget, marked, noted, span_names, spans
from psycopg import sql
from two_sides import Sides, TestRun

INSERT = "INSERT INTO item (note) VALUES (%s)"


def results(dsn: str) -> list[Any]:
    """Everything a service may do with psycopg, and all it sees of it."""
    seen: list[Any] = []
    connection = psycopg.connect(dsn)
    ways: list[Callable[[], Any]] = [
        lambda: connection.execute("SELECT 1, 'x'").fetchall(),
        lambda: connection.execute("INSERT INTO item (note) VALUES ('a') RETURNING note").fetchone(),
        lambda: connection.execute(query="SELECT %(a)s::int", params={"a": 7}).fetchone(),  # type: ignore[call-overload]
        lambda: connection.execute("SELECT 1 / 0"),
        lambda: connection.execute("SELECT 1"),
        connection.rollback,
        lambda: connection.execute("no such statement"),
        connection.rollback,
        lambda: connection.execute("SELECT %s"),
        lambda: connection.execute(None),  # type: ignore[call-overload]
        lambda: connection.execute(),  # type: ignore[call-overload]
        lambda: connection.cursor().executemany("SELECT %s", [[1, 2]]),
        connection.rollback,
        lambda: list(connection.cursor().stream("SELECT generate_series(1, 3)")),
        lambda: connection.cursor().copy("SELECT 1").__enter__(),
        connection.rollback,
        lambda: connection.cursor().executemany("INSERT INTO item (note) VALUES (%s)", [["b"], ["c"]]),
        lambda: connection.execute("UPDATE item SET note = 'd'").rowcount,
        lambda: connection.execute("UPDATE item SET note = 'd'").statusmessage,
        connection.commit,
        lambda: connection.tpc_begin("x"),
        connection.tpc_rollback,
        lambda: next(iter(connection.notifies(timeout=0.01)), "none"),
        connection.cancel,
        lambda: [name for (name,) in connection.execute("SELECT note FROM item ORDER BY 1")],
        connection.close,
        lambda: connection.execute("SELECT 1"),
        connection.commit,
        connection.rollback,
        lambda: list(connection.cursor().stream("SELECT 1")),
        lambda: psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2"),
        lambda: psycopg.connect("nonsense"),
    ]
    for way in ways:
        found = attempt(way)
        seen.append(found if isinstance(found, (str, int, list, tuple)) else type(found).__name__)
    return seen


async def results_async(dsn: str) -> list[Any]:
    seen: list[Any] = []
    connection = await psycopg.AsyncConnection.connect(dsn)
    seen.append(await (await connection.execute("SELECT 1, 'x'")).fetchall())
    async with connection.transaction():
        await connection.execute("INSERT INTO item (note) VALUES ('async')")
    cursor = connection.cursor()
    seen.append([row async for row in cursor.stream("SELECT generate_series(1, 3)")])
    async with cursor.copy("COPY item (note) FROM STDIN") as copy:
        await copy.write_row(["copied"])
    seen.append(cursor.rowcount)
    async with connection.cursor("named") as reading:
        await reading.execute("SELECT note FROM item ORDER BY 1")
        seen.append([row async for row in reading])
    await connection.rollback()
    async with connection.pipeline():
        await connection.execute("SELECT 1")
    try:
        await connection.execute("SELECT 1 / 0")
    except psycopg.Error as error:
        seen.append(str(error))
    await connection.close()
    try:
        await connection.commit()
    except psycopg.Error as error:
        seen.append(str(error))
    return seen


def test_ordinary_work_sees_the_same_with_and_without_the_agent(
    service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """Results, errors and their texts of every way of psycopg are its own."""
    for function_of in (results, results_async):
        sides.empty()
        without = plain.call(function_of, sides.app)
        sides.empty()
        with_it = service.call(function_of, sides.app)
        assert with_it == without
        assert len(without) > 5


class Stubborn(sql.SQL):
    """A query that psycopg can send and that the agent cannot read."""

    def as_string(self, context: Any = None) -> str:
        raise RuntimeError("not for you")


def send_stubborn(dsn: str) -> list[Any]:
    forget()
    with psycopg.connect(dsn) as connection:
        connection.execute(Stubborn("INSERT INTO item (note) VALUES ('stubborn')"))
    return [noted("step_aside"), span_names()]


def test_a_hook_that_fails_on_ordinary_work_steps_aside(service: Service, sides: Sides, run: TestRun) -> None:
    """The statement is sent, the failure is counted."""
    aside, names = service.call(send_stubborn, sides.app)
    assert aside == [["sql: execute: RuntimeError"]]
    assert names == ["COMMIT"]
    assert sides.notes("production") == ["stubborn"]


def spans_of(dsn: str, mark: dict[str, Any] | None) -> list[Any]:
    forget()
    with marked(mark), psycopg.connect(dsn) as connection:
        with connection.transaction():
            connection.execute("SELECT amount FROM stock WHERE id = %s", [1])
            with connection.transaction():
                connection.execute(INSERT, ["x"])
        with connection.cursor().copy("COPY item TO STDOUT") as copy:
            list(copy)
        with contextlib.suppress(psycopg.Error):
            connection.execute("UPDATE nowhere SET a = 1")
        connection.rollback()
        connection.execute("BEGIN")
        connection.commit()
    return [
        [
            span.name,
            span.attributes.get("db.namespace"),
            span.attributes.get("user_agent.synthetic.type"),
            span.attributes.get("error.type"),
        ]
        for span in spans
    ]


@pytest.mark.parametrize("side", ["production", "shadow"])
def test_every_statement_has_a_span(side: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Named after operation and table, with the database it really went to, and the mark."""
    # When
    is_marked = side == "shadow"
    told = service.call(spans_of, sides.app, run.mark() if is_marked else None)
    # Then
    database = sides.shadow_database if is_marked else sides.production_database
    synthetic = "test" if is_marked else None
    assert told == [
        ["SELECT stock", database, synthetic, None],
        ["INSERT item", database, synthetic, None],
        ["SAVEPOINT", database, synthetic, None],
        ["COMMIT", database, synthetic, None],
        ["COPY item", database, synthetic, None],
        ["UPDATE nowhere", database, synthetic, "UndefinedTable"],
        ["ROLLBACK", database, synthetic, None],
        ["BEGIN", database, synthetic, None],
        ["COMMIT", database, synthetic, None],
    ]
    assert (sides.notes("production"), sides.notes("shadow")) == (([], ["x"]) if is_marked else (["x"], []))
