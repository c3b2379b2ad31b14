"""Work that is tried on protections, inside attached processes: what a service might do, marked or not."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from attached_service import attempt, attempt_async, kept, marked


def forget_driver() -> None:
    """Have pg8000 be a driver that was never imported."""
    from perflab.shadow import imports
    from perflab.shadow.drivers import _note_uncovered, _refuse_uncovered
    from perflab.shadow.scope import process

    for name in [name for name in sys.modules if name.partition(".")[0] == "pg8000"]:
        del sys.modules[name]
    process.ledger.uncovered.discard("pg8000")
    if "pg8000" not in imports._waiting:
        imports.when_imported("pg8000", _note_uncovered, _refuse_uncovered)


def import_libraries(hooks: list[str]) -> None:
    """Import, for a real user, what hooks are for: marked work could not, if they are off."""
    from perflab.shadow.drivers import HOOKS

    for name in hooks:
        for trigger, _, _ in HOOKS[name]:
            if trigger.startswith("django.contrib"):  # which needs settings
                continue
            with contextlib.suppress(ModuleNotFoundError):  # of several servers one is enough
                import_module(trigger)


def believe_nothing() -> None:
    """Forget every list of live runs that was read."""
    from perflab.shadow.control import _Belief
    from perflab.shadow.scope import process

    process.control._belief = _Belief()


# ---- work to try -----------------------------------------------------------------------------------------

INSERT = "INSERT INTO item (note) VALUES (%s)"
XID = "SELECT pg_current_xact_id_if_assigned()::text"


def written(how: str, url: str, mark: Any, note: str) -> str:
    """Write an item in one of `WAYS`; return the transaction's id, or the error."""
    with marked(mark):
        return str(attempt(lambda: WAYS[how](url, note)))


def _insert(url: str, note: str) -> str:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(INSERT, [note])
        return str(connection.execute(XID).fetchone()[0])  # type: ignore[index]  # one row


def _insert_alone(url: str, note: str) -> str:
    """Ask for no transaction's id, which is a function that might write: so the agent's claim is exact."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(INSERT, [note])
    return "done"


def _in_thread(url: str, note: str) -> str:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(attempt(lambda: _insert(url, note))))
    thread.start()
    thread.join()
    return str(found[0])


def _in_executor(url: str, note: str) -> str:
    """Use a thread that ordinary work has started."""
    from concurrent.futures import ThreadPoolExecutor

    if "one thread" not in kept:
        with marked(None):
            kept["one thread"] = ThreadPoolExecutor(1)
            kept["one thread"].submit(int).result()
    return str(kept["one thread"].submit(_insert, url, note).result())


def _by_worker(url: str, note: str) -> str:
    """Have a worker do it that lives long and takes its work from a queue."""
    import queue

    work: Any = queue.Queue()
    found: list[Any] = []

    def run() -> None:
        asked = work.get()
        found.append(attempt(lambda: _insert(*asked)))

    with marked(None):
        worker = threading.Thread(target=run)
        worker.start()
    try:
        work.put((url, note))
    except Exception:
        with marked(None):
            work.put(("", ""))
        raise
    finally:
        worker.join()
    return str(found[0])


def _by_program(url: str, note: str) -> str:
    """Have another process do it."""
    program = (
        "import psycopg, sys\n"
        "with psycopg.connect(sys.argv[1]) as connection:\n"
        f"    connection.execute({INSERT!r}, [sys.argv[2]])\n"
        f"    print(connection.execute({XID!r}).fetchone()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url, note], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _by_uncovered_driver(url: str, note: str) -> str:
    from urllib.parse import urlsplit

    driver = import_module("pg8000.native")
    at = urlsplit(url)
    connection = driver.Connection(
        at.username, password=at.password, host=at.hostname, port=at.port, database=at.path[1:]
    )
    try:
        connection.run("INSERT INTO item (note) VALUES (:note)", note=note)
    finally:
        connection.close()
    return "0"


def _by_two_tables(url: str, note: str) -> str:
    import psycopg

    text = f"INSERT INTO public.item (note) SELECT '{note}' WHERE NOT EXISTS (SELECT FROM stock WHERE id < 0)"
    with psycopg.connect(url) as connection:
        connection.execute(text)  # type: ignore[call-overload]  # a text of the test's own
    return "0"


WAYS: dict[str, Callable[[str, str], str]] = {
    "psycopg": _insert,
    "psycopg alone": _insert_alone,
    "a thread": _in_thread,
    "an executor": _in_executor,
    "a worker": _by_worker,
    "a program": _by_program,
    "pg8000": _by_uncovered_driver,
    "two tables": _by_two_tables,
}


def written_on_kept(url: str, opener: Any, writer: Any, note: str) -> str:
    """Have one side open a connection and the other write on it."""
    import psycopg

    def write() -> str:
        connection.execute(INSERT, [note])
        connection.commit()
        return "done"

    with marked(opener):
        connection = psycopg.connect(url)
    with marked(writer):
        said = str(attempt(write))
    with marked(opener):
        connection.close()
    return said


async def written_in_async_pool(url: str, mark: Any, notes: list[str]) -> list[str]:
    """Have a real user, marked work and a real user write an item each, by one pool with one connection."""
    from psycopg_pool import AsyncConnectionPool

    async def write(note: str) -> str:
        async with pool.connection() as connection:
            await connection.execute(INSERT, [note])
            cursor = await connection.execute(XID)
            return str((await cursor.fetchone())[0])

    said = []
    async with AsyncConnectionPool(url, min_size=1, max_size=1, timeout=10, open=False) as pool:
        for note, whose in zip(notes, (None, mark, None), strict=True):
            with marked(whose):
                said.append(str(await attempt_async(functools.partial(write, note))))
    return said


def begin_and_keep(url: str, mark: Any) -> None:
    """Begin a marked transaction and keep it open."""
    import psycopg

    with marked(mark):
        kept["open"] = psycopg.connect(url)
        kept["open"].execute(INSERT, ["marked, open"])


def roll_back(mark: Any) -> str:
    """Roll back what was kept open."""
    with marked(mark):
        return str(attempt(kept["open"].rollback))


def end_kept() -> None:
    """End what was kept open, whatever became of it."""
    kept.pop("open").pgconn.finish()


def written_by_pymysql(login: dict[str, Any], mark: Any, statements: list[str]) -> Any:
    """Run statements through PyMySQL in one transaction; return the last one's first value, or the error."""

    def work() -> Any:
        import pymysql

        with pymysql.connect(**login) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone()
            connection.commit()
            return row[0] if row else None

    with marked(mark):
        return attempt(work)


def hold_lock(login: dict[str, Any], mark: Any) -> str:
    """Take a user lock of MariaDB, and keep the connection."""

    def work() -> str:
        import pymysql

        connection = kept["locked"] = pymysql.connect(**login)
        with connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('stocktaking', 0)")
        return "done"

    with marked(mark):
        return str(attempt(work))


def end_lock(mark: Any) -> None:
    """End the connection that holds the lock."""
    with marked(mark):
        kept.pop("locked").close()


def written_to_file(path: str, mark: Any, statements: list[str]) -> str:
    """Run statements on a file of SQLite and commit."""

    def work() -> str:
        import sqlite3

        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return "done"

    with marked(mark):
        return str(attempt(work))


def key_set(url: str, mark: Any, key: str) -> str:
    """Set a key of Redis."""

    def work() -> str:
        import redis

        with redis.Redis.from_url(url) as client:
            client.set(key, "x")
        return "done"

    with marked(mark):
        return str(attempt(work))


def key_set_on_kept(url: str, mark: Any, key: str) -> str:
    """Set a key on a connection that a real user's work has opened."""
    import redis

    with marked(None):
        client = redis.Redis.from_url(url, single_connection_client=True)
        client.ping()
    with marked(mark):
        said = str(attempt(lambda: client.set(key, "x")))
    with marked(None):
        client.close()
    return said


def peer_called(client: str, url: str, mark: Any) -> str:
    """Call a peer through an HTTP client."""

    def work() -> str:
        if client == "http.client":
            from http.client import HTTPConnection

            connection = HTTPConnection(url.split("/")[2], timeout=5)
            try:
                connection.request("GET", "/")
                return str(connection.getresponse().status)
            finally:
                connection.close()
        return str(import_module(client).get(url, timeout=5).status_code)

    with marked(mark):
        return str(attempt(work))


# ---- services --------------------------------------------------------------------------------------------


def serve(framework: str, url: str) -> int:
    """Serve ``/?note=...``, which writes an item, with a framework; return the port."""
    if f"port of {framework}" not in kept:
        listener = socket.create_server(("127.0.0.1", 0))
        run = SERVERS[framework](lambda note: _insert(url, note), listener)
        threading.Thread(target=run, daemon=True).start()
        kept[f"port of {framework}"] = listener.getsockname()[1]
    return int(kept[f"port of {framework}"])


def _flask(write: Callable[[str], str], listener: socket.socket) -> Callable[[], None]:
    import flask

    application = flask.Flask("shop")
    application.add_url_rule("/", view_func=lambda: write(flask.request.args["note"]))
    return _waitress(application, listener)


def _django(write: Callable[[str], str], listener: socket.socket) -> Callable[[], None]:
    from django.conf import settings

    class Urls:
        urlpatterns: tuple[Any, ...] = ()

    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=Urls, LOGGING_CONFIG=None)
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    Urls.urlpatterns = (path("", lambda request: HttpResponse(write(request.GET["note"]))),)
    return _waitress(get_wsgi_application(), listener)


def _waitress(application: Any, listener: socket.socket) -> Callable[[], None]:
    import waitress

    return lambda: waitress.serve(application, sockets=[listener], threads=2, _quiet=True)


def _starlette(write: Callable[[str], str], listener: socket.socket) -> Callable[[], None]:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def item(request: Any) -> Any:  # in no thread of a pool that would outlive the service
        return PlainTextResponse(write(request.query_params["note"]))

    application = Starlette(routes=[Route("/", item)])
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical"))
    return lambda: server.run(sockets=[listener])


SERVERS: dict[str, Callable[[Callable[[str], str], socket.socket], Callable[[], None]]] = {
    "flask": _flask,
    "django": _django,
    "starlette": _starlette,
}
