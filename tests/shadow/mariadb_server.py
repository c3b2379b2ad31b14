"""A private MariaDB for tests: the system's ``mariadbd`` on a free port, with a row-based binlog."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pymysql

from perflab.demo.spawn import end_child, start_child
from perflab.demo.stores import NOBODY, Store, StoreError

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec")


def find_mariadbd() -> str:
    """Return the path of the server's program, "" where there is none."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_SBIN))
    return shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path) or ""


class MariaServer(Store):
    """A MariaDB with the superuser ``admin``, on 127.0.0.1 only.

    Parameters
    ----------
    directory
        Where data and log go; one that others may pass through, for it runs as ``nobody`` under root.
    settings
        Server options on top of those below; ``{"log-bin": None}`` takes one away.
    """

    name = "mariadb"
    _in_use = ("Address already in use",)
    _ending = ((signal.SIGTERM, 6.0), (signal.SIGKILL, 2.0))  # it does not hear SIGINT
    _settings: ClassVar[dict[str, str | None]] = {
        "bind-address": "127.0.0.1",
        "server-id": "1",
        "log-bin": "binlog",
        "binlog-format": "ROW",
        "binlog-row-image": "FULL",
        "binlog-row-metadata": "FULL",
        "sync-binlog": "0",
        "max-connections": "200",
        "innodb-buffer-pool-size": "64M",
        "innodb-flush-log-at-trx-commit": "0",
        "innodb-fast-shutdown": "2",
        "performance-schema": "OFF",
        "skip-name-resolve": "ON",
        "character-set-server": "utf8mb4",
    }

    def __init__(
        self, directory: Path, port: int | None = None, settings: dict[str, str | None] | None = None
    ) -> None:
        super().__init__(directory, port)
        self._extra = settings or {}
        self._account = NOBODY if os.geteuid() == 0 else None

    @property
    def admin_url(self) -> str:
        """URL of the superuser."""
        return self.url("", "admin", self._password)

    def url(self, database: str, user: str, password: str) -> str:
        """Write the URL of a login of this server."""
        return f"mariadb://{user}:{password}@{self.host}:{self._port}/{database}"

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Open a session of the superuser, in autocommit."""
        return pymysql.connect(
            host=self.host, port=self._port, user="admin", password=self._password, database=database,
            autocommit=True, connect_timeout=2, charset="utf8mb4",
        )  # fmt: skip

    def stop(self) -> None:
        """Stop the server; it does not listen to SIGINT."""
        child, self._child = self._child, None
        if child is not None:
            end_child(child, (signal.SIGTERM, 8.0))

    def _prepare(self) -> None:
        self._data = self.directory / "data"
        if (self._data / "mysql").exists():
            return
        self._data.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            os.chown(self._data, self._account.uid, self._account.gid)
        install = shutil.which("mariadb-install-db")
        if not install or not find_mariadbd():
            raise StoreError("MariaDB is missing: install the system's package mariadb-server")
        words = [
            install,
            "--no-defaults",
            f"--datadir={self._data}",
            "--auth-root-authentication-method=normal",
        ]
        words += ["--skip-test-db"]
        if self._account is not None:
            words.append("--user=nobody")
        done = subprocess.run(words, capture_output=True, text=True, cwd=self.directory, timeout=60)
        if done.returncode:
            raise StoreError(f"mariadb-install-db failed: {done.stderr[-800:]}")
        self._first = self.directory / "first.sql"
        self._first.write_text(
            f"CREATE USER admin@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            "GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION;\n"
            "DROP USER IF EXISTS root@localhost, mysql@localhost;\n"
        )
        self._first.chmod(0o644)

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            **self._settings,
            **self._extra,
            "datadir": str(self._data),
            "port": str(self._port),
            "socket": str(self.directory / "data" / "s"),
            "pid-file": str(self._data / "pid"),
        }
        first = self.directory / "first.sql"
        words = [find_mariadbd(), "--no-defaults"]
        words += [f"--{name}={value}" for name, value in settings.items() if value is not None]
        if not (self.directory / "begun").exists():
            words.append(f"--init-file={first}")
        return start_child(
            words, log_path=self.log_path, account=self._account, cwd=self.directory, env={"LC_ALL": "C"}
        )

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.MySQLError:
            return False
        (self.directory / "begun").touch()
        return True
