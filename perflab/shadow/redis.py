"""Redis through redis-py: marked work gets the shadow's ACL user and prefixed keys, or is refused.

Like pools of databases, each connection pool has a twin for marked work. A twin's connections log in as
the shadow's user and pass every command through `perflab.shadow.rediskeys`, at the one place where bytes
are made. A connection that was opened for production is refused to marked work before anything is sent.

A list push of marked work carries the trace headers in an envelope; the pop of a *shadow consumer* takes
them out again and works on the message as marked work of that trace (`perflab.shadow.queue`).

Not covered, and refused to marked work: Sentinel and Cluster.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from perflab.shadow import canaries, queue, redis_commands, rediskeys, scope
from perflab.shadow.rediskeys import KeySpec, UnknownKeys
from perflab.shadow.scope import process
from perflab.shadow.sql.pools import is_twin, twin_of
from perflab.shadow.stores import Place, Twin, find

_twins: tuple[Twin, ...] = ()
_tables: weakref.WeakKeyDictionary[Any, dict[str, KeySpec]] = weakref.WeakKeyDictionary()
_upkeep: contextvars.ContextVar[Place | None] = contextvars.ContextVar("perflab_redis_upkeep", default=None)
_OF_THE_PRODUCTION_POOL = frozenset(
    {"event_dispatcher", "maint_notifications_pool_handler", "oss_cluster_maint_notifications_handler",
     "himport_registry", "credential_provider", "cache", "cache_config", "path", "connection_class",
     "connection_pool"}
)  # fmt: skip


def set_twins(twins: tuple[Twin, ...]) -> None:
    """Tell the hook which Redis servers there are."""
    global _twins
    _twins = twins


@dataclass(slots=True)
class Session:
    """What is known of one shadow connection; kept on it."""

    twin: Twin
    pool: Any
    table: dict[str, KeySpec] = field(default_factory=dict)


def hook_redis(module: Any) -> None:
    """Route redis-py's sync clients; ``module`` is ``redis.client``."""
    import redis.connection as connections

    for pool_class in (connections.ConnectionPool, connections.BlockingConnectionPool):
        _hook_pool(pool_class)
    _hook_connection(connections.AbstractConnection)
    redis_commands.hook(module.Redis, module.Pipeline, _claimed)


def hook_redis_async(module: Any) -> None:
    """Route redis-py's async clients; ``module`` is ``redis.asyncio.client``."""
    import redis.asyncio.connection as connections

    for pool_class in (connections.ConnectionPool, connections.BlockingConnectionPool):
        _hook_async_pool(pool_class)
    _hook_async_connection(connections.AbstractConnection)
    redis_commands.hook_async(module.Redis, module.Pipeline, _claimed)


def _hook_pool(pool_class: Any) -> None:
    get, release = pool_class.__dict__["get_connection"], pool_class.__dict__["release"]

    @functools.wraps(get)
    def attached_get(pool: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is None or (is_twin(pool) and _upkeep.get()):
            return get(pool, *arguments, **options)
        twin, found = _shadow_pool(pool)
        with _keeping_up(found):
            connection = get(twin, *arguments, **options)
            if session_of(connection) is None:
                try:
                    if twin not in _tables:
                        connection.send_command("COMMAND")
                        _tables[twin] = rediskeys.read_table(connection.read_response())
                    _shield(connection, Session(found, twin, _tables[twin]))
                except BaseException:
                    connection.disconnect()
                    release(twin, connection)
                    raise
        return connection

    @functools.wraps(release)
    def attached_release(pool: Any, connection: Any) -> None:
        session = session_of(connection)
        release(session.pool if session is not None else pool, connection)

    pool_class.get_connection, pool_class.release = attached_get, attached_release


def _hook_async_pool(pool_class: Any) -> None:
    get, release = pool_class.__dict__["get_connection"], pool_class.__dict__["release"]

    @functools.wraps(get)
    async def attached_get(pool: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is None or (is_twin(pool) and _upkeep.get()):
            return await get(pool, *arguments, **options)
        twin, found = _shadow_pool(pool)
        with _keeping_up(found):
            connection = await get(twin, *arguments, **options)
            if session_of(connection) is None:
                try:
                    if twin not in _tables:
                        await connection.send_command("COMMAND")
                        _tables[twin] = rediskeys.read_table(await connection.read_response())
                    _shield_async(connection, Session(found, twin, _tables[twin]))
                except BaseException:
                    await connection.disconnect()
                    await release(twin, connection)
                    raise
        return connection

    @functools.wraps(release)
    async def attached_release(pool: Any, connection: Any) -> None:
        session = session_of(connection)
        await release(session.pool if session is not None else pool, connection)

    pool_class.get_connection, pool_class.release = attached_get, attached_release


def session_of(connection: Any) -> Session | None:
    """Return what is known of a shadow connection; None for an ordinary one."""
    return getattr(connection, "_perflab", None)


@contextlib.contextmanager
def _keeping_up(twin: Twin) -> Iterator[None]:
    """Let a shadow connection connect, log in and check its health on its own account."""
    token = _upkeep.set(twin.shadow)
    try:
        with scope.permit():
            yield
    finally:
        _upkeep.reset(token)


def _shadow_pool(pool: Any) -> tuple[Any, Twin]:
    """Return the twin of a pool and the store it shadows; raise ShadowError for an unknown server."""
    shadow = scope.current() or scope.IDLE
    wanted = _place(pool)
    name = f"redis://{wanted.host}:{wanted.port}/{wanted.database}"
    scope.require_live(shadow, name)
    found = find(_twins, wanted)
    if found is None or hasattr(pool, "sentinel_manager"):
        known = ", ".join(twin.store.production for twin in _twins) or "none"
        scope.refuse(
            name, f"this Redis is not one of the target's stores ({known}); nothing was sent", shadow
        )
    if is_twin(pool):
        return pool, found.twin
    if getattr(pool, "cache", None) is not None:
        scope.refuse(name, "client-side caching would mix shadow and production answers", shadow)
    return twin_of(pool, lambda: _make_twin(pool, found.twin, shadow)), found.twin


def _place(pool: Any) -> Place:
    options = pool.connection_kwargs
    return Place(
        str(options.get("path") or options.get("host", "localhost")),
        int(options.get("port") or 6379),
        str(options.get("db") or 0),
        str(options.get("username") or ""),
    )


def _claimed(pool: Any) -> str:
    """Return the store that the ordinary writes through a pool are claimed for, whatever the database."""
    wanted = _place(pool)
    for twin in _twins:
        if wanted.same_server(twin.production) and wanted.user != twin.shadow.user:
            return twin.store.name
    return ""


def _make_twin(pool: Any, twin: Twin, shadow: scope.Shadow) -> Any:
    kept = {key: value for key, value in pool.connection_kwargs.items() if key not in _OF_THE_PRODUCTION_POOL}
    there, connection_class = twin.shadow, pool.connection_class
    kept.update(
        host=there.host, port=there.port, db=int(there.database), username=there.user, password=there.password
    )
    if there.host.startswith("/") or "path" in pool.connection_kwargs:
        over_tcp = not there.host.startswith("/")
        connections = __import__(type(pool).__module__, fromlist=["Connection"])
        connection_class = connections.Connection if over_tcp else connections.UnixDomainSocketConnection
        if not over_tcp:
            kept = {"path": kept.pop("host"), **{key: kept[key] for key in kept if key != "port"}}
    waiting = {name: getattr(pool, name) for name in ("timeout", "queue_class") if hasattr(pool, name)}
    try:
        return type(pool)(
            connection_class=connection_class, max_connections=pool.max_connections, **waiting, **kept
        )
    except TypeError as error:
        scope.refuse(f"redis {twin.store.name}", f"no twin of a {type(pool).__qualname__}: {error}", shadow)


class _PrefixingPacker:
    """A command packer that prefixes keys before anything becomes bytes."""

    def __init__(self, packer: Any, session: Session) -> None:
        self._packer, self._session = packer, session

    def pack(self, *arguments: Any) -> Any:
        return self._packer.pack(*shadowed(arguments, self._session))


def shadowed(arguments: tuple[Any, ...], session: Session) -> tuple[Any, ...]:
    """Return a command as marked work sends it: keys prefixed, list pushes enveloped.

    Raises
    ------
    ShadowError
        If its keys cannot be told.
    """
    store = session.twin.store
    upkeep = _upkeep.get() is not None
    try:
        words = rediskeys.prefixed(arguments, session.table, store.prefix, upkeep=upkeep)
    except (UnknownKeys, ValueError, IndexError) as unknown:
        scope.refuse(f"redis {store.name}", str(unknown))
    if rediskeys.name_of(words) in rediskeys.PUSHES:
        return rediskeys.enveloped(words, queue.headers())
    return words


def _shield(connection: Any, session: Session) -> None:
    read, prefix = connection.read_response, session.twin.store.prefix

    @functools.wraps(read)
    def attached_read(*arguments: Any, **options: Any) -> Any:
        return rediskeys.restored(read(*arguments, **options), prefix, queue.found)

    connection._command_packer = _PrefixingPacker(connection._command_packer, session)
    connection.read_response = attached_read
    connection._perflab = session


def _shield_async(connection: Any, session: Session) -> None:
    read, pack, prefix = connection.read_response, connection.pack_command, session.twin.store.prefix

    @functools.wraps(read)
    async def attached_read(*arguments: Any, **options: Any) -> Any:
        return rediskeys.restored(await read(*arguments, **options), prefix, queue.found)

    connection.pack_command = lambda *arguments: pack(*shadowed(arguments, session))
    connection.read_response = attached_read
    connection._perflab = session


def _admit(connection: Any) -> None:
    """Check, before bytes are sent, that the running code may use a connection."""
    session = session_of(connection)
    shadow, upkeep = scope.current(), _upkeep.get()
    if shadow is None:
        if session is not None and upkeep is None:
            process.ledger.step_aside("redis: ordinary work found a shadow connection; it was closed")
            from redis.exceptions import ConnectionError as Lost

            raise Lost("perflab: this connection belonged to a load test; it was closed")
    elif session is None:
        if upkeep is not None and _leads_to(connection, upkeep):
            return
        scope.refuse("redis", "this connection was opened for production before the marked request", shadow)
    elif shadow.tag and upkeep is None:
        scope.require_live(shadow, session.twin.store.name)
        there = session.twin.shadow
        process.ledger.session(session.twin.store.name, there.user, there.database, shadow=True)


def _leads_to(connection: Any, there: Place) -> bool:
    """Tell whether a connection that is being opened is to log in at the shadow."""
    host = getattr(connection, "path", None) or getattr(connection, "host", "")
    return (getattr(connection, "username", None) or "") == there.user and bool(host == there.host)


def _hook_connection(connection_class: Any) -> None:
    for name in ("connect", "send_packed_command"):
        method = connection_class.__dict__[name]
        setattr(connection_class, name, _fenced(method))


def _fenced(method: Any) -> Any:
    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        session = session_of(connection)
        if session is None:
            canaries.watch("redis", arguments)
            return method(connection, *arguments, **options)
        with _keeping_up(session.twin):
            return method(connection, *arguments, **options)

    return attached


def _hook_async_connection(connection_class: Any) -> None:
    for name in ("connect", "send_packed_command"):
        method = connection_class.__dict__[name]
        setattr(connection_class, name, _fenced_async(method))


def _fenced_async(method: Any) -> Any:
    @functools.wraps(method)
    async def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        session = session_of(connection)
        if session is None:
            canaries.watch("redis", arguments)
            return await method(connection, *arguments, **options)
        with _keeping_up(session.twin):
            return await method(connection, *arguments, **options)

    return attached
