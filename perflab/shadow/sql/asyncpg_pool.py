"""asyncpg's pool: it gets a twin for marked work, and the two never exchange a connection.

Made when marked work first acquires from a pool, with its settings and callbacks, and no connection opened
ahead. A pool has no room for more and cannot be referred to weakly, so its queue keeps the twin: they are
one to one, and go together. What a pool does by itself, and its callbacks, is done on its own side, in
whichever context it happens.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.scope import process
from perflab.shadow.sql import session
from perflab.shadow.sql.pools import on_side
from perflab.shadow.sql.session import session_of


def hook(module: Any) -> None:
    """Twin every pool; ``module`` is ``asyncpg.pool``."""
    pool_class = module.Pool
    _hook_acquire(pool_class)
    _hook_release(pool_class)
    _hook_ends(pool_class)
    for owner, name in (
        (pool_class, "_async__init__"),
        (pool_class, "_get_new_connection"),
    ):
        setattr(owner, name, _on_its_side(getattr(owner, name)))
    holder_class = module.PoolConnectionHolder
    deactivate = holder_class._deactivate_inactive_connection

    @functools.wraps(deactivate)
    def attached(holder: Any) -> None:
        with on_side(twin=is_twin(holder._pool)):
            deactivate(holder)

    holder_class._deactivate_inactive_connection = attached


class ShadowConnect:
    """How a twin opens its connections: as its pool does, and it takes none that is no shadow."""

    def __init__(self, connect: Callable[..., Awaitable[Any]]) -> None:
        self.connect = connect

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Open a connection.

        Raises
        ------
        ShadowError
            If the pool's own ``connect`` returns one of production.
        """
        connection = await self.connect(*arguments, **options)
        known = session_of(connection)
        if known is None or not known.shadow:
            scope.refuse("postgresql", "the pool's connect returned a connection that is no shadow")
        known.instead = None  # it stays the twin's
        return connection


def is_twin(pool: Any) -> bool:
    """Tell whether a pool is a twin."""
    return isinstance(pool._connect, ShadowConnect)


def _twin(pool: Any) -> Any:
    """Return a pool's twin; None if it has none (yet)."""
    return getattr(pool._queue, "_perflab_twin", None)


def _on_its_side(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def attached(pool: Any) -> Any:
        with on_side(twin=is_twin(pool)):
            return await method(pool)

    return attached


def _hook_acquire(pool_class: Any) -> None:
    acquire = pool_class._acquire

    @functools.wraps(acquire)
    def attached(pool: Any, timeout: float | None) -> Any:
        shadow = scope.current()
        if shadow is None or is_twin(pool) or not pool._initialized or pool.is_closing():
            return acquire(pool, timeout)  # one that is closed says so itself
        return acquire_shadow(pool, timeout, shadow)

    async def acquire_shadow(pool: Any, timeout: float | None, shadow: scope.Shadow) -> Any:
        scope.require_live(shadow, "asyncpg pool")
        twin = _twin(pool)
        if twin is None:
            twin = pool._queue._perflab_twin = _make_twin(pool, shadow)
            await twin._async__init__()  # opens nothing, and so does not wait
        twin._connect_args, twin._connect_kwargs = pool._connect_args, pool._connect_kwargs
        return await acquire(twin, timeout)

    pool_class._acquire = attached


def _make_twin(pool: Any, shadow: scope.Shadow) -> Any:
    """Make a pool with the settings of another.

    Raises
    ------
    ShadowError
        If a pool of its class cannot be made this way.
    """
    try:
        return type(pool)(
            *pool._connect_args,
            min_size=0,
            max_size=pool._maxsize,
            max_queries=pool._max_queries,
            max_inactive_connection_lifetime=pool._max_inactive_connection_lifetime,
            connect=ShadowConnect(pool._connect),
            setup=pool._setup,
            init=pool._init,
            reset=pool._reset,
            loop=pool._loop,
            connection_class=pool._connection_class,
            record_class=pool._record_class,
            **pool._connect_kwargs,
        )
    except TypeError as error:
        scope.refuse("asyncpg pool", f"no twin of a {type(pool).__qualname__}: {error}", shadow)


def _hook_release(pool_class: Any) -> None:
    release = pool_class.release

    @functools.wraps(release)
    async def attached(pool: Any, connection: Any, *, timeout: float | None = None) -> Any:
        owner = getattr(getattr(connection, "_holder", None), "_pool", None)
        if owner is not None and (owner is pool or owner is _twin(pool)):
            if is_twin(owner):  # tidying up is always allowed, and may happen where the mark is lost
                token = scope.enter(scope.IDLE)
                try:
                    return await release(owner, connection, timeout=timeout)
                finally:
                    scope.leave(token)
            if scope.current() is not None and connection._con is not None:
                session.admit(session_of(connection._con), "postgresql", lambda: None)
        return await release(pool, connection, timeout=timeout)

    pool_class.release = attached


def _hook_ends(pool_class: Any) -> None:
    close, terminate, expire = pool_class.close, pool_class.terminate, pool_class.expire_connections

    @functools.wraps(close)
    async def attached_close(pool: Any) -> None:
        twin = _twin(pool)
        try:
            with on_side(twin=is_twin(pool)):
                await close(pool)
        finally:
            if twin is not None:
                await close_twin(twin)

    async def close_twin(twin: Any) -> None:
        token = scope.enter(scope.IDLE)
        try:
            await close(twin)
        except Exception:  # whatever it is, the service's own pool is closed
            process.ledger.step_aside("sql: a twin of an asyncpg pool could not be closed")
        finally:
            scope.leave(token)

    @functools.wraps(terminate)
    def attached_terminate(pool: Any) -> None:
        for one in (pool, _twin(pool)):
            if one is not None:
                with on_side(twin=is_twin(one)):
                    terminate(one)

    @functools.wraps(expire)
    async def attached_expire(pool: Any) -> None:
        await expire(pool)
        twin = _twin(pool)
        if twin is not None:
            await expire(twin)

    pool_class.close, pool_class.terminate = attached_close, attached_terminate
    pool_class.expire_connections = attached_expire
