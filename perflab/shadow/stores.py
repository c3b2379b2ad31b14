"""Which store an address means: production, its shadow, or one nobody listed.

Marked work may only reach shadows. A store that is not listed is unknown, and refused to marked work.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from perflab.config import Store


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
        return (
            self.port == other.port
            and self.database == other.database
            and (self.host == other.host or bool(_addresses(self.host) & _addresses(other.host)))
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
    """Read a store's URL: ``postgresql://user:password@host:5432/db`` or ``redis://...:6379/0``."""
    parts = urlsplit(url)
    default = {"redis": 6379, "rediss": 6379}.get(parts.scheme, 5432)
    query = dict(parse_qsl(parts.query))
    return Place(
        query.get("host", parts.hostname or ""),
        parts.port or default,
        unquote(parts.path.lstrip("/")) or ("0" if default == 6379 else ""),
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def read_twins(stores: Sequence[Store], kind: str) -> tuple[Twin, ...]:
    """Resolve the stores of one kind, their secrets included.

    Raises
    ------
    ConfigError
        If a shadow's secret cannot be read.
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


@lru_cache(maxsize=256)
def _addresses(host: str) -> frozenset[str]:
    if host.startswith("/") or not host:
        return frozenset({host})
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)}
    except OSError:
        return frozenset({host})
    return frozenset("127.0.0.1" if address == "::1" else str(address) for address in found)
