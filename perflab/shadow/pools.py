"""Connection pools: each known pool gets a twin for marked work, and the two never exchange a connection.

Marked work that checks out from a pool checks out from its twin instead; a connection is returned to the
pool it came from. The twin is made when first needed, with the same settings and the shadow's login; its
own threads and callbacks belong to no request.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope, sql

_lock = threading.RLock()
_twins: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def twin_of(pool: Any, make: Callable[[], Any]) -> Any:
    """Return the twin of a pool, made once by ``make`` in a context that belongs to no request."""
    twin = _twins.get(pool)
    if twin is None:
        with _lock:
            twin = _twins.get(pool)
            if twin is None:
                twin = _twins[pool] = scope.ordinary(make)
                _twins[twin] = twin
    return twin


def known_twin(pool: Any) -> Any:
    """Return the twin of a pool, the pool itself if it is one, or None."""
    return _twins.get(pool)


def hook_sqlalchemy(module: Any) -> None:
    """Twin every SQLAlchemy pool; whatever driver it holds, marked work never sees its connections."""
    pool_class = module.Pool
    connect = pool_class.connect

    @functools.wraps(connect)
    def attached(pool: Any) -> Any:
        if scope.current() is None:
            return connect(pool)
        return connect(twin_of(pool, pool.recreate))

    pool_class.connect = attached


def hook_psycopg_pool(module: Any) -> None:
    """Twin every ``psycopg_pool`` pool, sync and async."""
    for name in ("ConnectionPool", "NullConnectionPool"):
        _hook_pool(getattr(module, name))
    for name in ("AsyncConnectionPool", "AsyncNullConnectionPool"):
        _hook_async_pool(getattr(module, name))


def _hook_pool(pool_class: Any) -> None:
    if "getconn" in pool_class.__dict__:
        getconn, putconn, close = pool_class.getconn, pool_class.putconn, pool_class.close

        @functools.wraps(getconn)
        def attached_get(pool: Any, timeout: float | None = None) -> Any:
            if scope.current() is None:
                return getconn(pool, timeout)
            twin = twin_of(pool, functools.partial(_make_twin, pool, scope.current()))
            if twin is not pool and twin.closed:
                scope.ordinary(twin.open)
            return getconn(twin, timeout)

        @functools.wraps(putconn)
        def attached_put(pool: Any, connection: Any) -> None:
            putconn(_owner(pool, connection), connection)

        @functools.wraps(close)
        def attached_close(pool: Any, timeout: float = 5.0) -> None:
            twin = _twins.pop(pool, None)
            if twin is not None and twin is not pool:
                close(twin, timeout)
            close(pool, timeout)

        pool_class.getconn, pool_class.putconn, pool_class.close = attached_get, attached_put, attached_close


def _hook_async_pool(pool_class: Any) -> None:
    if "getconn" in pool_class.__dict__:
        getconn, putconn, close = pool_class.getconn, pool_class.putconn, pool_class.close

        @functools.wraps(getconn)
        async def attached_get(pool: Any, timeout: float | None = None) -> Any:
            if scope.current() is None:
                return await getconn(pool, timeout)
            twin = twin_of(pool, functools.partial(_make_twin, pool, scope.current()))
            if twin is not pool and twin.closed:
                token = scope.enter(scope.IDLE)
                try:
                    await twin.open()
                finally:
                    scope.leave(token)
            return await getconn(twin, timeout)

        @functools.wraps(putconn)
        async def attached_put(pool: Any, connection: Any) -> None:
            await putconn(_owner(pool, connection), connection)

        @functools.wraps(close)
        async def attached_close(pool: Any, timeout: float = 5.0) -> None:
            twin = _twins.pop(pool, None)
            if twin is not None and twin is not pool:
                await close(twin, timeout)
            await close(pool, timeout)

        pool_class.getconn, pool_class.putconn, pool_class.close = attached_get, attached_put, attached_close


def _owner(pool: Any, connection: Any) -> Any:
    """Return the pool a connection came from, where that is this pool or its twin."""
    owner = getattr(connection, "_pool", None)
    return owner if owner is not None and owner is _twins.get(pool) else pool


def _make_twin(pool: Any, shadow: scope.Shadow | None) -> Any:
    """Make a pool with the settings of ``pool`` whose connections reach the shadow.

    Raises
    ------
    ShadowError
        If the pool's database is not a known one.
    """
    import psycopg

    conninfo, options = pool.conninfo, pool.kwargs
    conninfo = conninfo() if callable(conninfo) else conninfo or ""
    options = dict(options() if callable(options) else options or {})
    conninfo, options = sql.reach_shadow(psycopg, conninfo, options, shadow or scope.IDLE)
    return type(pool)(
        conninfo,
        connection_class=pool.connection_class,
        kwargs=options,
        min_size=0,
        max_size=pool.max_size,
        open=False,
        configure=_idle(pool._configure),
        check=pool._check,
        reset=_idle(pool._reset),
        timeout=pool.timeout,
        max_waiting=pool.max_waiting,
        max_lifetime=pool.max_lifetime,
        max_idle=pool.max_idle,
        name=f"{pool.name}-shadow",
    )


def _idle(callback: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if callback is None:
        return None

    @functools.wraps(callback)
    def attached(connection: Any) -> Any:
        token = scope.enter(scope.IDLE)
        try:
            return callback(connection)
        finally:
            scope.leave(token)

    return attached
