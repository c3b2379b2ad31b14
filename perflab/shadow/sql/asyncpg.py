"""PostgreSQL through asyncpg: marked work gets the shadow database, chosen when it connects.

All that a connection sends goes through its protocol, a C class whose methods Python calls by name; there
it is checked again (`perflab.shadow.sql.session.admit`). What a connection or a transaction would change in
itself before it sends is checked before that. Statements are traced and claimed in
`perflab.shadow.sql.asyncpg_statements`, pools twinned in `perflab.shadow.sql.asyncpg_pool`.

A shadow connection's callbacks (notifications, log messages) run as marked work, whoever's statement is
under way: as that of the work that listens, or as upkeep of the shadow side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from perflab.shadow import scope, sockets
from perflab.shadow.sql import asyncpg_kept, session
from perflab.shadow.sql.internals import require
from perflab.shadow.sql.session import Session, session_of
from perflab.shadow.stores import Place, Twin

_WHO = "SELECT current_database(), session_user"
_CHANGES = (
    "add_listener", "remove_listener", "add_log_listener", "add_termination_listener", "add_query_logger",
    "set_type_codec", "reset_type_codec", "set_builtin_type_codec",
)  # fmt: skip
_connecting: ContextVar[Twin | None] = ContextVar("perflab_asyncpg_connecting", default=None)


def hook_asyncpg(module: Any) -> None:
    """Route every asyncpg connection and pool of this process; trace and guard every statement.

    Raises
    ------
    ShadowError
        If this asyncpg has not what the hook stands on.
    """
    from asyncpg import connect_utils, pool, protocol, transaction

    from perflab.shadow.sql import asyncpg_pool, asyncpg_statements

    require(
        "asyncpg",
        module.__version__,
        {
            connect_utils: "_connect _parse_connect_arguments",
            protocol.Protocol: (
                "connection_made prepare execute close_portal close_statement query bind bind_execute "
                "bind_execute_many copy_in copy_out is_in_transaction is_connected abort"
            ),
            module.Connection: (
                "fetchrow _get_statement _cancel _reset reset close terminate get_reset_query "
                "_process_notification _process_log_message _call_termination_listeners "
                f"{' '.join(_CHANGES)}"
            ),
            transaction.Transaction: "start _Transaction__commit _Transaction__rollback",
            pool.Pool: (
                "_async__init__ _get_new_connection _acquire release close terminate expire_connections"
            ),
            pool.PoolConnectionHolder: "_deactivate_inactive_connection",
        },
        at_least="0.30",
    )
    _hook_connect(connect_utils, module)
    _hook_protocol(protocol.Protocol)
    _hook_connection(module.Connection)
    for name in ("start", "_Transaction__commit", "_Transaction__rollback"):
        _wrap(transaction.Transaction, name, _of_transaction)
    asyncpg_kept.hook(transaction.Transaction)
    asyncpg_statements.hook(module)
    asyncpg_pool.hook(pool)


def reach_shadow(
    connect_utils: Any, given: Mapping[str, Any], shadow: scope.Shadow
) -> tuple[dict[str, Any], Twin]:
    """Return what reaches the shadow of a database instead of it.

    Parameters
    ----------
    connect_utils : module
        ``asyncpg.connect_utils``, whose own reading of arguments, environment and files is used.
    given : mapping
        All arguments of its ``_connect``.
    shadow : Shadow
        The mark of the work.

    Returns
    -------
    tuple of dict and Twin
        The arguments to connect with, and the store. Arguments go before what a DSN, a service file or the
        environment says, so nothing of the login is left to these.

    Raises
    ------
    ShadowError
        If the database is not a known one, or the run is over.
    """
    settings = {
        key: value for key, value in given.items() if key not in ("loop", "connection_class", "record_class")
    }
    try:
        addresses, parameters, _ = connect_utils._parse_connect_arguments(**settings)
        places = [_place(address, parameters) for address in addresses]
    except Exception as error:
        scope.refuse("postgresql", f"where this connection would go cannot be told: {error}", shadow)
    twin = session.twin_for("postgresql", places, shadow)
    there = twin.shadow
    login = {
        "host": there.host or "localhost",
        "port": there.port,
        "user": there.user,
        "password": there.password,
        "database": there.database,
    }
    return {**given, **login}, twin


def admitted(protocol: Any) -> Session | None:
    """Check that the running code may use a connection, and return what is known of it.

    Raises
    ------
    ShadowError
        If marked work would use a production connection, or its run is over.
    """
    known = session_of(protocol)
    if scope.current() is not None or (known is not None and known.shadow):
        session.admit(known, "postgresql", lambda: asyncpg_kept.lose(protocol))
    return known


def _hook_connect(connect_utils: Any, module: Any) -> None:
    connect = connect_utils._connect

    @functools.wraps(connect)
    async def attached(**given: Any) -> Any:
        shadow = scope.current()
        instead = functools.partial(attached, **given)
        if shadow is None:
            connection = await connect(**given)
            session.keep_ordinary(connection._protocol, "postgresql", lambda: _reached(connection))
            _keep_too(connection)
            return connection
        given, twin = reach_shadow(connect_utils, given, shadow)
        token = _connecting.set(twin)
        try:
            with scope.permit():
                connection = await connect(**given)
        finally:
            _connecting.reset(token)
        _keep_too(connection)
        try:
            database, user = await module.Connection.fetchrow(connection, _WHO)
            here = _reached(connection)
            session.confirm(twin, Place(here.host, here.port, database, user))
        except BaseException:
            connection.terminate()
            raise
        asyncpg_kept.offer(connection, instead)
        return connection

    connect_utils._connect = attached


def _keep_too(connection: Any) -> None:
    """Remember of a connection what is known of its protocol: other hooks see the connection."""
    known = session_of(connection._protocol)
    if known is not None:
        session.keep(connection, known)


def _reached(connection: Any) -> Place:
    return _place(connection._addr, connection._params)


def _place(address: Any, parameters: Any) -> Place:
    if isinstance(address, str):  # /directory/.s.PGSQL.5432
        directory, _, name = address.rpartition("/")
        return Place(directory, int(name.rpartition(".")[2]), parameters.database, parameters.user)
    return Place(address[0], int(address[1]), parameters.database, parameters.user)


def _hook_protocol(protocol_class: Any) -> None:
    made = protocol_class.connection_made

    @functools.wraps(made)
    def attached_made(protocol: Any, transport: Any) -> None:
        twin = _connecting.get()
        if twin is not None and scope.current() is not None:
            session.keep_shadow(protocol, twin)  # from its first byte on: asyncpg may ask it for its role
            sockets.release(getattr(transport.get_extra_info("socket"), "_sock", None))
        made(protocol, transport)

    protocol_class.connection_made = attached_made
    for name in ("prepare", "execute", "close_portal", "close_statement"):
        setattr(protocol_class, name, _fenced(getattr(protocol_class, name)))


def _fenced(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(protocol: Any, *arguments: Any, **options: Any) -> Any:
        admitted(protocol)
        return method(protocol, *arguments, **options)

    return attached


def _hook_connection(connection_class: Any) -> None:
    for name in ("close", "terminate", "reset", "_reset", "_cancel"):
        _wrap(connection_class, name, _ending)
    for name in _CHANGES:
        _wrap(connection_class, name, _changing)
    for name in ("_process_notification", "_process_log_message", "_call_termination_listeners"):
        _wrap(connection_class, name, _hearing)
    _wrap(connection_class, "__del__", _forgotten)
    _wrap(connection_class, "_get_statement", _rewritten)


def _wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = getattr(owner, name)
    setattr(owner, name, functools.wraps(method)(make(method)))


def _refuse_production(connection: Any) -> Session | None:
    """Refuse marked work a connection that is no shadow, and return what is known of it."""
    known = session_of(connection)
    if scope.current() is not None and (known is None or not known.shadow):
        session.admit(known, "postgresql", lambda: None)
    return known


def _ending(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a connection, or what is under way on it, be ended: on the shadow's side always."""
    if not inspect.iscoroutinefunction(method):

        def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
            with session.upkeep(_refuse_production(connection)):
                return method(connection, *arguments, **options)

        return attached

    async def attached_async(connection: Any, *arguments: Any, **options: Any) -> Any:
        known = _refuse_production(connection)
        if known is None or not known.shadow:
            return await method(connection, *arguments, **options)
        with session.upkeep(known), scope.permit():  # a cancellation has a connection of its own
            return await method(connection, *arguments, **options)

    return attached_async


def _changing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check before a connection is changed without a word to the server: who hears it, how it reads types."""
    listens = "listener" in method.__name__

    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        known = _refuse_production(connection)
        if known is not None and known.shadow and scope.current() is not None:
            known.instead = None
        if listens and known is not None and known.shadow and connection._protocol is not None:
            connection._protocol._perflab_listener = scope.current()
        return method(connection, *arguments, **options)

    return attached


def _hearing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let callbacks of a shadow connection be marked work, and no part of the driver's own."""

    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        known = session_of(connection)
        if known is None or not known.shadow:
            return method(connection, *arguments, **options)
        token = scope.enter(getattr(connection._protocol, "_perflab_listener", None) or scope.IDLE)
        try:
            with scope.withhold():
                return method(connection, *arguments, **options)
        finally:
            scope.leave(token)

    return attached


def _forgotten(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a connection that nobody refers to any more end on its own side, whoever is running."""

    def attached(connection: Any) -> None:
        scope.ordinary(functools.partial(method, connection))

    return attached


def _rewritten(method: Callable[..., Any]) -> Callable[..., Any]:
    """Prepare, in modes ``schema`` and ``table``, another statement: cached under its own text."""
    from perflab.shadow.sql.asyncpg_statements import to_send

    def attached(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        known = session_of(connection._protocol)
        if known is None or not known.shadow:
            return method(connection, query, *arguments, **options)
        if scope.current() is None:
            return attached_taken(connection, query, *arguments, **options)
        if options.get("named"):  # somebody keeps it
            known.instead = None
        return method(connection, to_send(known, query), *arguments, **options)

    async def attached_taken(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        await asyncpg_kept.take_over(connection._protocol)
        return await method(connection, query, *arguments, **options)

    return attached


def _of_transaction(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check before a transaction is begun or ended: its connection notes that before it is sent."""

    def attached(transaction: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is not None:
            connection = getattr(transaction._connection, "_con", transaction._connection)
            if connection is not None:
                _refuse_production(connection)
        return method(transaction, *arguments, **options)

    return attached
