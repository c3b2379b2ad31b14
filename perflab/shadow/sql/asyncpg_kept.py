"""A shadow connection of asyncpg that ordinary work found: the same object goes on with another protocol.

To open takes time, so it is done before a statement, a COPY or a transaction begins, where it can be awaited.
Listeners, loggers and settings of the connection object are its own and stay; statements it prepared for
itself are prepared again.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import session
from perflab.shadow.sql.session import session_of

_OF_THE_SESSION = (
    "_protocol", "_transport", "_addr", "_params", "_config", "_server_version", "_server_caps",
    "_intro_query", "_reset_query", "_top_xact", "_aborted", "_stmts_to_close", "_stmt_exclusive_section",
)  # fmt: skip


def offer(connection: Any, instead: Callable[..., Any]) -> None:
    """Let ordinary work that finds a new shadow connection take it over with what ``instead`` opens."""
    known = session_of(connection._protocol)
    if known is not None:
        known.instead = instead
        connection._protocol._perflab_connection = weakref.ref(connection)


def hook(transaction_class: Any) -> None:
    """Have a transaction that ordinary work begins begin on a connection of its own side."""
    start = transaction_class.start

    @functools.wraps(start)
    def attached(transaction: Any) -> Any:
        connection = getattr(transaction._connection, "_con", transaction._connection)
        if connection is None or not _is_found(connection._protocol):
            return start(transaction)
        return attached_taken(transaction, connection)

    async def attached_taken(transaction: Any, connection: Any) -> Any:
        await take_over(connection._protocol)
        return await start(transaction)

    transaction_class.start = attached


async def take_over(protocol: Any) -> Any:
    """Return the protocol ordinary work goes on with: another one if it found a shadow's.

    Raises
    ------
    BaseException
        The driver's, where the connection is lost, or production cannot be reached.
    """
    if not _is_found(protocol):
        return protocol
    known = session_of(protocol)
    connection: Any = getattr(protocol, "_perflab_connection", lambda: None)()
    opened: Any = None
    if known is not None and known.instead is not None and connection is not None and protocol.is_connected():
        opened = await known.instead()
    if connection is not None and connection._protocol is not protocol:  # another task was here first
        if opened is not None:
            opened.terminate()
        return connection._protocol
    session.admit(
        known,
        "postgresql",
        lambda: lose(protocol),
        lambda _: opened is not None and _go_on(connection, opened),
    )
    return connection._protocol if opened is not None else protocol


def lose(protocol: Any) -> BaseException | None:
    """Close a connection at once and return the driver's error of a lost one; None if it was closed."""
    if not protocol.is_connected():
        return None
    protocol.abort()
    from asyncpg.exceptions import ConnectionDoesNotExistError

    lost: BaseException = ConnectionDoesNotExistError(session.LOST)
    return lost


def _is_found(protocol: Any) -> bool:
    """Tell whether ordinary work found a shadow's protocol."""
    known = session_of(protocol)
    return known is not None and known.shadow and scope.current() is None


def _go_on(connection: Any, opened: Any) -> bool:
    before, here = connection._protocol, session_of(opened._protocol)
    connection._stmt_cache.clear()
    for name in _OF_THE_SESSION:
        setattr(connection, name, getattr(opened, name))
    connection._protocol.set_connection(connection)
    if here is not None:
        session.keep(connection, here)
    before.set_connection(opened)
    opened._protocol, opened._aborted = before, True
    before.abort()
    return True
