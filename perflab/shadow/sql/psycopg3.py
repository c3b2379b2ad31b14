"""PostgreSQL through psycopg 3: marked work gets the shadow database, chosen when it connects.

All that a connection sends goes through its ``wait``, and there it is checked again
(`perflab.shadow.sql.session.admit`). Pools are twinned in `perflab.shadow.sql.pools`; statements are traced
in `perflab.shadow.sql.psycopg3_statements`; libpq itself is closed to marked work in
`perflab.shadow.sql.psycopg3_libpq`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow import canaries, scope
from perflab.shadow.scope import process
from perflab.shadow.sql import libpq, psycopg3_kept, session
from perflab.shadow.sql.session import Session, session_of, to_send
from perflab.shadow.stores import Place, Twin

_WHO = b"SELECT current_database(), session_user"


def hook_psycopg(module: Any) -> None:
    """Route every psycopg connection of this process, and trace and guard every statement."""
    from perflab.shadow.sql import psycopg3_libpq, psycopg3_statements

    for connection in (module.Connection, module.AsyncConnection):
        run_async = connection is module.AsyncConnection
        _hook_connect(module, connection, run_async=run_async)
        connection.wait = (_fenced_async if run_async else _fenced_wait)(connection.wait)
        for name in ("cancel", "cancel_safe"):
            if name in connection.__dict__:
                setattr(connection, name, _fenced(connection.__dict__[name]))
        for name in ("tpc_begin", "tpc_commit", "tpc_rollback"):
            setattr(connection, name, _two_phase(getattr(connection, name)))
    module.Connection._check_connection_ok = _checked(module.Connection._check_connection_ok)
    psycopg3_kept.hook(module)
    base = module.Connection.__mro__[1]
    if "cancel" in base.__dict__:
        base.cancel = _fenced(base.cancel)
    module.connect = module.Connection.connect
    _hook_sending(module)
    psycopg3_statements.hook(module)
    psycopg3_libpq.hook(module)


def reach_shadow(
    module: Any, conninfo: str, options: dict[str, Any], shadow: scope.Shadow
) -> tuple[str, dict[str, Any], Twin]:
    """Return what reaches the shadow of a database instead of it.

    Parameters
    ----------
    module : module
        ``psycopg``.
    conninfo, options
        As given to ``connect``.
    shadow : Shadow
        The mark of the work.

    Returns
    -------
    tuple of str, dict and Twin
        The conninfo and options to connect with, and the store.

    Raises
    ------
    ShadowError
        If the database is not a known one, or the run is over.
    """
    try:
        given = module.conninfo.conninfo_to_dict(conninfo)
        given.update({key: options[key] for key in libpq.LOGIN if options.get(key) is not None})
        places = libpq.places(given)
    except (ValueError, module.Error) as error:
        scope.refuse("postgresql", f"where this connection would go cannot be told: {error}", shadow)
    twin = session.twin_for("postgresql", places, shadow)
    kept = {key: value for key, value in options.items() if key not in libpq.LOGIN}
    parameters = module.conninfo.conninfo_to_dict(conninfo)
    for key in libpq.LOGIN:
        parameters.pop(key, None)
    return module.conninfo.make_conninfo(**parameters, **libpq.shadow_login(twin)), kept, twin


def _hook_connect(module: Any, connection_class: Any, *, run_async: bool) -> None:
    connect = connection_class.connect.__func__

    @functools.wraps(connect)
    def attached_connect(cls: Any, conninfo: str = "", **options: Any) -> Any:
        shadow = scope.current()
        if shadow is None:
            return _noted(connect(cls, conninfo, **options))
        instead = functools.partial(attached_connect, cls, conninfo, **options)
        conninfo, options, twin = reach_shadow(module, conninfo, options, shadow)
        with scope.permit():
            connection = connect(cls, conninfo, **options)
        known = session.keep_shadow(connection, twin)
        try:
            _confirm(connection, connection.wait(connection._exec_command(_WHO)), twin)
        except BaseException:
            connection.close()
            raise
        known.instead = instead
        return connection

    @functools.wraps(connect)
    async def attached_connect_async(cls: Any, conninfo: str = "", **options: Any) -> Any:
        shadow = scope.current()
        if shadow is None:
            return _noted(await connect(cls, conninfo, **options))
        instead = functools.partial(attached_connect_async, cls, conninfo, **options)
        conninfo, options, twin = reach_shadow(module, conninfo, options, shadow)
        with scope.permit():
            connection = await connect(cls, conninfo, **options)
        known = session.keep_shadow(connection, twin)
        try:
            _confirm(connection, await connection.wait(connection._exec_command(_WHO)), twin)
        except BaseException:
            await connection.close()
            raise
        known.instead = instead
        return connection

    attached: Any = attached_connect_async if run_async else attached_connect
    connection_class.connect = classmethod(attached)


def _noted(connection: Any) -> Any:
    session.keep_ordinary(connection, "postgresql", lambda: psycopg3_kept.where(connection))
    return connection


def _confirm(connection: Any, answer: Any, twin: Twin) -> None:
    database, user = (bytes(answer.get_value(0, column)).decode() for column in (0, 1))
    session.confirm(twin, Place(connection.info.host, connection.info.port, database, user))


def _fenced(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check, before a connection sends anything, that the running code may use it."""

    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        known = session_of(connection)
        if scope.current() is not None or (known is not None and known.shadow):
            session.admit(known, "postgresql", lambda: _close(connection))
        return method(connection, *arguments, **options)

    return attached


def _fenced_wait(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check the same where all is sent: here ordinary work may take over a shadow connection.

    Whoever waits holds the connection's own lock, so no marked work is under way on it.
    """

    @functools.wraps(method)
    def attached(connection: Any, gen: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_plain(connection):
            known = session_of(connection)
            if scope.current() is not None or (known is not None and known.shadow):
                _admit(connection, known)
        if arguments or options:
            return method(connection, gen, *arguments, **options)
        return method(connection, gen)

    return attached


def _is_plain(connection: Any) -> bool:
    """Tell, fast, an ordinary connection that ordinary work uses."""
    known = getattr(connection, "_perflab", None)
    return known is not None and not known.shadow and scope.current() is None


def _fenced_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        if _is_plain(connection):
            return await method(connection, *arguments, **options)
        known = session_of(connection)
        marked = scope.current() is not None
        if marked or (known is not None and known.shadow):
            opened = None if marked else await psycopg3_kept.opened(connection, known)
            session.admit(
                known,
                "postgresql",
                lambda: _close(connection),
                lambda _: opened is not None and psycopg3_kept.go_on(connection, opened),
            )
        return await method(connection, *arguments, **options)

    return attached


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let ordinary work take over a shadow connection that broke: production's would not have."""

    @functools.wraps(method)
    def attached(connection: Any) -> None:
        try:
            method(connection)
        except Exception:
            known = session_of(connection)
            if scope.current() is not None or known is None or not known.shadow:
                raise
            _admit(connection, known)
            method(connection)

    return attached


def _admit(connection: Any, known: Session | None) -> None:
    session.admit(
        known,
        "postgresql",
        lambda: _close(connection),
        lambda instead: (
            psycopg3_kept.may_be(connection, instead) and psycopg3_kept.go_on(connection, instead())
        ),
    )


def _close(connection: Any) -> BaseException | None:
    if connection.closed:
        return None
    connection.pgconn.finish()
    from psycopg import OperationalError

    return OperationalError(session.LOST)


def _hook_sending(module: Any) -> None:
    """Have every text a cursor sends pass `to_send`, as it is sent: the two ways every call ends in."""
    base = next(owner for owner in module.Cursor.__mro__ if "_execute_send" in owner.__dict__)
    client = next(owner for owner in module.ClientCursor.__mro__ if "_execute_send" in owner.__dict__)
    for owner in {base, client}:
        send = owner._execute_send

        def attached(cursor: Any, query: Any, _send: Any = send, **options: Any) -> Any:
            known = getattr(cursor._conn, "_perflab", None)
            if known is None or known.shadow or process.control.canaries:
                query = _to_send(cursor, query)
            else:
                psycopg3_kept.follow(cursor)
            return _send(cursor, query, **options)

        owner._execute_send = functools.wraps(send)(attached)
    prepare = base._send_prepare

    @functools.wraps(prepare)
    def attached_prepare(cursor: Any, name: bytes, query: Any) -> Any:
        return prepare(cursor, name, _to_send(cursor, query))

    send_prepared = base._send_query_prepared

    @functools.wraps(send_prepared)
    def attached_prepared(cursor: Any, name: bytes, query: Any, **options: Any) -> None:
        if process.control.canaries:
            canaries.watch("postgresql", query.params)
        psycopg3_kept.follow(cursor)
        send_prepared(cursor, name, query, **options)

    base._send_prepare, base._send_query_prepared = attached_prepare, attached_prepared


def _to_send(cursor: Any, query: Any) -> Any:
    """Return what is sent instead of a query of psycopg's, which itself may be sent again."""
    psycopg3_kept.follow(cursor)
    known = session_of(cursor._conn)
    if known is None or not known.shadow:
        canaries.watch("postgresql", (query.query, query.params))
        return query
    encoding = cursor._conn.info.encoding
    text = query.query.decode(encoding)
    sent = to_send(known, text)
    if sent is text:
        return query
    query = copy.copy(query)
    query.query = sent.encode(encoding)
    return query


def _two_phase(method: Callable[..., Any]) -> Callable[..., Any]:
    """In modes ``schema`` and ``table`` two-phase transactions are shared with production: refuse them."""

    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        to_send(session_of(connection), "COMMIT PREPARED 'x'")
        return method(connection, *arguments, **options)

    return attached
