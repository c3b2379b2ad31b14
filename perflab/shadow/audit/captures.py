"""Which change stream shows what a store's production changed, and what is used where it cannot be read.

PostgreSQL has its write-ahead log, MariaDB its binary log, Redis its replication stream. Where the log
cannot be
read, counters remain (`perflab.shadow.audit.counters`): they are worth looking at and prove nothing. SQLite
has neither a log nor logins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from perflab.config import Store
from perflab.errors import ShadowError
from perflab.shadow.refusal import with_login
from perflab.shadow.stores import place

from .attribution import Change, Claim
from .binlog import BinlogCapture
from .canary import CanaryWatch
from .counters import CounterCapture
from .countersources import MariadbCounters, PostgresCounters
from .redisreplica import ReplicaStream
from .redisstream import Write
from .walcapture import WalCapture


class Capture(Protocol):
    """Reads what one store's production changes, from `open` to `end`."""

    not_checked: list[str]
    shadow_changes: int

    @property
    def limits(self) -> Sequence[str]:
        """What the method cannot see, though it forbids nothing."""

    @property
    def unit(self) -> str:
        """What is counted."""

    @property
    def removed_by_server(self) -> int:
        """Changes the server made by itself, by expiry."""

    def open(self) -> None:
        """Begin; a `ShadowError` says why that cannot be."""

    def poll(self) -> bool:
        """Read on; False where there is more already."""

    def end(self) -> None:
        """Fix the end of the window."""

    def drain(self, deadline_s: float) -> None:
        """Read up to the end."""

    def claims(self, rows: Sequence[dict[str, Any]], /) -> Sequence[Claim]:
        """Read the agents' claims as this stream would show them; called before `changes`."""

    def changes(self) -> Sequence[Change]:
        """Return what was changed, oldest first."""

    def close(self) -> None:
        """Leave nothing behind."""


def open_capture(store: Store, watch: CanaryWatch) -> Capture:
    """Open the best change stream a store's audit login allows.

    Parameters
    ----------
    store : Store
        One with an audit login.
    watch : CanaryWatch
        Searches what is read.

    Returns
    -------
    Capture
        Open; where the log cannot be read, counters whose ``not_checked`` says why.

    Raises
    ------
    ShadowError
        If nothing can be read at all.
    """
    assert store.audit is not None
    url = store.audit.read()
    if store.kind == "redis":
        return _opened(_redis(store, url, watch))
    is_shadow = shadow_tables(store)
    production, shadow = place(store.production), place(store.shadow.read())
    fallback: PostgresCounters | MariadbCounters
    if store.kind == "postgresql":
        log: Capture = WalCapture(url, watch.row, is_shadow=is_shadow)
        fallback = PostgresCounters(url, shadow.user)
    else:
        log = BinlogCapture(url, production.database, watch.row, is_shadow)
        fallback = MariadbCounters(url, production.database, shadow.user)
    try:
        return _opened(log)
    except ShadowError as error:
        counters = CounterCapture(fallback, watch.row, is_shadow)
        try:
            counters.open()
        except ShadowError:
            raise error from None
        counters.not_checked.insert(0, f"production's changes, one by one: {error}")
        return counters


def shadow_tables(store: Store) -> Callable[[str], bool]:
    """Return what tells whether a table, ``schema.table``, is the shadow's where both share a server."""
    if store.mode == "schema":
        return lambda table: table.partition(".")[0] == store.within
    if store.mode == "table":
        return lambda table: table.partition(".")[2].startswith(store.within)
    if store.kind == "mariadb":
        production, shadow = place(store.production), place(store.shadow.read())
        if shadow.same_server(production) and shadow.database != production.database:
            return lambda table: table.partition(".")[0] == shadow.database
    return lambda _: False


def shadow_login(store: Store) -> tuple[str, str]:
    """Return user and database of the shadow's login."""
    url = urlsplit(store.shadow.read())
    return unquote(url.username or ""), unquote(url.path.lstrip("/"))


def _opened(capture: Capture) -> Capture:
    capture.open()
    return capture


def _redis(store: Store, url: str, watch: CanaryWatch) -> ReplicaStream:
    def search(write: Write, words: tuple[bytes, ...], time_ns: int, of_production: bool) -> None:
        if of_production:
            watch.command(write, words, time_ns)

    primary = with_login(store.production, url) if "@" in url else store.production
    return ReplicaStream(url, primary, store.prefix, search, watch.needle)
