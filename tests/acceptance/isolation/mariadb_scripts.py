"""Random work on MariaDB, played inside an attached process: `isolation.scripts` says what a script is.

PyMySQL is synchronous: a task has its script played by ``asyncio.to_thread``. The last way to the database
is a pool that the service wrote itself: it hands out whatever lies on top, whoever opened it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attached_service import kept, marked
from isolation.mariadb_kinds import AFTER, FAULTS, KINDS
from isolation.scripts import Broken, Script, Told, play_side_by_side, side_of

Login = Mapping[str, Any]
_LOCKS = 20


def play_mariadb(scripts: Sequence[Script], login: Login, shadow_word: str) -> dict[str, Any]:
    """Play scripts side by side and tell what became of them, as `isolation.scripts.play` does.

    Parameters
    ----------
    scripts : sequence of Script
        What to play.
    login : mapping
        What the service connects with; ``victim``: a session that is not the shadow's; ``directory``: where
        files may be made.
    shadow_word : str
        A word that is in the shadow's name alone.
    """
    told = Told(shadow_word)
    for side in ("marked", "ordinary"):
        file = Path(_file(login, side))
        if not file.exists():
            file.write_text(f"{side} loaded a\n{side} loaded b\n")
    play_side_by_side(
        scripts,
        lambda script: _play(script, login, told),
        lambda tasks: asyncio.run(_as_tasks(tasks, login, told)),
    )
    return told.as_dict()


async def _as_tasks(scripts: Sequence[Script], login: Login, told: Told) -> None:
    async with asyncio.TaskGroup() as group:
        for script in scripts:
            with marked(script["mark"]):
                group.create_task(asyncio.to_thread(_play, script, login, told))


# ---- ways to the database -------------------------------------------------------------------------------


def _options(login: Login) -> dict[str, Any]:
    from pymysql.constants import CLIENT

    place = {name: login[name] for name in ("host", "port", "user", "password", "database")}
    plain = {"ssl_disabled": True}  # reading the machine's certificates costs more than ten statements
    return {**place, **plain, "local_infile": True, "client_flag": CLIENT.MULTI_STATEMENTS}


def _with_pymysql(login: Login, work: Callable[[Any], None]) -> None:
    import pymysql

    with pymysql.connect(**_options(login)) as connection:
        work(connection)


def _with_sqlalchemy(pool: str) -> Callable[[Login, Callable[[Any], None]], None]:
    def connect(login: Login, work: Callable[[Any], None]) -> None:
        from sqlalchemy import create_engine
        from sqlalchemy import pool as pools

        with kept.setdefault("lock", threading.Lock()):
            if pool not in kept:
                options = {} if pool == "NullPool" else {"pool_size": 4, "max_overflow": 8}
                kept[pool] = create_engine(
                    "mysql+pymysql://",
                    connect_args=_options(login),
                    poolclass=getattr(pools, pool),
                    **options,
                )
        raw = kept[pool].raw_connection()
        try:
            work(raw)
        finally:
            raw.close()

    return connect


def _with_kept(login: Login, work: Callable[[Any], None]) -> None:
    import pymysql

    pool: queue.LifoQueue[Any] = kept.setdefault("own pool", queue.LifoQueue())
    try:
        connection = pool.get_nowait()
    except queue.Empty:
        connection = pymysql.connect(**_options(login))
    try:
        work(connection)
    finally:
        if connection.open:
            pool.put(connection)


WAYS: dict[str, Callable[[Login, Callable[[Any], None]], None]] = {
    "pymysql": _with_pymysql,
    "sqlalchemy-queue": _with_sqlalchemy("QueuePool"),
    "sqlalchemy-null": _with_sqlalchemy("NullPool"),
    "own-pool": _with_kept,
}


# ---- a script -------------------------------------------------------------------------------------------


def _play(script: Script, login: Login, told: Told) -> None:
    def work(connection: Any) -> None:
        _transaction(script, connection, login, told)

    for turn in range(script["times"]):
        script = {**script, "turn": turn}
        try:
            WAYS[script["via"]](login, work)
        except Broken:
            pass
        except Exception as error:
            told.failed(script, f"connection of {script['via']}", error)


def _transaction(script: Script, connection: Any, login: Login, told: Told) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT DATABASE()")
    told.reached(script, cursor.fetchone()[0], script["via"])
    try:
        cursor.execute(
            f"SET innodb_lock_wait_timeout = {_wait_s(script)}, lock_wait_timeout = 0, autocommit = 0"
        )
        for count, kind in enumerate(script["kinds"]):
            number = f"{script['number']}{script['turn']:03d}{count:03d}"
            try:
                for how, text in (KINDS | FAULTS)[kind]:
                    _do(connection, cursor, how, _text(text, script, number, login))
                    _own(script, cursor, told)
            except Exception as error:
                told.failed(script, kind, error)
                for text in AFTER.get(kind, ()):
                    with contextlib.suppress(Exception):
                        cursor.execute(_text(text, script, number, login))
                if not script["savepoints"]:
                    raise Broken from error
            else:
                told.went_well(script, kind)
        connection.commit() if script["ending"] == "commit" else connection.rollback()
        _own(script, cursor, told)
    except BaseException:
        with contextlib.suppress(Exception):
            connection.rollback()
            _own(script, cursor, told)  # with a temporary table in it, what was rolled back is logged, too
        raise
    finally:
        with contextlib.suppress(Exception):
            cursor.close()


def _wait_s(script: Script) -> int:
    """Say how long a script waits for rows, in whole seconds; most shadow work gives up at once."""
    return int(script["mark"] is None or script["number"] % 10 == 0)


def _own(script: Script, cursor: Any, told: Told) -> None:
    """Note the last transaction of an ordinary script's session that the server wrote into its log."""
    if script["mark"] is None:
        cursor.execute("SELECT @@last_gtid")
        told.owns(cursor.fetchone()[0])


def _do(connection: Any, cursor: Any, how: str, text: str) -> None:
    if how == "many":
        statement, _, note = text.partition("\n")
        cursor.executemany(statement, [(f"{note} {letter}",) for letter in "abc"])
    elif how == "walk":
        from pymysql.cursors import SSCursor

        with connection.cursor(SSCursor) as walker:
            walker.execute(text)
            walker.fetchmany(2)
    else:
        cursor.execute(text)
        cursor.fetchall()
        while cursor.nextset():
            cursor.fetchall()


def _text(text: str, script: Script, number: str, login: Login) -> str:
    """Write out a kind's statement for one occasion."""
    side = side_of(script)
    return (
        text.replace("{n}", number)
        .replace("{side}", side)
        .replace("{database}", "soak_shadow" if side == "marked" else "soak_shop")
        .replace("{lock}", str(int(number) % _LOCKS))
        .replace("{victim}", str(login["victim"]))
        .replace("{file}", _file(login, side))
    )


def _file(login: Login, side: str) -> str:
    return f"{login['directory']}/{side}.rows"
