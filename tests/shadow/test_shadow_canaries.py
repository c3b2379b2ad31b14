"""Marked work that lost its mark: ordinary work that sends or answers a canary of a run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import pymysql
import pytest
import redis
from attached_service import Service, attempt, forget, is_refused, noted, poll, wait_for
from maria_sides import MariaSides
from psycopg.types.json import Jsonb
from two_sides import Sides, TestRun

from perflab.shadow.canaries import find

ADD = "INSERT INTO item (note) VALUES (%s)"
LOST = "its mark was lost on the way"


def through_psycopg(dsn: str, text: str, how: str) -> None:
    with psycopg.connect(dsn) as connection:
        if how == "execute":
            connection.execute(ADD, [text])
        elif how == "binary":
            connection.execute("INSERT INTO item (note) VALUES (%b)", [text])
        elif how == "prepared":
            for note in ("x", text):
                connection.execute(ADD, [note], prepare=True)
        elif how == "many":
            connection.cursor().executemany(ADD, [("x",), (text,)])
        elif how == "pipeline":
            with connection.pipeline():
                connection.execute(ADD, [text])
        elif how == "json":
            connection.execute("INSERT INTO item (note) VALUES (%s::jsonb ->> 'a')", [Jsonb({"a": text})])
        elif how == "client":
            psycopg.ClientCursor(connection).execute(ADD, [text])
        else:
            connection.execute(f"INSERT INTO item (note) VALUES ('{text}')".encode())


def through_psycopg2(dsn: str, text: str, how: str) -> None:
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        if how == "execute":
            cursor.execute(ADD, [text])
        elif how == "many":
            cursor.executemany(ADD, [("x",), (text,)])
        elif how == "values":
            psycopg2.extras.execute_values(cursor, "INSERT INTO item (note) VALUES %s", [("x",), (text,)])
        else:
            json = psycopg2.extras.Json({"a": text})
            cursor.execute("INSERT INTO item (note) VALUES (%s::json ->> 'a')", {"j": json}.values())
    connection.close()


def through_asyncpg(dsn: str, text: str, how: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            if how == "execute":
                await connection.execute("INSERT INTO item (note) VALUES ($1)", text)
            elif how == "many":
                await connection.executemany("INSERT INTO item (note) VALUES ($1)", [("x",), (text,)])
            elif how == "fetch":
                await connection.fetchval("INSERT INTO item (note) VALUES ($1) RETURNING id", text)
            else:
                await connection.execute(f"INSERT INTO item (note) VALUES ('{text}')")
        finally:
            await connection.close()

    asyncio.run_coroutine_threadsafe(work(), _loop()).result(60)


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def through_pymysql(login: dict[str, Any], text: str, how: str) -> None:
    connection = pymysql.connect(**login)
    try:
        if how == "many":
            connection.cursor().executemany(ADD, [("x",), (text,)])
        else:
            connection.cursor().execute(ADD, [text])
        connection.commit()
    finally:
        connection.close()


def through_redis(url: str, text: str, how: str) -> None:
    with redis.Redis.from_url(url) as client:
        if how == "pipeline":
            client.pipeline().set("a", "1").set("b", text).execute()
        else:
            client.set("item", text)


WAYS: dict[Callable[..., None], list[str]] = {
    through_psycopg: ["execute", "binary", "prepared", "many", "pipeline", "json", "client", "text"],
    through_psycopg2: ["execute", "many", "values"],
    through_asyncpg: ["execute", "many", "fetch", "text"],
    through_redis: ["execute", "pipeline"],
}


def hand_over(way: str, where: Any, text: str, how: str) -> list[Any]:
    """Hand a text to a thread of the service through a list, as marked work would; it writes it."""
    box: list[str] = []
    said: list[Any] = []
    begun = threading.Event()

    def work() -> None:
        begun.wait()
        said.append(attempt(lambda: globals()[way](where, box.pop(), how)))

    poll()
    forget()
    threading.Thread(target=work, daemon=True).start()
    box.append(text)
    begun.set()
    wait_for(lambda: said, "the thread")
    return [said[0], noted("refuse"), noted("claim")]


@pytest.mark.parametrize(
    ("way", "how"),
    [(way, how) for way, hows in WAYS.items() for how in hows],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_ordinary_work_sends_is_searched(
    service: Service, sides: Sides, run: TestRun, way: Callable[..., None], how: str
):
    """A canary is refused before it is sent, and the run ends; any other text is written and claimed."""
    # Given marked work that handed its payload to a thread of the service
    where = sides.cache if way is through_redis else sides.app
    canary = run.canary()
    # When the thread, which has no mark, writes it
    said, refusals, claims = service.call(hand_over, way.__name__, where, canary, how)
    # Then nothing has come to production, and the run's end is asked for
    assert is_refused(said, LOST)
    assert [(store, trace_id) for store, _, trace_id in refusals] == [("the mark", int(canary[-32:], 16))]
    assert claims == []
    assert sides.notes("production") == []
    assert sides.keys() == set()
    # And what is no run's canary goes its way
    said, refusals, claims = service.call(hand_over, way.__name__, where, canary[4:], how)
    assert (said, refusals) == (None, [])
    assert claims
    assert canary[4:] in sides.notes("production") or way is through_redis


@pytest.mark.parametrize("how", ["execute", "many"])
def test_what_ordinary_work_sends_to_mariadb_is_searched(
    maria_service: Service, maria: MariaSides, maria_run: TestRun, how: str
):
    """As on PostgreSQL."""
    said, refusals, _ = maria_service.call(hand_over, "through_pymysql", maria.login, maria_run.canary(), how)
    assert is_refused(said, LOST)
    assert len(refusals) == 1
    assert maria.notes("production") == []


def through_sqlite(path: str, text: str, how: str) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS item (note text)")
        connection.execute("INSERT INTO item VALUES (?)", [text])
    connection.close()


def test_what_ordinary_work_writes_to_a_file_is_searched(service: Service, run: TestRun, tmp_path: Path):
    """SQLite, where there is no log of changes that the audit could read."""
    said, refusals, _ = service.call(
        hand_over, "through_sqlite", str(tmp_path / "a.db"), run.canary(), "execute"
    )
    assert is_refused(said, LOST)
    assert len(refusals) == 1


def over_the_run(dsn: str, text: str) -> Any:
    poll()
    return attempt(lambda: through_psycopg(dsn, text, "execute"))


def test_a_run_that_is_just_over_is_searched_for(service: Service, sides: Sides, run: TestRun):
    """What lies in a buffer when a run ends is refused, too."""
    canary = run.canary()
    service.call(over_the_run, sides.app, "x")
    run.remove()
    assert is_refused(service.call(over_the_run, sides.app, canary), LOST)
    assert sides.notes("production") == ["x"]


def answers(memory: str, mark: Any) -> list[Any]:
    """Serve from a memory that all requests share: a real user, and a marked request."""
    import flask

    app = flask.Flask("memory")
    app.add_url_rule("/whole", view_func=lambda: memory)
    app.add_url_rule("/pieces", endpoint="pieces", view_func=lambda: iter(["a piece ", memory]))
    poll()
    said = []
    for path in ("/whole", "/pieces"):
        forget()
        said.append(app.test_client().get(path).text.removeprefix("a piece ") == memory)
        said.append([why for _, why, _ in noted("refuse")])
    return said


def answers_async(memory: str, mark: Any) -> list[Any]:
    """As `answers`, under ASGI."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def whole(request: Any) -> Any:
        return PlainTextResponse(memory)

    async def pieces(request: Any) -> Any:
        return StreamingResponse(iter(["a piece ", memory]))

    client = TestClient(Starlette(routes=[Route("/whole", whole), Route("/pieces", pieces)]))
    poll()
    said = []
    for path in ("/whole", "/pieces"):
        forget()
        said.append(client.get(path).text.removeprefix("a piece ") == memory)
        said.append([why for _, why, _ in noted("refuse")])
    return said


@pytest.mark.parametrize("serving", [answers, answers_async])
def test_what_real_users_are_answered_is_searched(
    service: Service, run: TestRun, serving: Callable[..., list[Any]]
):
    """Shadow data that a service remembered (in its memory) ends the run; answers stay as they are."""
    said = service.call(serving, run.canary(), run.mark())
    assert said[0] is said[2] is True
    assert len(said[1]) == len(said[3]) == 1
    assert "an answer to a real user" in said[1][0]
    assert service.call(serving, "no canary", run.mark()) == [True, [], True, []]


def test_payloads_are_searched_within_bounds():
    """Texts in mappings and sequences are found, iterators are not used up, and a cut canary is one."""
    known = ["plc-a-", "plc-run2-"]
    assert find({"x": [1, None, ("plc-run2-" + "ab" * 16,)]}, known) == "ab" * 16
    assert find({"plc-a-" + "0" * 32: 1}, known) == "0" * 32
    assert find(memoryview(b"..plc-a-12"), known) == ""
    assert find(bytearray(b"plc-b-" + b"0" * 32), known) is None
    used = iter(["plc-a-"])
    assert find([used, 7, object()], known) is None
    assert next(used) == "plc-a-"
