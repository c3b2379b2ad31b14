"""PostgreSQL through psycopg 3: marked work gets the shadow database, chosen when it connects.

A connection belongs to one side for life. Marked work that connects to a known production database is
connected to its shadow, with the shadow's own login, instead; to any other database it is refused. All
that a connection sends goes through its ``wait``, and there it is checked again: marked work on a
production connection is refused before anything is sent, and ordinary work that finds a shadow connection
has it closed, as if it was lost. Pools are twinned in `perflab.shadow.pools`; statements are traced in
`perflab.shadow.sql_statements`.

Not covered: code that talks to libpq itself (``connection.pgconn``, ``psycopg.pq``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perflab.shadow import scope
from perflab.shadow.scope import process
from perflab.shadow.sql_claims import Tally
from perflab.shadow.stores import Place, Twin, find

_WHO = b"SELECT current_database(), session_user"
_LOGIN = ("host", "hostaddr", "port", "dbname", "user", "password", "service", "passfile")
_twins: tuple[Twin, ...] = ()


def set_twins(twins: tuple[Twin, ...]) -> None:
    """Tell the hook which databases there are."""
    global _twins
    _twins = twins


@dataclass(slots=True)
class Session:
    """What is known of one connection; kept on it.

    ``store`` is the store it is a side of, ``""`` when it is of none; ``shadow`` says that marked work
    opened it and the server confirmed that it is the shadow.
    """

    store: str
    shadow: bool
    user: str
    database: str
    tally: Tally = field(default_factory=Tally)
    unsettled: list[int] = field(default_factory=list)


def hook_psycopg(module: Any) -> None:
    """Route every psycopg connection of this process, and trace and guard every statement."""
    from perflab.shadow import sql_statements

    for connection in (module.Connection, module.AsyncConnection):
        run_async = connection is module.AsyncConnection
        _hook_connect(module, connection, run_async=run_async)
        for name in ("wait", "cancel", "cancel_safe"):
            if name in connection.__dict__:
                setattr(connection, name, _fenced(connection.__dict__[name]))
    base = module.Connection.__mro__[1]
    if "cancel" in base.__dict__:
        base.cancel = _fenced(base.cancel)
    module.connect = module.Connection.connect
    sql_statements.hook(module)


def session_of(connection: Any) -> Session | None:
    """Return what is known of a connection; None for one that was opened behind our back."""
    return getattr(connection, "_perflab", None)


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
        places = _places(module, conninfo, options)
    except (ValueError, module.Error) as error:
        scope.refuse("postgresql", f"where this connection would go cannot be told: {error}", shadow)
    name = " or ".join(f"postgresql://{place.host}:{place.port}/{place.database}" for place in places)
    scope.require_live(shadow, name)
    found = [find(_twins, place) for place in places]
    twins = {side.twin.store.name: side.twin for side in found if side is not None}
    if None in found or len(twins) != 1:
        known = ", ".join(twin.store.production for twin in _twins) or "none"
        scope.refuse(
            name, f"this database is not one of the target's stores ({known}); nothing was connected", shadow
        )
    twin = next(iter(twins.values()))
    return *_rewritten(module, conninfo, options, twin), twin


def _rewritten(module: Any, conninfo: str, options: dict[str, Any], twin: Twin) -> tuple[str, dict[str, Any]]:
    """Return conninfo and options that reach the shadow of ``twin``, all else as it was."""
    there = twin.shadow
    login = {
        "host": there.host,
        "hostaddr": "",  # so that no PGHOSTADDR or service file leads elsewhere
        "port": str(there.port),
        "dbname": there.database,
        "user": there.user,
        "password": there.password,
    }
    kept = {key: value for key, value in options.items() if key not in _LOGIN}
    parameters = module.conninfo.conninfo_to_dict(conninfo)
    for key in _LOGIN:
        parameters.pop(key, None)
    return module.conninfo.make_conninfo(**parameters, **login), kept


def _places(module: Any, conninfo: str, options: dict[str, Any]) -> list[Place]:
    """Return every place a connection may lead to: libpq takes several hosts."""
    given = module.conninfo.conninfo_to_dict(conninfo)
    given.update({key: options[key] for key in _LOGIN if options.get(key) is not None})
    user = str(given.get("user") or os.environ.get("PGUSER", ""))
    database = str(given.get("dbname") or os.environ.get("PGDATABASE", "") or user)
    addresses = given.get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    hosts = str(addresses or given.get("host") or os.environ.get("PGHOST", "")).split(",")
    ports = str(given.get("port") or os.environ.get("PGPORT", "") or 5432).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return [
        Place(host.strip(), int(port or 5432), database, user)
        for host, port in zip(hosts, ports, strict=True)
    ]


def _hook_connect(module: Any, connection_class: Any, *, run_async: bool) -> None:
    connect = connection_class.connect.__func__

    @functools.wraps(connect)
    def attached_connect(cls: Any, conninfo: str = "", **options: Any) -> Any:
        shadow = scope.current()
        if shadow is None:
            return _noted(connect(cls, conninfo, **options))
        conninfo, options, twin = reach_shadow(module, conninfo, options, shadow)
        with scope.permit():
            connection = connect(cls, conninfo, **options)
        connection._perflab = Session(twin.store.name, True, twin.shadow.user, twin.shadow.database)
        try:
            _require_shadow(connection, connection.wait(connection._exec_command(_WHO)), twin)
        except BaseException:
            connection.close()
            raise
        return connection

    @functools.wraps(connect)
    async def attached_connect_async(cls: Any, conninfo: str = "", **options: Any) -> Any:
        shadow = scope.current()
        if shadow is None:
            return _noted(await connect(cls, conninfo, **options))
        conninfo, options, twin = reach_shadow(module, conninfo, options, shadow)
        with scope.permit():
            connection = await connect(cls, conninfo, **options)
        connection._perflab = Session(twin.store.name, True, twin.shadow.user, twin.shadow.database)
        try:
            _require_shadow(connection, await connection.wait(connection._exec_command(_WHO)), twin)
        except BaseException:
            await connection.close()
            raise
        return connection

    attached: Any = attached_connect_async if run_async else attached_connect
    connection_class.connect = classmethod(attached)


def _noted(connection: Any) -> Any:
    """Keep on a new connection of ordinary work which store its writes are claimed for."""
    try:
        info = connection.info
        found = find(_twins, Place(info.host, info.port, info.dbname, info.user))
        store = found.twin.store.name if found is not None and found.side == "production" else ""
        connection._perflab = Session(store, False, info.user, info.dbname)
    except Exception:  # whatever it is, ordinary work must get its connection
        process.ledger.step_aside("sql: a connection could not be told")
    return connection


def _require_shadow(connection: Any, answer: Any, twin: Twin) -> None:
    """Refuse a connection whose server says that it is not the shadow: a pooler may lead anywhere."""
    database, user = (bytes(answer.get_value(0, column)).decode() for column in (0, 1))
    there = twin.shadow
    reached = Place(connection.info.host, connection.info.port, database)
    if not reached.same_store(there) or (there.user and user != there.user):
        scope.refuse(
            twin.store.name,
            f"what should be the shadow is {reached.host}:{reached.port}, database {database!r} for user"
            f" {user!r}, not {there.host}:{there.port}, {there.database!r} for {there.user!r}",
        )


def _fenced(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check, before a connection sends anything, that the running code may use it."""

    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        return method(connection, *arguments, **options)

    return attached


def _admit(connection: Any) -> None:
    session = session_of(connection)
    shadow = scope.current()
    if shadow is None:
        if session is not None and session.shadow and not connection.closed:
            process.ledger.step_aside("sql: ordinary work found a shadow connection; it was closed")
            connection.pgconn.finish()
            from psycopg import OperationalError

            raise OperationalError("perflab: this connection belonged to a load test; it was closed")
    elif session is None or not session.shadow:
        scope.refuse(
            f"postgresql {session.database if session else ''}".strip(),
            "this connection was opened for production before the marked request (kept outside a known pool)",
            shadow,
        )
    elif shadow.tag:
        scope.require_live(shadow, session.store)
        process.ledger.session(session.store, session.user, session.database, shadow=True)
