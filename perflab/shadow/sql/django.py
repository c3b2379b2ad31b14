"""Django's ORM: marked work has connection objects of its own, next to those of ordinary work.

``django.db.connections`` keeps one connection object per database and thread, over many requests; where it
leads was decided by whoever came first. So it keeps two: the same code finds the one of its side, with that
side's transaction, savepoints, callbacks and age. ``django.core.cache.caches`` is kept the same way. A
connection object that was put aside and is used by the other side leads to its counterpart.

Where a new connection goes, whether a statement may be sent and what is claimed is decided below, by the
driver's hook: migrations, routers, ``atomic``, ``on_commit``, raw cursors and pools need nothing here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.scope import process
from perflab.shadow.twosided import split

_ROUTED = (
    "_cursor", "clean_savepoints", "close", "close_if_unusable_or_obsolete", "commit", "connect",
    "ensure_connection", "get_autocommit", "get_rollback", "on_commit", "rollback",
    "run_and_clear_commit_hooks", "savepoint", "savepoint_commit", "savepoint_rollback", "set_autocommit",
    "set_rollback", "validate_no_atomic_block", "validate_no_broken_transaction",
)  # fmt: skip
"""What a connection object sends, and what it keeps of its transaction."""


def hook_connections(module: Any) -> None:
    """Keep two stores of connection objects; ``module`` is ``django.utils.connection``.

    Raises
    ------
    TypeError
        If this Django keeps them elsewhere.
    """
    handler = module.BaseConnectionHandler
    if not isinstance(vars(handler({})).get("_connections"), module.Local):
        raise TypeError("BaseConnectionHandler keeps its connections in a place that is not known")
    split(handler, "_connections", lambda owner, _: module.Local(owner.thread_critical))


def hook_wrappers(module: Any) -> None:
    """Know each connection object's side; ``module`` is ``django.db.backends.base.base``."""
    wrapper = module.BaseDatabaseWrapper
    initialise = wrapper.__init__

    @functools.wraps(initialise)
    def attached(connection: Any, *arguments: Any, **options: Any) -> None:
        connection._perflab_marked = scope.current() is not None
        initialise(connection, *arguments, **options)

    wrapper.__init__ = attached
    for name in _ROUTED:
        setattr(wrapper, name, _routed(wrapper.__dict__[name]))


def _routed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that works on the connection object of the running side."""

    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        marked = scope.current() is not None
        if marked is connection.__dict__.get("_perflab_marked", False):
            return method(connection, *arguments, **options)
        counterpart = _counterpart(connection)
        if counterpart is None:
            if marked:
                scope.refuse(
                    f"django, {connection.alias}",
                    "this connection object was made for ordinary work, outside django.db.connections",
                )
            return method(connection, *arguments, **options)  # its driver knows what to do
        if not marked:
            process.ledger.step_aside("django: ordinary work found a connection object of marked work")
        return getattr(counterpart, method.__name__)(*arguments, **options)

    return attached


def _counterpart(connection: Any) -> Any:
    """Return the running side's object of the same database, None for one not made by Django's handler."""
    from django.db import connections

    alias = connection.alias
    if connections.settings.get(alias) is not connection.settings_dict:
        return None
    found = connections[alias]
    return None if found is connection else found
