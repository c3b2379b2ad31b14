"""Random work on a database, played inside an attached process: many scripts at once, over shared pools.

A script is a piece of one request's work: marked or ordinary, on a thread, a task or in place, through one
way to the database, a list of statements of the kinds below, and an end. Nothing here knows of shadows; the
mark is only entered around a script, as it is around a request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from attached_service import forget, kept, marked

Script = Mapping[str, Any]
"""``mark`` (or None), ``via``, ``where``, ``kinds``, ``ending``, ``savepoints``, ``number``, ``times``."""

WAIT_MS = 60
"""No statement waits longer for a lock: scripts meet in deadlocks, as requests do."""
PATIENCE_S = 3.0
"""How long a script waits for a connection; where the shadow is down, that long is waited in full."""


class Broken(Exception):  # noqa: N818 - the end of a script, not of the test
    """The script's transaction cannot go on."""


def play(scripts: Sequence[Script], url: str, shadow_word: str) -> dict[str, Any]:
    """Play scripts side by side and tell what became of them.

    Returns
    -------
    dict
        ``done``: statements that went well, per side and kind; ``errors``: those that did not, per side and
        type; ``own``: the transaction ids of ordinary work that the server gave; ``mixed``: answers that
        show another side than the script's.
    """
    told = Told(shadow_word)
    play_side_by_side(
        scripts, lambda script: _play_sync(script, url, told), lambda tasks: _loop(tasks, url, told)
    )
    return told.as_dict()


def play_side_by_side(
    scripts: Sequence[Script],
    play_one: Callable[[Script], None],
    play_tasks: Callable[[Sequence[Script]], None],
) -> None:
    """Play scripts at once, each where it says, and come back when all have ended.

    Parameters
    ----------
    scripts : sequence of Script
        What to play.
    play_one : callable
        Plays one of a thread, or in place.
    play_tasks : callable
        Plays those of an event loop, on a thread that has none.
    """
    threads = [script for script in scripts if script["where"] == "thread"]
    tasks = [script for script in scripts if script["where"] == "task"]
    in_place = [script for script in scripts if script["where"] == "here"]
    executor: ThreadPoolExecutor = kept.setdefault("executor", ThreadPoolExecutor(6))
    futures = []
    for script in threads:
        with marked(script["mark"]):
            futures.append(executor.submit(play_one, script))
    looping = threading.Thread(target=play_tasks, args=(tasks,)) if tasks else None
    if looping is not None:
        looping.start()
    for script in in_place:
        with marked(script["mark"]):
            play_one(script)
    for future in futures:
        future.result()
    if looping is not None:
        looping.join()
    forget()  # what was noted for others: a million spans would fill the memory


class Told:
    """What became of scripts; added to from many threads."""

    def __init__(self, shadow_word: str) -> None:
        self._lock = threading.Lock()
        self._shadow_word = shadow_word
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.own: list[str] = []
        self.mixed: list[str] = []

    def went_well(self, script: Script, kind: str) -> None:
        with self._lock:
            self.done[f"{side_of(script)} {kind}"] += 1

    def failed(self, script: Script, kind: str, error: BaseException) -> None:
        with self._lock:
            self.errors[f"{side_of(script)} {kind} {type(error).__name__}: {str(error)[:110]}"] += 1

    def reached(self, script: Script, database: str, via: str) -> None:
        """Note where a script found itself: the shadow's name has a word in it that production's has not."""
        if (self._shadow_word in database) != (script["mark"] is not None):
            with self._lock:
                self.mixed.append(f"{side_of(script)} work through {via} found itself in {database}")

    def owns(self, transaction: str | None) -> None:
        if transaction:
            with self._lock:
                self.own.append(str(transaction))

    def as_dict(self) -> dict[str, Any]:
        return {
            "done": dict(self.done), "errors": dict(self.errors), "own": self.own, "mixed": self.mixed,
        }  # fmt: skip


def side_of(script: Script) -> str:
    """Say whose a script is."""
    return "marked" if script["mark"] is not None else "ordinary"


# ---- ways to the database -------------------------------------------------------------------------------


def _psycopg_pool(url: str) -> Any:
    from psycopg_pool import ConnectionPool

    return kept.setdefault(
        "psycopg-pool", ConnectionPool(url, min_size=1, max_size=5, timeout=PATIENCE_S, open=True)
    )


def _with_psycopg_pool(url: str, work: Callable[[Any], None]) -> None:
    with _psycopg_pool(url).connection() as connection:
        work(connection)


def _with_psycopg(url: str, work: Callable[[Any], None]) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        work(connection)


def _with_psycopg2_pool(url: str, work: Callable[[Any], None]) -> None:
    from psycopg2.pool import ThreadedConnectionPool

    with kept.setdefault("lock", threading.Lock()):
        pool = kept.get("psycopg2-pool") or kept.setdefault(
            "psycopg2-pool", ThreadedConnectionPool(1, 12, url)
        )
    connection = pool.getconn()
    try:
        work(connection)
    finally:
        pool.putconn(connection)


def _with_sqlalchemy(dialect: str) -> Callable[[str, Callable[[Any], None]], None]:
    def connect(url: str, work: Callable[[Any], None]) -> None:
        from sqlalchemy import create_engine

        name = f"sqlalchemy-{dialect}"
        with kept.setdefault("lock", threading.Lock()):
            if name not in kept:
                place = url.partition("://")[2]
                kept[name] = create_engine(f"{dialect}://{place}", pool_size=4, max_overflow=8)
        raw = kept[name].raw_connection()
        try:
            work(raw)
        finally:
            raw.close()

    return connect


SYNC: dict[str, Callable[[str, Callable[[Any], None]], None]] = {
    "psycopg": _with_psycopg,
    "psycopg-pool": _with_psycopg_pool,
    "psycopg2-pool": _with_psycopg2_pool,
    "sqlalchemy-psycopg": _with_sqlalchemy("postgresql+psycopg"),
    "sqlalchemy-psycopg2": _with_sqlalchemy("postgresql+psycopg2"),
}


def _play_sync(script: Script, url: str, told: Told) -> None:
    def work(connection: Any) -> None:
        _transaction(script, connection, told)

    for turn in range(script["times"]):
        script = {**script, "turn": turn}
        try:
            SYNC[script["via"]](url, work)
        except Broken:
            pass
        except Exception as error:
            told.failed(script, "connection", error)


def _transaction(script: Script, connection: Any, told: Told) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT current_database()")
    told.reached(script, cursor.fetchone()[0], script["via"])
    cursor.execute(f"SET LOCAL lock_timeout = '{WAIT_MS}ms'")
    try:
        for count, kind in enumerate(script["kinds"]):
            number = f"{script['number']}{script['turn']:03d}{count:03d}"
            if script["savepoints"]:
                cursor.execute("SAVEPOINT step")
            try:
                for step in (KINDS | SPECIAL)[kind]:
                    _do(connection, cursor, step[0], _text(step, script, number))
            except Exception as error:
                told.failed(script, kind, error)
                if not script["savepoints"]:
                    raise Broken from error
                cursor.execute("ROLLBACK TO SAVEPOINT step")
            else:
                told.went_well(script, kind)
        if script["mark"] is None:
            cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
            told.owns(cursor.fetchone()[0])
        connection.commit() if script["ending"] == "commit" else connection.rollback()
    except Broken:
        connection.rollback()
        raise
    finally:
        cursor.close()


def _do(connection: Any, cursor: Any, how: str, text: str) -> None:
    if how == "do":
        cursor.execute(text)
    elif how == "copy in":
        _copy_in(cursor, text)
    elif how == "copy out":
        _copy_out(cursor, text)
    else:
        _server_cursor(connection, text)


def _copy_in(cursor: Any, text: str) -> None:
    statement, _, rows = text.partition("\n")
    if hasattr(cursor, "copy"):
        with cursor.copy(statement) as copy:
            copy.write(rows)
    else:
        import io

        cursor.copy_expert(statement, io.StringIO(rows))


def _copy_out(cursor: Any, text: str) -> None:
    if hasattr(cursor, "copy"):
        with cursor.copy(text) as copy:
            for _ in copy:
                pass
    else:
        import io

        cursor.copy_expert(text, io.StringIO())


def _server_cursor(connection: Any, text: str) -> None:
    named = connection.cursor(name="walker") if hasattr(connection, "autocommit") else None
    named = named if named is not None else connection.driver_connection.cursor(name="walker")
    with named:
        named.execute(text)
        named.fetchmany(2)


# ---- tasks ----------------------------------------------------------------------------------------------


def _loop(scripts: Sequence[Script], url: str, told: Told) -> None:
    """Play tasks on one event loop of a thread of their own."""

    async def all_of_them() -> None:
        pools: dict[str, Any] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for script in scripts:
                    with marked(script["mark"]):
                        group.create_task(_play_async(script, url, told, pools))
        finally:
            for pool in pools.values():
                await pool.close()

    asyncio.run(all_of_them())


async def _play_async(script: Script, url: str, told: Told, pools: dict[str, Any]) -> None:
    for turn in range(script["times"]):
        try:
            await ASYNC[script["via"]](url, {**script, "turn": turn}, told, pools)
        except Broken:
            pass
        except Exception as error:
            told.failed(script, "connection", error)


async def _psycopg_async_pool(url: str, script: Script, told: Told, pools: dict[str, Any]) -> None:
    from psycopg_pool import AsyncConnectionPool

    if "psycopg" not in pools:
        pools["psycopg"] = AsyncConnectionPool(url, min_size=0, max_size=4, timeout=PATIENCE_S, open=False)
        await pools["psycopg"].open()
    async with pools["psycopg"].connection() as connection:

        async def run(how: str, text: str) -> Any:
            if how == "copy in":
                statement, _, rows = text.partition("\n")
                async with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    await copy.write(rows)
                return None
            if how == "copy out":
                async with connection.cursor() as cursor, cursor.copy(text) as copy:
                    async for _ in copy:
                        pass
                return None
            if how == "server cursor":
                async with connection.cursor(name="walker") as cursor:
                    await cursor.execute(text)
                    await cursor.fetchmany(2)
                return None
            cursor = await connection.execute(text)
            row = await cursor.fetchone() if cursor.description and text.startswith("SELECT") else None
            return row[0] if row else None

        await _async_transaction(script, told, run)
        await (connection.commit() if script["ending"] == "commit" else connection.rollback())


async def _asyncpg_pool(url: str, script: Script, told: Told, pools: dict[str, Any]) -> None:
    import asyncpg

    if "asyncpg" not in pools:
        lock = pools.setdefault("lock", _Lock())
        async with lock:
            if "asyncpg" not in pools:
                pools["asyncpg"] = await asyncpg.create_pool(url, min_size=0, max_size=4, timeout=PATIENCE_S)
    async with pools["asyncpg"].acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        over = False

        async def run(how: str, text: str) -> Any:
            if how == "copy in":
                statement, _, rows = text.partition("\n")
                table = statement.split()[1]
                import io

                source = io.BytesIO(rows.encode())
                await connection.copy_to_table(table, source=source, columns=["note"])
                return None
            if how == "copy out":
                import io

                await connection.copy_from_query("SELECT * FROM item", output=io.BytesIO())
                return None
            if how == "server cursor":
                cursor = await connection.cursor(text)
                await cursor.fetch(2)
                return None
            if text.startswith("SELECT"):
                return await connection.fetchval(text)
            return await connection.execute(text)

        try:
            await _async_transaction(script, told, run)
            over = True
            await (transaction.commit() if script["ending"] == "commit" else transaction.rollback())
        finally:
            if not over:
                await transaction.rollback()


class _Lock(asyncio.Lock):
    """A lock that is closed with the pools it lies among."""

    async def close(self) -> None: ...


async def _async_transaction(script: Script, told: Told, run: Callable[[str, str], Awaitable[Any]]) -> None:
    told.reached(script, await run("do", "SELECT current_database()::text"), script["via"])
    await run("do", f"SET LOCAL lock_timeout = '{WAIT_MS}ms'")
    for count, kind in enumerate(script["kinds"]):
        number = f"{script['number']}{script['turn']:03d}{count:03d}"
        if script["savepoints"]:
            await run("do", "SAVEPOINT step")
        try:
            for step in (KINDS | SPECIAL)[kind]:
                await run(step[0], _text(step, script, number))
        except Exception as error:
            told.failed(script, kind, error)
            if not script["savepoints"]:
                raise Broken from error
            await run("do", "ROLLBACK TO SAVEPOINT step")
        else:
            told.went_well(script, kind)
        await asyncio.sleep(0)
    if script["mark"] is None:
        told.owns(await run("do", "SELECT pg_current_xact_id_if_assigned()::text"))


ASYNC: dict[str, Callable[[str, Script, Told, dict[str, Any]], Awaitable[None]]] = {
    "psycopg-async-pool": _psycopg_async_pool,
    "asyncpg-pool": _asyncpg_pool,
}


# ---- what is done ---------------------------------------------------------------------------------------


def _text(step: tuple[str, str], script: Script, number: str) -> str:
    return step[1].replace("{n}", number).replace("{side}", side_of(script))


KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "insert": (("do", "INSERT INTO item (note) VALUES ('{side} {n}')"),),
    "insert returning": (("do", "INSERT INTO item (note) VALUES ('{side} {n}') RETURNING id"),),
    "insert many": (
        ("do", "INSERT INTO item (note) VALUES ('{side} {n}'), ('{side} {n}b'), ('{side} {n}c')"),
    ),
    "insert select": (("do", "INSERT INTO item (note) SELECT '{side} {n} ' || id FROM item LIMIT 3"),),
    "insert qualified": (("do", "INSERT INTO public.item (note) VALUES ('{side} {n}')"),),
    "upsert": (
        (
            "do",
            (
                "INSERT INTO stock VALUES ({n}::bigint % 50, 1) ON CONFLICT (id) DO UPDATE SET amount ="
                " stock.amount + 1"
            ),
        ),
    ),
    "update": (("do", "UPDATE stock SET amount = amount + 1 WHERE id = {n}::bigint % 50"),),
    "update from": (("do", "UPDATE item SET note = '{side} {n}' FROM stock WHERE item.id = stock.id"),),
    "update only": (("do", "UPDATE ONLY item SET note = '{side} {n}' WHERE id % 97 = {n}::bigint % 97"),),
    "delete": (("do", "DELETE FROM item WHERE id % 89 = {n}::bigint % 89"),),
    "delete using": (("do", "DELETE FROM item USING stock WHERE stock.id = item.id AND stock.amount > 3"),),
    "delete returning": (("do", "DELETE FROM stock WHERE id = {n}::bigint % 50 RETURNING amount"),),
    "writing cte": (
        (
            "do",
            (
                "WITH gone AS (DELETE FROM stock WHERE id = {n}::bigint % 50 RETURNING id)"
                " INSERT INTO item (note) SELECT '{side} {n} ' || id FROM gone"
            ),
        ),
    ),
    "merge": (
        (
            "do",
            (
                "MERGE INTO stock USING (VALUES ({n}::bigint % 50)) AS v (id) ON stock.id = v.id"
                " WHEN MATCHED THEN UPDATE SET amount = 0 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1)"
            ),
        ),
    ),
    "select": (("do", "SELECT count(*) FROM item"),),
    "select for update": (("do", "SELECT id FROM stock WHERE id = {n}::bigint % 50 FOR UPDATE"),),
    "select into": (("do", "SELECT * INTO made_{n} FROM stock LIMIT 2"),),
    "copy in": (("copy in", "COPY item (note) FROM STDIN\n{side} {n} a\n{side} {n} b\n"),),
    "copy out": (("copy out", "COPY item TO STDOUT"),),
    "truncate": (("do", "TRUNCATE scratch"),),
    "create table": (
        ("do", "CREATE TABLE table_{n} (id serial PRIMARY KEY, note text)"),
        ("do", "INSERT INTO table_{n} (note) VALUES ('{side}')"),
    ),
    "create as": (("do", "CREATE TABLE copied_{n} AS SELECT * FROM stock LIMIT 1"),),
    "create like": (
        ("do", "CREATE TABLE like_{n} (LIKE item INCLUDING ALL)"),
        ("do", "INSERT INTO like_{n} (note) VALUES ('{side}')"),
    ),
    "alter table": (("do", "ALTER TABLE scratch ADD COLUMN c_{n} int"),),
    "create index": (("do", "CREATE INDEX index_{n} ON scratch (note)"),),
    "drop table": (("do", "CREATE TABLE gone_{n} (id int)"), ("do", "DROP TABLE gone_{n}")),
    "create view": (("do", "CREATE VIEW view_{n} AS SELECT * FROM item"),),
    "create function": (
        (
            "do",
            (
                "CREATE FUNCTION made_{n}() RETURNS void LANGUAGE sql AS $$INSERT INTO item (note) VALUES"
                " ('{side} {n}')$$"
            ),
        ),
        ("do", "SELECT made_{n}()"),
    ),
    "temporary table": (("do", "CREATE TEMP TABLE temp_{n} ON COMMIT DROP AS SELECT * FROM item LIMIT 1"),),
    "sequence": (("do", "SELECT nextval('numbers')"),),
    "set sequence": (("do", "SELECT setval('numbers', 1 + {n}::bigint % 1000000)"),),
    "create sequence": (("do", "CREATE SEQUENCE sequence_{n}"), ("do", "SELECT nextval('sequence_{n}')")),
    "restart sequence": (("do", "ALTER SEQUENCE numbers RESTART WITH 7"),),
    "function": (("do", "SELECT add_item('{side} {n}')"),),
    "security definer": (("do", "SELECT add_item_as_owner('{side} {n}')"),),
    "procedure": (("do", "CALL put_item('{side} {n}')"),),
    "do block": (
        ("do", "DO $$BEGIN EXECUTE 'INSERT INTO public.item (note) VALUES (''{side} {n}'')'; END$$"),
    ),
    "trigger": (("do", "INSERT INTO watched (note) VALUES ('{side} {n}')"),),
    "view": (("do", "INSERT INTO items (note) VALUES ('{side} {n}')"),),
    "rule": (("do", "INSERT INTO ruled VALUES ('{side} {n}')"),),
    "partition": (("do", "INSERT INTO parts VALUES ({n}::bigint % 2 + 1, '{side} {n}')"),),
    "materialized view": (("do", "REFRESH MATERIALIZED VIEW totals"),),
    "prepared statement": (
        ("do", "PREPARE put_{n} (text) AS INSERT INTO item (note) VALUES ($1)"),
        ("do", "EXECUTE put_{n} ('{side} {n}')"),
        ("do", "DEALLOCATE put_{n}"),
    ),
    "server cursor": (("server cursor", "SELECT * FROM item ORDER BY id"),),
    "declared cursor": (
        ("do", "DECLARE walk_{n} CURSOR FOR SELECT id FROM stock FOR UPDATE"),
        ("do", "FETCH 1 FROM walk_{n}"),
        ("do", "CLOSE walk_{n}"),
    ),
    "savepoint": (
        ("do", "SAVEPOINT inner_one"),
        ("do", "INSERT INTO item (note) VALUES ('{side} {n}')"),
        ("do", "ROLLBACK TO SAVEPOINT inner_one"),
        ("do", "RELEASE SAVEPOINT inner_one"),
    ),
    "notify": (("do", "NOTIFY news, '{side} {n}'"),),
    "notify by function": (("do", "SELECT pg_notify('news', '{side} {n}')"),),
    "listen": (("do", "LISTEN news"), ("do", "UNLISTEN news")),
    "advisory lock": (("do", "SELECT pg_advisory_xact_lock({n}::bigint % 20)"),),
    "advisory session lock": (
        ("do", "SELECT pg_try_advisory_lock({n}::bigint % 20)"),
        ("do", "SELECT pg_advisory_unlock({n}::bigint % 20)"),
    ),
    "large object": (("do", "SELECT lo_from_bytea(0, '{side} {n}'::bytea)"),),
    "remove large object": (("do", "SELECT lo_unlink(4242)"),),
    "lock table": (("do", "LOCK TABLE scratch IN EXCLUSIVE MODE NOWAIT"),),
    "search path": (
        ("do", "SET LOCAL search_path = public, pg_catalog"),
        ("do", "INSERT INTO item (note) VALUES ('{side} {n}')"),
    ),
    "other database": (("do", "INSERT INTO soak_shop.public.item (note) VALUES ('{side} {n}')"),),
    "role": (("do", "SET ROLE soak_app"),),
    "truncate production's": (("do", "TRUNCATE item, stock RESTART IDENTITY CASCADE"),),
    "comment": (("do", "COMMENT ON TABLE item IS '{side} {n}'"),),
    "grant": (("do", "GRANT SELECT ON item TO PUBLIC"),),
    "analyze": (("do", "ANALYZE stock"),),
}
"""Kind -> its steps: how, and the text; {n} is a number of its own, {side} says whose it is."""

REFUSED = frozenset({"other database", "role"})
"""Kinds that never go well: the server refuses them to the shadow's role."""

SELDOM = REFUSED | frozenset(
    {
        "truncate production's", "alter table", "create index", "lock table", "materialized view", "grant",
        "restart sequence", "truncate", "comment", "drop table", "create table",
        "create like", "create view", "remove large object",
    }
)  # fmt: skip
"""Kinds that are drawn less often: they have all others wait, or fail."""

SPECIAL = {
    "fill the disk": (("do", "INSERT INTO filler SELECT repeat('y', 1000) FROM generate_series(1, 2000)"),),
}
"""Kinds for one occasion each."""

ORDINARY = (
    "insert", "insert returning", "insert many", "insert qualified", "upsert", "update", "delete",
    "delete returning", "writing cte", "merge", "select", "select for update", "copy in", "copy out",
    "function", "security definer", "procedure", "do block", "trigger", "view", "partition",
    "prepared statement", "server cursor", "declared cursor", "savepoint", "advisory lock", "listen",
)  # fmt: skip
"""What ordinary work does here: it leaves catalogue, ``numbers``, large objects and ``news`` alone, so that
any change of those in production is marked work's."""
