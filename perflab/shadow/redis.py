"""Redis through redis-py: marked work gets the shadow's ACL user and prefixed keys, or is refused.

Like pools of databases, each connection pool has a twin for marked work. A twin's connections log in as
the shadow's user and pass every command through `perflab.shadow.rediskeys`, at the one place where bytes
are made. A connection that was opened for production is refused to marked work before anything is sent.

A list push of marked work carries the trace headers in an envelope; the pop of a *shadow consumer* takes
them out again and works on the message as marked work of that trace (`perflab.shadow.queue`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from perflab.shadow import queue, rediskeys, scope
from perflab.shadow.pools import known_twin, twin_of
from perflab.shadow.rediskeys import KeySpec, UnknownKeys
from perflab.shadow.scope import process
from perflab.shadow.stores import Place, Twin, find

_twins: tuple[Twin, ...] = ()
_OF_THE_PRODUCTION_POOL = frozenset(
    {"event_dispatcher", "maint_notifications_pool_handler", "oss_cluster_maint_notifications_handler",
     "himport_registry", "credential_provider", "cache", "cache_config", "path"}
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


def hook_redis(module: Any) -> None:
    """Route redis-py's sync clients; ``module`` is ``redis.client``."""
    import redis.connection as connections

    for pool_class in (connections.ConnectionPool, connections.BlockingConnectionPool):
        _hook_pool(pool_class)
    _hook_connection(connections.AbstractConnection)
    _hook_commands(module.Redis, module.Pipeline)


def hook_redis_async(module: Any) -> None:
    """Route redis-py's async clients; ``module`` is ``redis.asyncio.client``."""
    import redis.asyncio.connection as connections

    for pool_class in (connections.ConnectionPool, connections.BlockingConnectionPool):
        _hook_async_pool(pool_class)
    _hook_async_connection(connections.AbstractConnection)
    _hook_async_commands(module.Redis, module.Pipeline)


def _hook_pool(pool_class: Any) -> None:
    get, release = pool_class.__dict__["get_connection"], pool_class.__dict__["release"]

    @functools.wraps(get)
    def attached_get(pool: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is None or scope.permitted():
            return get(pool, *arguments, **options)
        twin, found = _shadow_pool(pool)
        with scope.permit():
            connection = get(twin, *arguments, **options)
            if getattr(connection, "_perflab", None) is None:
                connection.send_command("COMMAND")
                table = rediskeys.read_table(connection.read_response())
                _shield(connection, Session(found, twin), table)
        return connection

    @functools.wraps(release)
    def attached_release(pool: Any, connection: Any) -> None:
        session = getattr(connection, "_perflab", None)
        release(session.pool if session is not None else pool, connection)

    pool_class.get_connection, pool_class.release = attached_get, attached_release


def _hook_async_pool(pool_class: Any) -> None:
    get, release = pool_class.__dict__["get_connection"], pool_class.__dict__["release"]

    @functools.wraps(get)
    async def attached_get(pool: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is None or scope.permitted():
            return await get(pool, *arguments, **options)
        twin, found = _shadow_pool(pool)
        with scope.permit():
            connection = await get(twin, *arguments, **options)
            if getattr(connection, "_perflab", None) is None:
                await connection.send_command("COMMAND")
                table = rediskeys.read_table(await connection.read_response())
                _shield_async(connection, Session(found, twin), table)
        return connection

    @functools.wraps(release)
    async def attached_release(pool: Any, connection: Any) -> None:
        session = getattr(connection, "_perflab", None)
        await release(session.pool if session is not None else pool, connection)

    pool_class.get_connection, pool_class.release = attached_get, attached_release


def _shadow_pool(pool: Any) -> tuple[Any, Twin]:
    """Return the twin of a pool and the store it shadows; raise ShadowError for an unknown server."""
    shadow = scope.current() or scope.IDLE
    options = pool.connection_kwargs
    wanted = Place(
        str(options.get("path") or options.get("host", "localhost")),
        int(options.get("port", 6379)),
        str(options.get("db") or 0),
        str(options.get("username") or ""),
    )
    name = f"redis://{wanted.host}:{wanted.port}/{wanted.database}"
    scope.require_live(shadow, name)
    found = find(_twins, wanted)
    if found is None:
        known = ", ".join(twin.store.production for twin in _twins) or "none"
        scope.refuse(
            name, f"this Redis is not one of the target's stores ({known}); nothing was sent", shadow
        )
    if known_twin(pool) is pool:
        return pool, found.twin
    if getattr(pool, "cache", None) is not None:
        scope.refuse(name, "client-side caching would mix shadow and production answers", shadow)
    return twin_of(pool, lambda: _make_twin(pool, found.twin)), found.twin


def _make_twin(pool: Any, twin: Twin) -> Any:
    kept = {key: value for key, value in pool.connection_kwargs.items() if key not in _OF_THE_PRODUCTION_POOL}
    there = twin.shadow
    kept.update(
        host=there.host, port=there.port, db=int(there.database), username=there.user, password=there.password
    )
    return type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **kept)


class _PrefixingPacker:
    """A command packer that prefixes keys before anything becomes bytes."""

    def __init__(self, packer: Any, session: Session, table: dict[str, KeySpec]) -> None:
        self._packer, self._session, self._table = packer, session, table

    def pack(self, *arguments: Any) -> Any:
        return self._packer.pack(*shadowed(arguments, self._session.twin, self._table))


def shadowed(arguments: tuple[Any, ...], twin: Twin, table: dict[str, KeySpec]) -> tuple[Any, ...]:
    """Return a command as marked work sends it: keys prefixed, list pushes enveloped.

    Raises
    ------
    ShadowError
        If its keys cannot be told.
    """
    try:
        words = rediskeys.prefixed(arguments, table, twin.store.prefix)
    except (UnknownKeys, ValueError, IndexError) as unknown:
        scope.refuse(f"redis {twin.store.name}", str(unknown))
    if str(words[0]).upper() in rediskeys.PUSHES:
        return rediskeys.enveloped(words, queue.headers())
    return words


def _shield(connection: Any, session: Session, table: dict[str, KeySpec]) -> None:
    read = connection.read_response

    @functools.wraps(read)
    def attached_read(*arguments: Any, **options: Any) -> Any:
        return rediskeys.restored(read(*arguments, **options), session.twin.store.prefix, queue.found)

    connection._command_packer = _PrefixingPacker(connection._command_packer, session, table)
    connection.read_response = attached_read
    connection._perflab = session


def _shield_async(connection: Any, session: Session, table: dict[str, KeySpec]) -> None:
    read, pack = connection.read_response, connection.pack_command

    @functools.wraps(read)
    async def attached_read(*arguments: Any, **options: Any) -> Any:
        return rediskeys.restored(await read(*arguments, **options), session.twin.store.prefix, queue.found)

    connection.pack_command = lambda *arguments: pack(*shadowed(arguments, session.twin, table))
    connection.read_response = attached_read
    connection._perflab = session


def _admit(connection: Any) -> None:
    """Check, before bytes are sent, that the running code may use a connection."""
    session: Session | None = getattr(connection, "_perflab", None)
    shadow = scope.current()
    if shadow is None:
        if session is not None and not scope.permitted():
            process.ledger.step_aside("redis: ordinary work found a shadow connection; it was closed")
            from redis.exceptions import ConnectionError as Lost

            raise Lost("perflab: this connection belonged to a load test; it was closed")
    elif session is None and not scope.permitted():
        scope.refuse("redis", "this connection was opened for production before the marked request", shadow)
    elif session is not None and shadow.tag:
        scope.require_live(shadow, session.twin.store.name)
        there = session.twin.shadow
        process.ledger.session(session.twin.store.name, there.user, there.database, shadow=True)


def _hook_connection(connection_class: Any) -> None:
    send = connection_class.send_packed_command

    @functools.wraps(send)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        with scope.permit():
            return send(connection, *arguments, **options)

    connection_class.send_packed_command = attached


def _hook_async_connection(connection_class: Any) -> None:
    send = connection_class.send_packed_command

    @functools.wraps(send)
    async def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        with scope.permit():
            return await send(connection, *arguments, **options)

    connection_class.send_packed_command = attached


class _Command:
    """One command or pipeline under way: traced (unless it only waits), and claimed when ordinary."""

    def __init__(self, pool: Any, commands: list[tuple[Any, ...]], name: str) -> None:
        self.pool, self.commands, self.name = pool, commands, name
        self.began_ns = time.time_ns()
        self.pushes = pushes = len(commands) == 1 and str(commands[0][0]).upper() in rediskeys.PUSHES
        self.key_family = name.split(" ", 1)[-1]
        self.span: Span | None = None
        if not (len(commands) == 1 and rediskeys.waits(commands[0])):
            self.span = scope.begin(
                f"send {self.key_family}" if pushes else name,
                SpanKind.PRODUCER if pushes else SpanKind.CLIENT,
                {"db.system.name": "redis", "db.operation.name": name.split(" ", 1)[0]},
            )

    def current(self) -> AbstractContextManager[Any]:
        """Make a push the parent of the work its message causes, while it is sent."""
        if self.span is None or not self.pushes:
            return nullcontext()
        return trace.use_span(self.span, end_on_exit=False)

    def end(self, error: BaseException | None = None, *, changed: bool = True) -> None:
        if self.span is not None:
            scope.finish(self.span, error)
        if changed and scope.current() is None and process.control.live:
            _claim(self.pool, self.commands, self.began_ns)


def _claim(pool: Any, commands: list[tuple[Any, ...]], began_ns: int) -> None:
    """Claim the keys ordinary work wrote."""
    options = pool.connection_kwargs
    found = find(
        _twins,
        Place(str(options.get("host", "")), int(options.get("port", 6379)), str(options.get("db") or 0)),
    )
    if found is not None:
        now_ns = time.time_ns()
        for command in commands:
            for key in rediskeys.written_keys(command):
                process.ledger.claim(found.twin.store.name, key, began_ns, now_ns)


def _hook_commands(client_class: Any, pipeline_class: Any) -> None:
    execute, run = client_class.execute_command, pipeline_class.execute

    @functools.wraps(execute)
    def attached(client: Any, *arguments: Any, **options: Any) -> Any:
        pops = str(arguments[0]).upper() in rediskeys.POPS
        if pops:
            queue.next_message()
        command = _Command(client.connection_pool, [arguments], rediskeys.family(arguments))
        answer = _run(command, lambda: execute(client, *arguments, **options))
        if pops and not queue.begin_message(command.key_family):
            execute(client, *queue.dead_letter(command.key_family, answer))
            return None
        return answer

    @functools.wraps(run)
    def attached_run(pipeline: Any, *arguments: Any, **options: Any) -> Any:
        commands = [entry[0] for entry in pipeline.command_stack]
        command = _Command(pipeline.connection_pool, commands, _pipeline_name(commands))
        return _run(command, lambda: run(pipeline, *arguments, **options))

    client_class.execute_command, pipeline_class.execute = attached, attached_run


def _run(command: _Command, call: Callable[[], Any]) -> Any:
    try:
        scope.wait(command.name)
        with command.current():
            answer = call()
    except BaseException as error:
        command.end(error)
        raise
    command.end(changed=answer is not None)
    return answer


def _hook_async_commands(client_class: Any, pipeline_class: Any) -> None:
    execute, run = client_class.execute_command, pipeline_class.execute

    @functools.wraps(execute)
    async def attached(client: Any, *arguments: Any, **options: Any) -> Any:
        pops = str(arguments[0]).upper() in rediskeys.POPS
        if pops:
            queue.next_message()
        command = _Command(client.connection_pool, [arguments], rediskeys.family(arguments))
        answer = await _run_async(command, lambda: execute(client, *arguments, **options))
        if pops and not queue.begin_message(command.key_family):
            await execute(client, *queue.dead_letter(command.key_family, answer))
            return None
        return answer

    @functools.wraps(run)
    async def attached_run(pipeline: Any, *arguments: Any, **options: Any) -> Any:
        commands = [entry[0] for entry in pipeline.command_stack]
        command = _Command(pipeline.connection_pool, commands, _pipeline_name(commands))
        return await _run_async(command, lambda: run(pipeline, *arguments, **options))

    client_class.execute_command, pipeline_class.execute = attached, attached_run


async def _run_async(command: _Command, call: Callable[[], Any]) -> Any:
    try:
        planted = scope.delay_ns(command.name)
        if planted:
            await scope.async_wait(planted)
        with command.current():
            answer = await call()
    except BaseException as error:
        command.end(error)
        raise
    command.end(changed=answer is not None)
    return answer


def _pipeline_name(commands: list[tuple[Any, ...]]) -> str:
    families = {rediskeys.family(command).split(" ", 1)[-1] for command in commands}
    return f"PIPELINE {families.pop()}" if len(families) == 1 else "PIPELINE"
