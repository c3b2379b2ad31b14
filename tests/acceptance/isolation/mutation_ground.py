"""Where protections are tried out: one of every store, its shadow, peers, and attached processes by the hook.

One PostgreSQL serves for production, its shadow, and all that is led astray on purpose. What became of a
piece of work is asked of the servers, past the agent.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import secrets
import shutil
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import psycopg
import redis
from attached_service import Service
from attached_stage import Echo
from isolation import attempts, protections
from isolation.postgresql_stage import LIVES_S, PostgresStage, postgres_stage
from mariadb_server import MariaServer, find_mariadbd
from two_sides import KEY, TestRun

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Store, Target
from perflab.demo.stores import RedisServer
from perflab.shadow.control import ControlList, LiveRun, encode, run_key
from perflab.shadow.mark import Mark, RunKey, mint
from perflab.shadow.prepare import prepare_redis
from perflab.shadow.prepare.shadowtables import prepare_tables
from perflab.shadow.sql.rewrite_room import Room

PREFIX = "perflab:shadow:"
TABLES = "CREATE TABLE item (id serial PRIMARY KEY, note text); CREATE TABLE stock (id int PRIMARY KEY)"
_numbers = itertools.count(1)


@dataclass
class Ground:
    """All that probes need; `attached` chooses the process they work in."""

    stage: PostgresStage
    target: Target
    maria: MariaServer
    redis_server: RedisServer
    files: Path
    echo: Echo
    outside: Echo
    run: TestRun
    _sessions: dict[str, psycopg.Connection[Any]] = field(default_factory=dict)
    _services: dict[tuple[str, ...], Service] = field(default_factory=dict)
    _used: Service | None = None
    _lists: Lists | None = None

    # ---- processes -----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        """The process probes work in."""
        assert self._used is not None
        return self._used

    @property
    def lists(self) -> Lists:
        """A process that reads a list of live runs of its own."""
        if self._lists is None:
            path = self.files / "lists.json"
            target = msgspec.structs.replace(self.target, control=str(path))
            self._lists = Lists(path, Service(attached_environment(target, "soak")))
        return self._lists

    @contextmanager
    def attached(self, disabled: tuple[str, ...] = (), patches: Sequence[str] = ()) -> Iterator[None]:
        """Work in a process without some hooks, and with some protections off."""
        self._used = self._service(tuple(sorted(disabled)))
        self._used.call(protections.switch_off, list(patches))
        try:
            yield
        finally:
            self._used.call(protections.switch_on)

    def _service(self, disabled: tuple[str, ...]) -> Service:
        """Return a process without these hooks; besides the one with all of them, one more is kept."""
        if disabled not in self._services:
            for other in [key for key in self._services if key]:
                self._services.pop(other).__exit__()
            self._services[disabled] = Service(attached_environment(self.target, "soak", disabled=disabled))
        return self._services[disabled]

    def close(self) -> None:
        """End every process and session."""
        for service in (*self._services.values(), *([self._lists.service] if self._lists else [])):
            service.__exit__()
        for session in self._sessions.values():
            session.close()

    # ---- work ----------------------------------------------------------------------------------------

    def note(self) -> str:
        """Return a text that no other item has."""
        return f"note {next(_numbers)}"

    def url(self, database: str) -> str:
        """Return the URL a service is configured with, of one of the server's databases."""
        return self.stage.production.dsn(database, "soak_app", "secret")

    def play(self, mark: Any, via: str) -> tuple[dict[str, Any], str]:
        """Have the service insert an item by a script; return what it told, and the note."""
        number = 1000 + next(_numbers)
        told = replace(self.stage, service=self.service).work(mark, via, number=number)
        return told, f"{'ordinary' if mark is None else 'marked'} {number}000000"

    def write(self, how: str, mark: Any, note: str, database: str = "soak_shop") -> str:
        """Have the service write an item; return the transaction's id, or the error."""
        said: str = self.service.call(attempts.written, how, self.url(database), mark, note)
        if mark is None and said.isdigit():
            self.stage.oracle.own.add(int(said))
        return said

    def request(self, framework: str, headers: dict[str, str], note: str) -> tuple[int, str]:
        """Send a request that has the service write an item; return the status and the body."""
        port = self.service.call(attempts.serve, framework, self.url("soak_shop"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", f"/?note={quote(note)}", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    # ---- what became of it ---------------------------------------------------------------------------

    def ask(self, database: str, text: str) -> list[Any]:
        """Ask a database as superuser, past the agent."""
        if database not in self._sessions:
            admin = self.stage.production.admin_dsn.rpartition("/")[0]
            self._sessions[database] = psycopg.connect(f"{admin}/{database}", autocommit=True)
        cursor = self._sessions[database].execute(text.encode())
        return cursor.fetchall() if cursor.description else []

    def where(self, note: str, *more: str) -> list[str]:
        """Return the databases that have an item with this note."""
        return [
            name
            for name in ("soak_shop", "soak_shadow", *more)
            if self.ask(name, f"SELECT 1 FROM item WHERE note = '{note}'")
        ]

    def wrongs(self) -> list[str]:
        """Return what the oracle saw in production since the last call that ordinary work did not do."""
        return [f"leak: {wrong}" for wrong in self.stage.oracle.check()]

    # ---- marks ---------------------------------------------------------------------------------------

    def begin_run(self, lasts_s: int = LIVES_S) -> TestRun:
        """Make one more run live."""
        return TestRun(self.stage.publisher, int(time.time()) + lasts_s)

    def mark(self) -> dict[str, Any]:
        """Mint a mark of the run that is live."""
        return self.run.mark()

    def headers(self, run: TestRun | None = None, now_s: float | None = None) -> dict[str, str]:
        """Return the headers of a new marked request."""
        return headers_of(mint((run or self.run).key, secrets.randbits(64), now_s))


def headers_of(mark: Mark) -> dict[str, str]:
    """Return a request's headers with a parent span of its own."""
    return mark.headers(secrets.randbits(63) + 1)


@dataclass
class Lists:
    """A process that reads a list of live runs of its own, which only `publish` writes."""

    path: Path
    service: Service

    def publish(self, run: LiveRun | None, age_s: float = 0.0, key: str = KEY) -> None:
        """Write a list with one run, or none."""
        runs = () if run is None else (run,)
        content = encode(ControlList(time.time() - age_s, runs), key.encode())
        aside = self.path.with_suffix(".aside")
        aside.write_bytes(content)
        aside.replace(self.path)

    def run(self) -> tuple[LiveRun, dict[str, Any]]:
        """Return a run, not listed yet, and a mark of it."""
        tag = secrets.randbelow(0xFFFE) + 1
        run = LiveRun(tag, f"run{tag}", f"run{tag}", int(time.time()) + 600)
        made = mint(derived(run), secrets.randbits(64))
        return run, {"tag": tag, "token": made.token, "trace_id": str(made.trace_id)}


def derived(run: LiveRun) -> RunKey:
    """Return a run's key."""
    return run_key(KEY.encode(), run)


class Pooler:
    """A pooler of PostgreSQL that is set up wrongly: whoever logs in gets production, as production's user.

    It writes another user and database into what a client says first, and passes on all the rest.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._behind)) as server:
            while True:
                (size,) = struct.unpack(">I", _exactly(client, 4))
                asked = _exactly(client, size - 4)
                if asked[:4] == struct.pack(">I", 196608):
                    break
                client.sendall(b"N")  # no encryption here
            words = asked[4:].split(b"\0")
            said = dict(zip(words[::2], words[1::2], strict=False)) | {
                b"user": b"soak_app", b"database": b"soak_shop",
            }  # fmt: skip
            said.pop(b"", None)
            body = asked[:4] + b"".join(key + b"\0" + value + b"\0" for key, value in said.items()) + b"\0"
            server.sendall(struct.pack(">I", len(body) + 4) + body)
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            _pass_on(client, server)


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            raise ConnectionError("the client is gone")
        found += part
    return found


def _pass_on(source: socket.socket, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65536):
            there.sendall(part)
        there.shutdown(socket.SHUT_WR)


@contextmanager
def mutation_ground(directory: Path) -> Iterator[Ground]:
    """Set everything up.

    Parameters
    ----------
    directory : Path
        One that others may pass through.
    """
    with ExitStack() as stack:
        stage = stack.enter_context(postgres_stage(directory))
        maria = stack.enter_context(MariaServer(directory / "mariadb"))
        cache = stack.enter_context(RedisServer(directory / "redis"))
        pooler = Pooler(stage.production.port)
        stack.callback(pooler.close)
        echo, outside = (stack.enter_context(Echo()) for _ in range(2))
        stores = (
            msgspec.structs.replace(
                stage.target.stores[0], audit=_secret(directory, f"{_admin(stage)}/soak_shop")
            ),
            *_postgres_stores(directory, stage, pooler),
            _maria_store(directory, maria),
            _redis_store(directory, cache),
            _sqlite_store(directory),
        )
        target = msgspec.structs.replace(stage.target, stores=stores, services={"echo": (echo.address,)})
        run = stage.begin_run()
        ground = Ground(stage, target, maria, cache, directory, echo, outside, run)
        stack.callback(ground.close)
        yield ground


def has_mariadb() -> bool:
    """Tell whether a MariaDB can be started here."""
    return bool(find_mariadbd())


def _admin(stage: PostgresStage) -> str:
    return stage.production.admin_dsn.rpartition("/")[0]


def _secret(directory: Path, text: str) -> Secret:
    path = directory / f"secret{next(_numbers)}"
    path.write_text(text)
    return Secret(file=str(path))


def _postgres_stores(directory: Path, stage: PostgresStage, pooler: Pooler) -> tuple[Store, ...]:
    """Describe a store that is denied, one behind the pooler, and one whose shadow is another schema."""
    server = stage.production
    for name in ("soak_unlisted", "soak_apart"):
        with psycopg.connect(server.admin_dsn, autocommit=True) as session:
            session.execute(f"CREATE DATABASE {name} OWNER soak_app")  # type: ignore[call-overload]  # text
        with psycopg.connect(server.dsn(name, "soak_app", "secret")) as session:
            session.execute(TABLES)
    room = Room("postgresql", "schema", "shadow", "soak_apart")
    prepare_tables(f"{_admin(stage)}/soak_apart", room, "soak_apart_role", "secret")
    place = f"postgresql://127.0.0.1:{server.port}"
    through = f"postgresql://soak_role:secret@127.0.0.1:{pooler.port}/soak_shadow"
    apart = _secret(directory, server.dsn("soak_apart", "soak_apart_role", "secret"))
    shadow = stage.target.stores[0].shadow
    return (
        Store("sealed", "postgresql", f"{place}/soak_sealed", shadow, mode="deny"),
        Store("pooled", "postgresql", f"{place}/soak_pooled", _secret(directory, through)),
        Store("apart", "postgresql", f"{place}/soak_apart", apart, mode="schema", within="shadow"),
    )


def _maria_store(directory: Path, server: MariaServer) -> Store:
    with server.connect() as session, session.cursor() as cursor:
        for name in ("market", "market_shadow"):
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"CREATE TABLE {name}.item (note varchar(100))")
            cursor.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'secret'")
            cursor.execute(f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1'")
    return Store(
        "market",
        "mariadb",
        f"mariadb://127.0.0.1:{server.port}/market",
        _secret(directory, server.url("market_shadow", "market_shadow", "secret")),
    )


def _redis_store(directory: Path, server: RedisServer) -> Store:
    confine_redis(server)
    secret = _secret(directory, server.url("soak_shadow", "secret"))
    return Store("cache", "redis", f"redis://127.0.0.1:{server.port}/0", secret, None, PREFIX)


def confine_redis(server: RedisServer) -> None:
    """Make the shadow's user, or make it anew, whatever was done to it."""
    with redis.Redis.from_url(server.admin_url) as client:
        client.acl_deluser("soak_shadow")
    prepare_redis(server.admin_url, "soak_shadow", "secret", PREFIX)


def keys_of(server: RedisServer) -> set[str]:
    """Return all keys there are."""
    with redis.Redis.from_url(server.admin_url) as client:
        return {key.decode() for key in client.keys("*")}


def _sqlite_store(directory: Path) -> Store:
    production, shadow = directory / "notes.db", directory / "shadow of notes.db"
    with contextlib.closing(sqlite3.connect(production)) as made:
        made.execute("CREATE TABLE item (note TEXT)")
    shutil.copy(production, shadow)
    secret = _secret(directory, f"sqlite:///{str(shadow).replace(' ', '%20')}")
    return Store("notes", "sqlite", f"sqlite:///{production}", secret)
