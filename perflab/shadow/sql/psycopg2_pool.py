"""psycopg 2's own pools: each has a twin for marked work (`perflab.shadow.sql.pools`).

These pools hand connections out by key, and connect when they are made; a twin connects when it is asked.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import pools
from perflab.shadow.sql.internals import require
from perflab.shadow.sql.session import session_of, upkeep


def hook_psycopg2_pool(module: Any) -> None:
    """Twin every pool of ``psycopg2.pool``.

    Raises
    ------
    ShadowError
        If this psycopg2 has not what the hook stands on.
    """
    require(
        "psycopg2.pool",
        str(sys.modules["psycopg2"].__version__),
        {
            module: "AbstractConnectionPool SimpleConnectionPool ThreadedConnectionPool",
            module.AbstractConnectionPool: "_connect _getconn _putconn _closeall",
            module.SimpleConnectionPool: "getconn putconn closeall",
        },
    )
    pool = module.AbstractConnectionPool
    pool._connect = _connect(pool._connect)
    replaced = {
        pool._getconn: _get(pool._getconn),
        pool._putconn: _put(pool._putconn),
        pool._closeall: _close_all(pool._closeall),
    }
    for pool_class in (pool, module.SimpleConnectionPool):  # whose public names are other names of these
        for name, value in list(vars(pool_class).items()):
            if callable(value) and value in replaced:
                setattr(pool_class, name, replaced[value])


def _connect(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Have an ordinary pool connect as ordinary work, even one that is made while marked work is served."""

    @functools.wraps(connect)
    def attached(pool: Any, *arguments: Any, **options: Any) -> Any:
        twin = pools.is_twin(pool)
        with pools.on_side(twin=twin):
            made = connect(pool, *arguments, **options)
        known = session_of(made)
        if twin and known is not None:
            known.instead = None  # it stays the twin's
        return made

    return attached


def _get(get: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get)
    def attached(pool: Any, key: Any = None) -> Any:
        shadow = scope.current()
        if shadow is None or pool.closed:  # a closed pool says so itself
            return get(pool, key)
        scope.require_live(shadow, "pool of psycopg2")
        return get(pools.twin_of(pool, functools.partial(_make_twin, pool, shadow)), key)

    return attached


def _put(put: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(put)
    def attached(pool: Any, conn: Any, key: Any = None, close: Any = False) -> None:
        twin = pools.known_twin(pool)
        if twin is None or id(conn) not in twin._rused:
            put(pool, conn, key, close)
            return
        with upkeep(session_of(conn)):  # it may have to be rolled back
            put(twin, conn, key, close)

    return attached


def _close_all(close_all: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(close_all)
    def attached(pool: Any) -> None:
        twin = pools.forget_twin(pool)
        if twin is not None and not twin.closed:
            close_all(twin)
        close_all(pool)

    return attached


def _make_twin(pool: Any, shadow: scope.Shadow) -> Any:
    """Make a pool with the settings of ``pool`` that has not connected yet.

    Raises
    ------
    ShadowError
        If a pool of its class cannot be made.
    """
    try:
        twin = type(pool)(0, pool.maxconn, *pool._args, **pool._kwargs)
    except TypeError as error:
        scope.refuse("pool of psycopg2", f"no twin of a {type(pool).__qualname__}: {error}", shadow)
    twin.minconn = pool.minconn  # as many as are kept
    return twin
