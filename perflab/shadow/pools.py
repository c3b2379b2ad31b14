"""Connection pools: each known pool gets a twin for marked work, and the two never exchange a connection.

Marked work that checks out from a pool checks out from its twin instead; a connection is returned to the
pool it came from. The twin is made when first needed, with the same settings and the shadow's login. A
pool's own threads and tasks belong to no request, whoever's request started them: an ordinary pool's
upkeep is ordinary, a twin's is marked.
"""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope, sql

_SETTINGS = (
    "connection_class", "max_size", "timeout", "max_waiting", "max_lifetime", "max_idle",
    "reconnect_timeout", "num_workers", "close_returns",
)  # fmt: skip
_lock = threading.RLock()
_twins: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_are_twins: weakref.WeakSet[Any] = weakref.WeakSet()


def twin_of(pool: Any, make: Callable[[], Any]) -> Any:
    """Return the twin of a pool, made once by ``make`` in a context that belongs to no request."""
    if is_twin(pool):
        return pool
    twin = _twins.get(pool)
    if twin is None:
        with _lock:
            twin = _twins.get(pool)
            if twin is None:
                twin = scope.ordinary(make)
                _are_twins.add(twin)
                _twins[pool] = twin
    return twin


def is_twin(pool: Any) -> bool:
    """Tell whether a pool is a twin."""
    return pool is not None and pool in _are_twins


def hook_sqlalchemy(module: Any) -> None:
    """Twin every SQLAlchemy pool; ``module`` is ``sqlalchemy.pool.base``."""
    import sqlalchemy.pool.impl as pools

    classes: tuple[Any, ...] = (module.Pool, pools.SingletonThreadPool)
    for pool_class in classes:
        pool_class.connect = _routed(pool_class.connect)


def _routed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(pool: Any) -> Any:
        if scope.current() is None:
            return connect(pool)
        checked_out = connect(twin_of(pool, pool.recreate))
        session = sql.session_of(checked_out.driver_connection)
        if session is None or not session.shadow:
            driver = type(checked_out.driver_connection).__module__.split(".")[0]
            checked_out.invalidate()
            scope.refuse(f"sqlalchemy, {driver}", "this driver's connections are not known to be shadows")
        return checked_out

    return attached


def hook_psycopg_pool(module: Any) -> None:
    """Twin every ``psycopg_pool`` pool, sync and async."""
    from psycopg_pool import pool, pool_async

    for name in ("ConnectionPool", "NullConnectionPool"):
        _hook_pool(getattr(module, name))
    for name in ("AsyncConnectionPool", "AsyncNullConnectionPool"):
        _hook_async_pool(getattr(module, name))
    _hook_upkeep(pool.MaintenanceTask)
    _hook_async_upkeep(pool_async.MaintenanceTask)


def _hook_pool(pool_class: Any) -> None:
    if "getconn" in pool_class.__dict__:
        getconn, putconn, close = pool_class.getconn, pool_class.putconn, pool_class.close

        @functools.wraps(getconn)
        def attached_get(pool: Any, timeout: float | None = None) -> Any:
            twin = _checkout_from(pool)
            if twin is not pool and twin.closed:
                scope.ordinary(twin.open)
            return getconn(twin, timeout)

        @functools.wraps(putconn)
        def attached_put(pool: Any, connection: Any) -> None:
            putconn(_owner(pool, connection), connection)

        @functools.wraps(close)
        def attached_close(pool: Any, timeout: float = 5.0) -> None:
            twin = _twins.pop(pool, None)
            if twin is not None:
                close(twin, timeout)
            close(pool, timeout)

        pool_class.getconn, pool_class.putconn, pool_class.close = attached_get, attached_put, attached_close


def _hook_async_pool(pool_class: Any) -> None:
    if "getconn" in pool_class.__dict__:
        getconn, putconn, close = pool_class.getconn, pool_class.putconn, pool_class.close

        @functools.wraps(getconn)
        async def attached_get(pool: Any, timeout: float | None = None) -> Any:
            twin = _checkout_from(pool)
            if twin is not pool and twin.closed:
                await twin.open()
            return await getconn(twin, timeout)

        @functools.wraps(putconn)
        async def attached_put(pool: Any, connection: Any) -> None:
            await putconn(_owner(pool, connection), connection)

        @functools.wraps(close)
        async def attached_close(pool: Any, timeout: float = 5.0) -> None:
            twin = _twins.pop(pool, None)
            if twin is not None:
                await close(twin, timeout)
            await close(pool, timeout)

        pool_class.getconn, pool_class.putconn, pool_class.close = attached_get, attached_put, attached_close


def _checkout_from(pool: Any) -> Any:
    """Return the pool the running code gets its connection from."""
    shadow = scope.current()
    if shadow is None or pool.closed:  # a closed pool says so itself
        return pool
    scope.require_live(shadow, f"pool {pool.name}")
    return twin_of(pool, functools.partial(_make_twin, pool, shadow))


def _owner(pool: Any, connection: Any) -> Any:
    """Return the pool a connection came from, where that is this pool or its twin."""
    owner = getattr(connection, "_pool", None)
    return owner if owner is not None and owner is _twins.get(pool) else pool


def _make_twin(pool: Any, shadow: scope.Shadow) -> Any:
    """Make a pool with the settings of ``pool`` whose connections reach the shadow.

    Raises
    ------
    ShadowError
        If the pool's database is not a known one, or a pool of its class cannot be made.
    """
    import psycopg

    conninfo, options = (value() if callable(value) else value for value in (pool.conninfo, pool.kwargs))
    if inspect.isawaitable(conninfo) or inspect.isawaitable(options):
        scope.refuse(f"pool {pool.name}", "a pool whose conninfo is a coroutine is not covered", shadow)
    conninfo, options, _ = sql.reach_shadow(psycopg, conninfo or "", dict(options or {}), shadow)
    settings = {name: getattr(pool, name) for name in _SETTINGS if hasattr(pool, name)}
    try:
        return type(pool)(
            conninfo,
            kwargs=options,
            min_size=0,
            open=False,
            configure=pool._configure,
            check=pool._check,
            reset=pool._reset,
            name=f"{pool.name}-shadow",
            **settings,
        )
    except TypeError as error:
        scope.refuse(f"pool {pool.name}", f"no twin of a {type(pool).__qualname__}: {error}", shadow)


def _hook_upkeep(task_class: Any) -> None:
    run = task_class.run

    @functools.wraps(run)
    def attached(task: Any) -> None:
        token = scope.enter(scope.IDLE if is_twin(task.pool()) else None)
        try:
            run(task)
        finally:
            scope.leave(token)

    task_class.run = attached


def _hook_async_upkeep(task_class: Any) -> None:
    run = task_class.run

    @functools.wraps(run)
    async def attached(task: Any) -> None:
        token = scope.enter(scope.IDLE if is_twin(task.pool()) else None)
        try:
            await run(task)
        finally:
            scope.leave(token)

    task_class.run = attached
