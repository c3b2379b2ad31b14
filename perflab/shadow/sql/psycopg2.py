"""PostgreSQL through psycopg 2: marked work gets the shadow database, chosen when it connects.

The driver's ``connection``, ``cursor`` and ``lobject`` are replaced by subclasses under the same names
(`perflab.shadow.sql.dbapi`): whatever is sent is checked in them. What cannot be made of them is refused to
marked work and makes a hole where ordinary work uses it: factories that are no classes, replication.
Asynchronous connections are refused to marked work, since their server cannot be asked who it is.

Not covered: code that talks to libpq itself (``get_native_connection``, ``pgconn_ptr``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import dbapi, libpq, session
from perflab.shadow.sql.dbapi import Classes
from perflab.shadow.sql.internals import require
from perflab.shadow.sql.psycopg2_steps import (
    CONNECTION_STEPS,
    CURSOR_STEPS,
    LOBJECT_OPENS,
    LOBJECT_STEPS,
    MAKES,
    NAMED_STEPS,
)
from perflab.shadow.stores import Place, Twin

_WHO = "SELECT current_database(), session_user"
_classes = Classes("psycopg2", "postgresql")


def hook_psycopg2(module: Any) -> None:
    """Route every psycopg 2 connection of this process, and trace and guard every statement.

    Raises
    ------
    ShadowError
        If this psycopg2 has not what the hook stands on.
    """
    native = module._psycopg
    require(
        "psycopg2",
        str(module.__version__),
        {
            native: "_connect connection cursor lobject",
            native.connection: "async_ autocommit closed cursor_factory get_transaction_status info status "
            + " ".join(CONNECTION_STEPS),
            native.cursor: "connection name rowcount statusmessage "
            + " ".join((*CURSOR_STEPS, *NAMED_STEPS)),
            native.lobject: " ".join(LOBJECT_STEPS),
        },
        at_least="2.9",
    )
    _classes.stand_in(native.connection, _Connection, CONNECTION_STEPS, "_perflab", "_perflab_counterpart")
    _classes.stand_in(native.cursor, _Cursor, CURSOR_STEPS)
    _classes.stand_in(native.lobject, _Lobject, LOBJECT_STEPS, "_perflab_connection")
    connect = _routed(native._connect)
    _classes.put_in_place()
    dbapi.replace("psycopg2", native._connect, connect)


class _Connection:
    """What is ours of a connection."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        shadow = scope.current()
        if shadow is None:
            super().__init__(*arguments, **options)
            session.keep_ordinary(self, "postgresql", lambda: _where(self))
            return
        instead = functools.partial(_open_as_asked, type(self), *arguments, **options)
        dsn = arguments[0] if arguments else options.get("dsn", "")
        if any(arguments[1:]) or options.get("async") or options.get("async_"):
            scope.refuse("postgresql", "an asynchronous connection of psycopg2 is not covered", shadow)
        dsn, twin = _reach_shadow(dsn, shadow)
        known = session.keep_shadow(self, twin)  # a wait callback polls it while it connects
        super().__init__(dsn)  # type: ignore[call-arg]  # the driver's class comes next, not object
        try:
            _confirm(self, twin)
        except BaseException:
            _classes.own["connection"].close(self)
            raise
        known.instead = instead

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return _made(self, "cursor", 1, arguments, options)

    def lobject(self, *arguments: Any, **options: Any) -> Any:
        return _made(self, "lobject", 4, arguments, options)


class _Cursor:
    """What is ours of a cursor. One with a name sends whenever it is read: it becomes one that is fenced."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.name is not None:  # type: ignore[attr-defined]  # the driver's
            made: Any = type(self)
            self.__class__ = dbapi.beneath(made, _named_cursor())


class _Lobject:
    """What is ours of a large object; to open it sends."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        object.__setattr__(self, "_perflab_connection", dbapi.given(arguments, options, 0, "conn"))
        LOBJECT_OPENS("lobject", self, arguments, options).run(_classes.own["lobject"].__init__)


def _made(connection: Any, name: str, at: int, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return a cursor or large object of a connection, which ordinary work that found it takes over first."""

    def make(connection: Any, *arguments: Any, **options: Any) -> Any:
        theirs = dbapi.given(arguments, options, at, f"{name}_factory")
        theirs = theirs or (connection.cursor_factory if name == "cursor" else None)
        factory = _classes.fenced(theirs, name) or theirs
        arguments, options = dbapi.with_given(arguments, options, at, f"{name}_factory", factory)
        made = getattr(_classes.own["connection"], name)(connection, *arguments, **options)
        return _classes.checked(made, theirs, name)

    known = session.session_of(connection)
    if known is not None and known.shadow and scope.current() is None:
        return MAKES(name, connection, arguments, options).run(make)
    return make(connection, *arguments, **options)


def _open_as_asked(connection_class: Any, *arguments: Any, **options: Any) -> Any:
    """Open what a shadow connection was asked to be; what its service's class adds, it gets from that one."""
    made = connection_class.__new__(connection_class)
    _Connection.__init__(made, *arguments, **options)
    return made


@functools.cache
def _named_cursor() -> Any:
    """Return the class of cursors with a name."""
    own, ours = _classes.own["cursor"], _classes.ours["cursor"]
    body: dict[str, Any] = {"__slots__": (), "__module__": own.__module__}
    for name, step_class in NAMED_STEPS.items():
        body[name] = dbapi.stepped(getattr(own, name), step_class)
    return type(own.__name__, (ours,), body)


def _routed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(dsn: Any, connection_factory: Any = None, *arguments: Any, **options: Any) -> Any:
        factory = _classes.fenced(connection_factory, "connection")
        if factory is None and scope.current() is not None:
            _classes.refuse_factory(connection_factory)
        made = connect(dsn, factory or connection_factory, *arguments, **options)
        return _classes.checked(made, connection_factory, "connection")

    return attached


def _reach_shadow(dsn: Any, shadow: scope.Shadow) -> tuple[str, Twin]:
    """Return the DSN that reaches the shadow of a database instead of it.

    Raises
    ------
    ShadowError
        If the database is not a known one, or the run is over.
    """
    from psycopg2 import Error, extensions

    try:
        given = extensions.parse_dsn(dsn)
        places = libpq.places(given)
    except (TypeError, ValueError, Error) as error:
        scope.refuse("postgresql", f"where this connection would go cannot be told: {error}", shadow)
    twin = session.twin_for("postgresql", places, shadow)
    kept = {key: value for key, value in given.items() if key not in libpq.LOGIN}
    return extensions.make_dsn(**kept, **libpq.shadow_login(twin)), twin


def _where(connection: Any) -> Place:
    info = connection.info
    return Place(info.host or "", info.port, info.dbname, info.user)


def _confirm(connection: Any, twin: Twin) -> None:
    own = _classes.own["connection"]
    own.autocommit.__set__(connection, True)  # so that the question leaves no transaction open
    cursor = _classes.own["cursor"](connection)
    cursor.execute(_WHO)
    database, user = cursor.fetchone()
    own.autocommit.__set__(connection, False)
    info = connection.info
    session.confirm(twin, Place(info.host or "", info.port, database, user))
