"""MariaDB and MySQL through PyMySQL: marked work gets the shadow database, chosen when it connects.

Where a connection leads is decided in its ``connect``, when option files and defaults have been read, and
again when it reconnects: ``ping(reconnect=True)`` may. The server is asked who it is right after the login,
before anything else is sent. All that a connection sends goes through ``_execute_command`` and
``_write_bytes``, and there it is checked again (`perflab.shadow.sql.session.admit`). Statements are traced
in `perflab.shadow.sql.pymysql_statements`.

A connection object that marked work made and ordinary work finds leads from then on where it was made to
lead: ordinary work takes it over, or has it connect again after it was closed, as a lost connection is.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import session
from perflab.shadow.sql.session import session_of
from perflab.shadow.stores import Place, Twin

_WHO = "SELECT DATABASE(), CURRENT_USER(), SESSION_USER()"
_COM_QUERY, _NO_BACKSLASHES = 3, 512
_LOGIN = ("host", "port", "unix_socket", "user", "password", "db", "server_public_key")


@dataclass(slots=True)
class Lead:
    """Where a shadow connection was made to lead, and whether its shadow shares production's server."""

    given: dict[str, Any]
    twin: Twin
    one_server: bool


def hook_pymysql(module: Any) -> None:
    """Route every PyMySQL connection, and trace and guard every statement; ``module`` is ``connections``."""
    from perflab.shadow.sql import pymysql_statements

    connection = module.Connection
    connection.connect = _routed(connection.connect)
    connection._request_authentication = _confirmed(connection._request_authentication)
    connection._execute_command = _fenced(connection._execute_command)
    connection._write_bytes = _permitted(_fenced(connection._write_bytes))
    connection.next_result = _fenced(connection.next_result)
    connection.close = _closing(connection.close)
    result = module.MySQLResult
    result._read_rowdata_packet_unbuffered = _fenced_row(result._read_rowdata_packet_unbuffered)
    pymysql_statements.hook(connection)


def lead_of(connection: Any) -> Lead | None:
    """Return where a shadow connection was made to lead; None for others."""
    found = getattr(connection, "_perflab_lead", None)
    return found if isinstance(found, Lead) else None


def _routed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(connection: Any, sock: Any = None) -> Any:
        shadow = scope.current()
        known = session_of(connection)
        if shadow is None:
            if known is not None and known.shadow:
                _restore(connection)
            session.keep_ordinary(connection, "mariadb", lambda: place_of(connection))
            return connect(connection, sock)
        if known is not None and not known.shadow:
            _admit(connection)
        if sock is not None:
            scope.refuse("mariadb", "where a socket of the service's own leads cannot be told", shadow)
        _lead_to_shadow(connection, shadow)
        with scope.permit():
            made = connect(connection)
        opened = session_of(connection)
        if opened is not None:
            opened.instead = _afresh
        return made

    return attached


def _lead_to_shadow(connection: Any, shadow: scope.Shadow) -> None:
    """Have a connection that is about to connect reach the shadow of its database instead of it.

    Raises
    ------
    ShadowError
        If the database is not a known one, or the run is over.
    """
    twin = session.twin_for("mariadb", [place_of(connection)], shadow)
    there, one_server = twin.shadow, twin.shadow.same_server(twin.production)
    given = {name: getattr(connection, name) for name in _LOGIN if hasattr(connection, name)}
    before = lead_of(connection)
    connection._perflab_lead = Lead(before.given if before else given, twin, one_server)
    is_path = there.host.startswith("/")
    connection.unix_socket = there.host if is_path else None
    connection.host = "localhost" if is_path else there.host
    connection.port = there.port
    connection.user, connection.db = there.user, there.database
    connection.password = there.password.encode()
    if not one_server:
        connection.server_public_key = None  # production's
    session.keep_shadow(connection, twin)


def _restore(connection: Any) -> None:
    """Have a connection lead where it was made to lead: ordinary work connects it again."""
    lead = lead_of(connection)
    if lead is not None:
        vars(connection).update(lead.given)
        del connection._perflab_lead


def _afresh(connection: Any) -> Any:
    """Open what the service of a shadow connection had asked for, in an object of its own."""
    fresh = object.__new__(type(connection))
    vars(fresh).update(_plain(connection), _sock=None, _rfile=None, _result=None)
    lead = lead_of(connection)
    vars(fresh).update(lead.given if lead else {})
    fresh.connect()
    return fresh


def _take_over(connection: Any, instead: Callable[..., Any]) -> bool:
    """Have a shadow connection go on as one that is opened instead; not while an answer is being read.

    A statement was written for the server it was found on: strings must be read alike by both.
    """
    result = connection._result
    reading = result is not None and (result.unbuffered_active or result.has_next)
    if lead_of(connection) is None or connection._closed or reading:
        return False
    fresh = instead(connection)
    if (fresh.server_status ^ connection.server_status) & _NO_BACKSLASHES:
        fresh.close()
        return False
    connection._force_close()
    vars(connection).update(_plain(fresh))
    fresh._sock = fresh._rfile = None  # whose end would close them
    del connection._perflab_lead
    session.keep_ordinary(connection, "mariadb", lambda: place_of(connection))
    return True


def _plain(connection: Any) -> dict[str, Any]:
    """Return what a connection has that is not ours."""
    return {name: value for name, value in vars(connection).items() if not name.startswith("_perflab")}


def place_of(connection: Any) -> Place:
    """Return where a connection leads, or will when it connects."""
    user, database = (
        value.decode() if isinstance(value, bytes) else str(value or "")
        for value in (connection.user, connection.db)
    )
    return Place(connection.unix_socket or connection.host, connection.port, database, user)


def _confirmed(authenticate: Callable[..., Any]) -> Callable[..., Any]:
    """Ask the server of a shadow connection who it is, before anything else is sent."""

    @functools.wraps(authenticate)
    def attached(connection: Any) -> Any:
        answer = authenticate(connection)
        lead = lead_of(connection)
        if lead is not None:
            connection._execute_command(_COM_QUERY, _WHO)  # past the hooks of statements
            connection._read_query_result()
            database, current, login = (_text(value) for value in connection._result.rows[0])
            connection._result = None
            user = current.rpartition("@")[0]
            if login.rpartition("@")[0] != user:
                user = f"{user} (logged in as {login})"
            here = place_of(connection)
            session.confirm(lead.twin, Place(here.host, here.port, database, user))
        return answer

    return attached


def _fenced(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check, before a connection sends or reads anything, that the running code may use it."""

    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        _admit(connection)
        return method(connection, *arguments, **options)

    return attached


def _fenced_row(method: Callable[..., Any]) -> Callable[..., Any]:
    """Check that the running code may read on in an answer that comes row by row."""

    @functools.wraps(method)
    def attached(result: Any) -> Any:
        if result.connection is not None:
            _admit(result.connection)
        return method(result)

    return attached


def _permitted(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let what passed the fence pass the guard of sockets."""

    @functools.wraps(method)
    def attached(connection: Any, data: Any) -> Any:
        if scope.current() is None:
            return method(connection, data)
        known = session_of(connection)
        alone = known.lock if known is not None else contextlib.nullcontext()
        with scope.permit(), alone:  # or ordinary work might take the connection over just before it is sent
            return method(connection, data)

    return attached


def _closing(close: Callable[..., Any]) -> Callable[..., Any]:
    """Let a shadow be closed at any time, and a real user's connection not by marked work."""

    @functools.wraps(close)
    def attached(connection: Any) -> Any:
        known = session_of(connection)
        if known is not None and not known.shadow and connection.open and scope.current() is not None:
            _admit(connection)
        with session.upkeep(known):
            return close(connection)

    return attached


def _admit(connection: Any) -> None:
    known = session_of(connection)
    if scope.current() is not None or (known is not None and known.shadow):
        session.admit(
            known, "mariadb", lambda: _close(connection), lambda instead: _take_over(connection, instead)
        )


def _close(connection: Any) -> BaseException | None:
    if not connection.open:
        return None
    connection._force_close()
    from pymysql.constants import CR
    from pymysql.err import OperationalError

    lost: BaseException = OperationalError(CR.CR_SERVER_LOST, session.LOST)
    return lost


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
