"""PostgreSQL through psycopg 3: marked work gets the shadow database, chosen when it connects.

A connection belongs to one side for life. Marked work that connects to a known production database is
connected to its shadow, with the shadow's own login, instead; to any other database it is refused. Every
statement checks again: marked work on a production connection is refused before it is sent, and ordinary
work that finds a shadow connection has it closed, as if the connection was lost. Pools are twinned in
`perflab.shadow.pools`.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import Span, SpanKind

from perflab.shadow import scope
from perflab.shadow.scope import process
from perflab.shadow.statement import Statement, read_statement
from perflab.shadow.stores import Place, Twin, find

_IDLE, _INERROR = 0, 3  # libpq transaction states
_twins: tuple[Twin, ...] = ()


def set_twins(twins: tuple[Twin, ...]) -> None:
    """Tell the hook which databases there are."""
    global _twins
    _twins = twins


@dataclass(slots=True)
class Session:
    """What is known of one connection; kept on it."""

    store: str
    shadow: bool
    user: str
    database: str
    pending: dict[tuple[str, str], int] = field(default_factory=dict)
    opaque: bool = False


def hook_psycopg(module: Any) -> None:
    """Route every psycopg connection of this process, and trace and guard every statement."""
    for connection in (module.Connection, module.AsyncConnection):
        _hook_connect(module, connection)
        _hook_end(connection, "commit")
        _hook_end(connection, "rollback")
    module.connect = module.Connection.connect
    for name in ("Cursor", "ServerCursor"):
        _hook_statements(getattr(module, name), run_async=False)
        _hook_statements(getattr(module, f"Async{name}"), run_async=True)
    _hook_exit(module.Transaction, "__exit__", run_async=False)
    _hook_exit(module.AsyncTransaction, "__aexit__", run_async=True)


def route(module: Any, conninfo: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Decide where a connection goes.

    Parameters
    ----------
    module : module
        ``psycopg``.
    conninfo, options
        As given to ``connect``.

    Returns
    -------
    tuple of str and dict
        The conninfo and options to connect with: unchanged for ordinary work.

    Raises
    ------
    ShadowError
        If the work is marked and the database is not a known one, or its run is over.
    """
    shadow = scope.current()
    if shadow is None:
        return conninfo, options
    return reach_shadow(module, conninfo, options, shadow)


def reach_shadow(
    module: Any, conninfo: str, options: dict[str, Any], shadow: scope.Shadow
) -> tuple[str, dict[str, Any]]:
    """Return what reaches the shadow of a database (see `route`; ``shadow`` is the mark of the work).

    Raises
    ------
    ShadowError
        If the database is not a known one, or the run is over.
    """
    wanted = _place(module, conninfo, options)
    name = f"postgresql://{wanted.host}:{wanted.port}/{wanted.database}"
    scope.require_live(shadow, name)
    found = find(_twins, wanted)
    if found is None:
        known = ", ".join(twin.store.production for twin in _twins) or "none"
        scope.refuse(
            name, f"this database is not one of the target's stores ({known}); nothing was connected", shadow
        )
    if found.side == "shadow":
        return conninfo, options
    return _rewritten(module, conninfo, options, found.twin)


def _rewritten(module: Any, conninfo: str, options: dict[str, Any], twin: Twin) -> tuple[str, dict[str, Any]]:
    """Return conninfo and options that reach the shadow of ``twin``, all else as it was."""
    there = twin.shadow
    login = {
        "host": there.host,
        "port": str(there.port),
        "dbname": there.database,
        "user": there.user,
        "password": there.password,
    }
    named = ("host", "hostaddr", "port", "dbname", "user", "password", "service", "passfile")
    kept = {key: value for key, value in options.items() if key not in named}
    parameters = module.conninfo.conninfo_to_dict(conninfo)
    for key in named:
        parameters.pop(key, None)
    return module.conninfo.make_conninfo(**parameters, **login), kept


def _place(module: Any, conninfo: str, options: dict[str, Any]) -> Place:
    texts = {key: value for key, value in options.items() if isinstance(value, (str, int))}
    try:
        given = module.conninfo.conninfo_to_dict(conninfo, **texts)
    except Exception:  # options that are no libpq parameters (row_factory, autocommit, ...)
        given = module.conninfo.conninfo_to_dict(conninfo)
        given.update(
            {key: options[key] for key in ("host", "hostaddr", "port", "dbname", "user") if key in options}
        )
    user = str(given.get("user") or os.environ.get("PGUSER", ""))
    return Place(
        str(given.get("hostaddr") or given.get("host") or os.environ.get("PGHOST", "")),
        int(str(given.get("port") or os.environ.get("PGPORT", 5432))),
        str(given.get("dbname") or os.environ.get("PGDATABASE", "") or user),
        user,
    )


def _hook_connect(module: Any, connection_class: Any) -> None:
    connect = connection_class.connect.__func__
    run_async = connection_class.__name__.startswith("Async")

    @functools.wraps(connect)
    def attached_connect(cls: Any, conninfo: str = "", **options: Any) -> Any:
        conninfo, options = route(module, conninfo, options)
        with scope.permit():
            connection = connect(cls, conninfo, **options)
        _learn(connection)
        return connection

    @functools.wraps(connect)
    async def attached_connect_async(cls: Any, conninfo: str = "", **options: Any) -> Any:
        conninfo, options = route(module, conninfo, options)
        with scope.permit():
            connection = await connect(cls, conninfo, **options)
        _learn(connection)
        return connection

    attached: Any = attached_connect_async if run_async else attached_connect
    connection_class.connect = classmethod(attached)


def _learn(connection: Any) -> None:
    """Keep on a new connection which side it is; what the server says counts, not what was asked."""
    info = connection.info
    found = find(_twins, Place(info.host, info.port, info.dbname, info.user))
    shadow = found is not None and found.side == "shadow"
    store = found.twin.store.name if found is not None else ""
    connection._perflab = Session(store, shadow, info.user, info.dbname)
    if scope.current() is not None and not shadow:
        connection.close()
        scope.refuse(store or info.dbname, "the server answered as a database that is not the shadow")


def _admit(connection: Any) -> Session | None:
    """Check that the running code may use a connection; None: not ours to judge."""
    session: Session | None = getattr(connection, "_perflab", None)
    shadow = scope.current()
    if shadow is None:
        if session is not None and session.shadow:
            process.ledger.step_aside("sql: ordinary work found a shadow connection; it was closed")
            connection.pgconn.finish()
        return session
    if session is None or not session.shadow:
        process.ledger.session(
            session.store if session else "?", connection.info.user, connection.info.dbname, shadow=False
        )
        scope.refuse(
            f"postgresql {connection.info.dbname}",
            "this connection was opened for production before the marked request (kept outside a known pool)",
            shadow,
        )
    elif shadow.tag:
        scope.require_live(shadow, session.store)
        process.ledger.session(session.store, session.user, session.database, shadow=True)
    return session


def _hook_statements(cursor_class: Any, *, run_async: bool) -> None:
    for name in ("execute", "executemany"):
        if name in cursor_class.__dict__:
            wrap = _wrap_async if run_async else _wrap
            setattr(cursor_class, name, wrap(cursor_class.__dict__[name]))
    for name in ("stream", "copy"):
        if name in cursor_class.__dict__:
            setattr(cursor_class, name, _wrap_opening(cursor_class.__dict__[name]))


def _wrap(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        work = _Work(cursor, query)
        try:
            scope.wait(work.statement.summary)
            result = method(cursor, query, *arguments, **options)
        except BaseException as error:
            work.end(error)
            raise
        work.end()
        return result

    return attached


def _wrap_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def attached(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        work = _Work(cursor, query)
        try:
            planted = scope.delay_ns(work.statement.summary)
            if planted:
                await scope.async_wait(planted)
            result = await method(cursor, query, *arguments, **options)
        except BaseException as error:
            work.end(error)
            raise
        work.end()
        return result

    return attached


def _wrap_opening(method: Callable[..., Any]) -> Callable[..., Any]:
    """COPY and streams: admitted when opened; their rows cannot be claimed, so the claim is opaque."""

    @functools.wraps(method)
    def attached(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        work = _Work(cursor, query)
        if work.session is not None and work.statement.writes != "no":
            work.session.opaque = True
        work.end()
        return method(cursor, query, *arguments, **options)

    return attached


class _Work:
    """One statement under way: admitted, traced, and claimed when ordinary."""

    def __init__(self, cursor: Any, query: Any) -> None:
        self.cursor = cursor
        self.connection = cursor._conn
        text = _text(query, self.connection)
        self.statement: Statement = read_statement(text)
        self.began_ns = time.time_ns()
        self.span: Span = scope.begin(
            self.statement.summary,
            SpanKind.CLIENT,
            {
                "db.system.name": "postgresql",
                "db.query.summary": self.statement.summary,
                "db.query.text": text[:2000],
                "db.namespace": self.connection.info.dbname,
            },
        )
        try:
            self.session = _admit(self.connection)
        except BaseException as error:
            scope.finish(self.span, error)
            raise

    def end(self, error: BaseException | None = None) -> None:
        scope.finish(self.span, error)
        session = self.session
        if session is None or session.shadow or not session.store or error is not None:
            return
        _note(session, self.statement, self.cursor.rowcount)
        if self.connection.pgconn.transaction_status == _IDLE:
            _settle(session, self.began_ns, kept=self.statement.ends != "rollback")


def _hook_end(connection_class: Any, name: str) -> None:
    method = connection_class.__dict__[name]
    run_async = connection_class.__name__.startswith("Async")

    @functools.wraps(method)
    def attached(connection: Any) -> Any:
        ending = _Ending(connection, name)
        if ending.span is not None:
            scope.wait(ending.name)
        try:
            return method(connection)
        finally:
            ending.end()

    @functools.wraps(method)
    async def attached_async(connection: Any) -> Any:
        ending = _Ending(connection, name)
        planted = scope.delay_ns(ending.name) if ending.span is not None else 0
        if planted:
            await scope.async_wait(planted)
        try:
            return await method(connection)
        finally:
            ending.end()

    setattr(connection_class, name, attached_async if run_async else attached)


def _hook_exit(transaction_class: Any, name: str, *, run_async: bool) -> None:
    method = transaction_class.__dict__.get(name) or getattr(transaction_class, name)

    @functools.wraps(method)
    def attached(transaction: Any, exc_type: Any, exc_val: Any, exc_tb: Any) -> Any:
        ending = _Ending(transaction._conn, "rollback" if exc_type else "commit")
        try:
            return method(transaction, exc_type, exc_val, exc_tb)
        finally:
            ending.end()

    @functools.wraps(method)
    async def attached_async(transaction: Any, exc_type: Any, exc_val: Any, exc_tb: Any) -> Any:
        ending = _Ending(transaction._conn, "rollback" if exc_type else "commit")
        try:
            return await method(transaction, exc_type, exc_val, exc_tb)
        finally:
            ending.end()

    setattr(transaction_class, name, attached_async if run_async else attached)


class _Ending:
    """The end of a transaction: traced where there is one to end, and its claim settled."""

    def __init__(self, connection: Any, how: str) -> None:
        self.connection = connection
        self.name = how.upper()
        self.began_ns = time.time_ns()
        status = connection.pgconn.transaction_status
        self.kept = how == "commit" and status != _INERROR
        self.span: Span | None = None
        if status != _IDLE and not connection.closed:
            attributes = {
                "db.system.name": "postgresql",
                "db.query.summary": self.name,
                "db.namespace": connection.info.dbname,
            }
            self.span = scope.begin(self.name, SpanKind.CLIENT, attributes)

    def end(self) -> None:
        if self.span is not None:
            scope.finish(self.span)
        session: Session | None = getattr(self.connection, "_perflab", None)
        if session is not None and self.connection.pgconn.transaction_status == _IDLE:
            _settle(session, self.began_ns, kept=self.kept)


def _note(session: Session, statement: Statement, rows: int) -> None:
    if statement.writes == "opaque":
        session.opaque = True
    elif statement.writes == "rows" and rows > 0:
        key = (statement.table, statement.operation.lower())
        session.pending[key] = session.pending.get(key, 0) + rows


def _settle(session: Session, began_ns: int, *, kept: bool) -> None:
    """Claim what an ordinary transaction wrote, now that it ended."""
    if kept and (session.pending or session.opaque) and process.control.live:
        fingerprint = "opaque"
        if not session.opaque:
            fingerprint = json.dumps(
                sorted([table, operation, rows] for (table, operation), rows in session.pending.items())
            )
        process.ledger.claim(session.store, fingerprint, began_ns, time.time_ns())
    session.pending = {}
    session.opaque = False


def _text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    return str(query.as_string(connection)) if hasattr(query, "as_string") else str(query)
