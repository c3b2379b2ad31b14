"""A shadow connection of psycopg 3 that ordinary work found: the same object goes on with another session.

What a connection object is set to (autocommit, adapters, factories, handlers) is its own and stays; what
belongs to the session (``pgconn``, what was prepared, the blocks that are open) comes from a connection that
was opened as its service had asked. Cursors made before follow when they send.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow.sql import session
from perflab.shadow.sql.session import Session
from perflab.shadow.stores import Place

_OF_THE_SESSION = (
    "pgconn", "_prepared", "_tpc", "_num_transactions", "_notifies_backlog", "_closed"
)  # fmt: skip


def hook(module: Any) -> None:
    """Have blocks and pipelines, which remember a session when they are made, use their connection's."""
    for block in (module.Transaction, module.Pipeline):
        block.__mro__[1].pgconn = property(_pgconn, _leave)


def _pgconn(block: Any) -> Any:
    return block._conn.pgconn


def _leave(_block: Any, _pgconn: Any) -> None:
    """Set nothing: it is the connection's."""


def may_be(connection: Any, instead: Callable[..., Any]) -> bool:
    """Tell whether ordinary work may take a shadow connection over.

    Not a pool's, not one its service closed, none whose pipeline is open, and none that learned types from
    the shadow, whose numbers are others in production.
    """
    import psycopg

    pooled = getattr(connection, "_pool", None) is not None
    if pooled or connection._closed or connection.pgconn.pipeline_status:
        return False
    given = instead.keywords if isinstance(instead, functools.partial) else {}
    types = (given.get("context") or psycopg).adapters.types
    return {one.oid for one in connection.adapters.types} <= {one.oid for one in types}


async def opened(connection: Any, known: Session | None) -> Any:
    """Open what an asynchronous connection's service had asked for; None where it may not be taken over."""
    instead = known.instead if known is not None else None
    return await instead() if instead is not None and may_be(connection, instead) else None


def go_on(connection: Any, opened: Any) -> bool:
    """Have a shadow connection go on as one that was opened instead; the shadow's session is closed."""
    opened.prepare_threshold = connection.prepare_threshold
    opened.prepared_max = connection.prepared_max
    before, now = connection.pgconn, opened.pgconn
    now.notice_handler, now.notify_handler = before.notice_handler, before.notify_handler
    vars(connection).update({name: vars(opened)[name] for name in _OF_THE_SESSION})
    vars(opened).update(pgconn=before, _closed=True)
    before.finish()
    session.keep_ordinary(connection, "postgresql", lambda: where(connection))
    return True


def follow(cursor: Any) -> None:
    """Have a cursor that is about to send use its connection's session, another one than when it was made."""
    if cursor._pgconn is not cursor._conn.pgconn:
        cursor._pgconn = cursor._conn.pgconn


def where(connection: Any) -> Place:
    """Return where a connection leads."""
    info = connection.info
    return Place(info.host, info.port, info.dbname, info.user)
