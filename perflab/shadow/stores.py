"""Which store an address means: production, its shadow, or one nobody listed.

Marked work may only reach shadows. A store that is not listed is unknown, and refused to marked work.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from perflab.config import Store
from perflab.errors import ConfigError

_RESOLVED_FOR_S = 60
_PORTS = {"redis": 6379, "rediss": 6379, "mariadb": 3306, "mysql": 3306}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is and who logs in: what routing and checks compare."""

    host: str
    port: int
    database: str
    user: str = ""
    password: str = ""

    def same_store(self, other: Place) -> bool:
        """Tell whether both mean one server and database, whatever the login; host names are resolved."""
        return self.database == other.database and self.same_server(other)

    def same_server(self, other: Place) -> bool:
        """Tell whether both mean one server; host names are resolved."""
        return self.port == other.port and (
            self.host == other.host or bool(_addresses(self.host) & _addresses(other.host))
        )


@dataclass(frozen=True, slots=True)
class Twin:
    """A production store and its shadow, as the hooks use them."""

    store: Store
    production: Place
    shadow: Place


@dataclass(frozen=True, slots=True)
class Found:
    """What an address is: a side of a known store."""

    twin: Twin
    side: Literal["production", "shadow"]


def place(url: str) -> Place:
    """Read a store's URL.

    ``postgresql://user:password@host:5432/db`` (a socket's directory as ``?host=``),
    ``mariadb://user:password@host:3306/db`` (or ``mysql://``; a socket as ``?unix_socket=``),
    ``sqlite:////path/of.db``, ``redis://...:6379/0``, ``rediss://...``, ``unix:///path/to/redis.sock?db=0``.

    Raises
    ------
    ConfigError
        If it cannot be read as naming one server.

    Examples
    --------
    >>> place("postgresql://app@10.0.0.5/shop")
    Place(host='10.0.0.5', port=5432, database='shop', user='app', password='')
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        if parts.scheme == "unix":
            login = (query.get("username", parts.username or ""), query.get("password", parts.password or ""))
            return Place(unquote(parts.path), 6379, query.get("db", "0"), *map(unquote, login))
        if parts.scheme == "sqlite":
            return Place("", 0, os.path.realpath(unquote(parts.path.removeprefix("/"))))
        redis = parts.scheme in ("redis", "rediss")
        database = unquote(parts.path.lstrip("/")) or query.get("db" if redis else "dbname", "")
        found = Place(
            query.get("hostaddr")
            or query.get("host")
            or unquote(query.get("unix_socket", ""))
            or parts.hostname
            or "",
            int(query.get("port", 0)) or parts.port or _PORTS.get(parts.scheme, 5432),
            database or ("0" if redis else ""),
            unquote(parts.username or "") or query.get("user", ""),
            unquote(parts.password or "") or query.get("password", ""),
        )
    except ValueError as error:
        raise ConfigError(f"a store's URL cannot be read ({error}); it names one host and port") from error
    if "," in found.host:
        raise ConfigError(f"a store's URL names one server, not several: {found.host}")
    return found


def read_twins(stores: Sequence[Store], kind: str) -> tuple[Twin, ...]:
    """Resolve the stores of one kind, their secrets included.

    Raises
    ------
    ConfigError
        If a shadow's secret or a URL cannot be read.
    """
    return tuple(
        Twin(store, place(store.production), place(store.shadow.read()))
        for store in stores
        if store.kind == kind
    )


def find(twins: Sequence[Twin], wanted: Place) -> Found | None:
    """Return which known store an address is, or None. A shadow on the same database is told by its login."""
    for twin in twins:
        if wanted.same_store(twin.shadow) and (
            wanted.user == twin.shadow.user or not twin.shadow.same_store(twin.production)
        ):
            return Found(twin, "shadow")
    for twin in twins:
        if wanted.same_store(twin.production):
            return Found(twin, "production")
    return None


def _addresses(host: str) -> frozenset[str]:
    """Return the addresses of a host; one that cannot be resolved now is asked for again."""
    if host.startswith("/") or not host:
        return frozenset({host})
    try:
        return _resolved(host, int(time.monotonic() // _RESOLVED_FOR_S))
    except (OSError, UnicodeError):
        return frozenset({host})


@lru_cache(maxsize=256)
def _resolved(host: str, period: int) -> frozenset[str]:  # noqa: ARG001 - part of the key: names move
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)}
    return frozenset("127.0.0.1" if address == "::1" else address for address in found)
