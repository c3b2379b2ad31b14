"""Connection pools: each known pool gets a twin for marked work, and the two never exchange a connection.

Marked work that checks out from a pool checks out from its twin instead; a connection is returned to the
pool it came from. The twin is made when first needed, with the same settings and the shadow's login. A
pool's own threads and tasks belong to no request, whoever's request started them: an ordinary pool's
upkeep is ordinary, a twin's is marked.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from perflab.shadow import handoff, scope
from perflab.shadow.sql import psycopg3
from perflab.shadow.sql.internals import require
from perflab.shadow.sql.session import Session, session_of

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


def known_twin(pool: Any) -> Any:
    """Return the twin of a pool, None where none was needed yet."""
    return _twins.get(pool)


def forget_twin(pool: Any) -> Any:
    """Return the twin of a pool that is closed for good, None where none was needed."""
    return _twins.pop(pool, None)


@contextlib.contextmanager
def on_side(*, twin: bool) -> Iterator[None]:
    """Be on a pool's side: on a twin's, the marked work that is running, or upkeep; else ordinary."""
    token = scope.enter((scope.current() or scope.IDLE) if twin else None)
    try:
        yield
    finally:
        scope.leave(token)


def hook_sqlalchemy(module: Any) -> None:
    """Twin every SQLAlchemy pool; ``module`` is ``sqlalchemy.pool.base``.

    Raises
    ------
    ShadowError
        If this SQLAlchemy has not what the hook stands on.
    """
    import sqlalchemy
    import sqlalchemy.pool.impl as pools
    from sqlalchemy.util.queue import AsyncAdaptedQueue

    require(
        "sqlalchemy",
        str(vars(sqlalchemy).get("__version__", "")),
        {
            module: "PoolProxiedConnection _finalize_fairy",
            module._ConnectionFairy: "_checkout driver_connection invalidate detach",
            module.Pool: "connect recreate dispose _dialect _should_wrap_creator",
            pools: "AsyncAdaptedQueuePool AssertionPool NullPool QueuePool SingletonThreadPool StaticPool",
            pools.SingletonThreadPool: "connect",
            AsyncAdaptedQueue: "_queue",
        },
    )
    classes: tuple[Any, ...] = (module.Pool, pools.SingletonThreadPool)
    for pool_class in classes:
        pool_class.connect = _routed(pool_class.connect)
    for name in ("AssertionPool", "NullPool", "QueuePool", "SingletonThreadPool", "StaticPool"):
        pool_class = getattr(pools, name)
        pool_class.dispose = _disposed(pool_class.dispose)
    module._finalize_fairy = _returned(module._finalize_fairy)
    _hook_queue(AsyncAdaptedQueue)


def _hook_queue(adapted: Any) -> None:
    """Let an async pool's queue of connections hand on no marks: taking one makes nobody another."""
    from sqlalchemy.util import memoized_property

    make = adapted.__dict__["_queue"].fget

    def _queue(queue: Any) -> Any:
        made = make(queue)
        handoff.leave_alone(made)
        return made

    adapted._queue = memoized_property(_queue)


def _routed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(pool: Any) -> Any:
        shadow = scope.current()
        if shadow is None:
            return connect(pool)
        scope.require_live(shadow, "sqlalchemy pool")
        if pool not in _twins and not is_twin(pool):
            _introduce(pool, connect)
        checked_out = connect(twin_of(pool, pool.recreate))
        driver_connection = checked_out.driver_connection
        known = session_of(driver_connection)
        if known is None:
            checked_out.invalidate()
        elif not known.shadow:
            checked_out.detach()  # it is somebody else's, who goes on with it
        _require_shadow(known, driver_connection)
        if known is not None:
            known.instead = None  # it stays the twin's
        return checked_out

    return attached


def _introduce(pool: Any, connect: Callable[..., Any]) -> None:
    """Have a pool that was never used connect to production before its twin connects to the shadow.

    A dialect learns from an engine's first connection what it keeps for all: the server's version, the
    numbers of types. Real users must not get what is true of the shadow. Whether marked work may connect at
    all is asked first, with a connection that is closed again.
    """
    dialect = pool._dialect
    if getattr(dialect, "server_version_info", "") is not None:
        return
    tried = pool._invoke_creator(None)
    driver_connection = dialect.get_driver_connection(tried)
    known = session_of(driver_connection)
    if known is None or known.shadow:
        dialect.do_close(tried)
    _require_shadow(known, driver_connection)
    with on_side(twin=False):
        connect(pool).close()


def _require_shadow(known: Session | None, driver_connection: Any) -> None:
    """Refuse a connection that is not known to be a shadow.

    Raises
    ------
    ShadowError
        If it is not.
    """
    if known is None or not known.shadow:
        driver = type(driver_connection).__module__.split(".")[0]
        scope.refuse(f"sqlalchemy, {driver}", "this driver's connections are not known to be shadows")


def _disposed(dispose: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(dispose)
    def attached(pool: Any) -> None:
        with on_side(twin=is_twin(pool)):
            dispose(pool)
        twin = _twins.get(pool)
        if twin is not None:
            try:
                with on_side(twin=True):
                    twin.dispose()
            except Exception:  # whatever it is, the service's own pool is disposed of
                scope.process.ledger.step_aside("sql: a twin of a SQLAlchemy pool could not be disposed of")

    return attached


def _returned(finalize: Callable[..., Any]) -> Callable[..., Any]:
    """Let a connection return to its pool in any context; one nobody returned belongs to no request."""

    @functools.wraps(finalize)
    def attached(connection: Any, record: Any, pool: Any, *arguments: Any, **options: Any) -> Any:
        if connection is None:  # so calls the garbage collector
            return scope.ordinary(lambda: collected(record, pool, *arguments, **options))
        token = scope.enter(scope.IDLE if is_twin(pool) else scope.current())
        try:
            return finalize(connection, record, pool, *arguments, **options)
        finally:
            scope.leave(token)

    def collected(record: Any, pool: Any, *arguments: Any, **options: Any) -> Any:
        with on_side(twin=is_twin(pool)):
            return finalize(None, record, pool, *arguments, **options)

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
            if scope.current() is None:
                return getconn(pool, timeout)
            twin = _checkout_from(pool)
            if twin is not pool and twin.closed:
                scope.ordinary(twin.open)
            return getconn(twin, timeout)

        @functools.wraps(putconn)
        def attached_put(pool: Any, connection: Any) -> None:
            owner = getattr(connection, "_pool", None)
            putconn(pool if owner is pool else _owner(pool, connection), connection)

        @functools.wraps(close)
        def attached_close(pool: Any, timeout: float = 5.0) -> None:
            twin = forget_twin(pool)
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
            twin = forget_twin(pool)
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
    conninfo, options, _ = psycopg3.reach_shadow(psycopg, conninfo or "", dict(options or {}), shadow)
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
