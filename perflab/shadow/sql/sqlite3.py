"""SQLite through the standard library: marked work gets the shadow's file, chosen when it connects.

The driver's ``Connection`` and ``Cursor`` are replaced by subclasses under the same names
(`perflab.shadow.sql.dbapi`). A file that is no known store is refused to marked work; a database in memory
is its own, where it opened it itself. A shadow connection can open no other file: SQLite itself asks us
(its authorizer) before it attaches one, ``VACUUM INTO`` included, and extensions are refused.

There is no log of changes, so nothing is claimed here. Reading on through a cursor sends nothing in SQLite,
and is not checked again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable
from typing import Any

from perflab.errors import ShadowError
from perflab.shadow import scope
from perflab.shadow.sql import dbapi, session, sqlite_files, sqlite_kept
from perflab.shadow.sql.dbapi import Classes, Step
from perflab.shadow.sql.internals import require
from perflab.shadow.sql.session import Session, begin_span, session_of
from perflab.shadow.sql.statement import read_statement
from perflab.shadow.stores import Place, Twin

_ATTACH, _FUNCTION, _DENY, _OK = 24, 31, 1, 0  # SQLite's numbers of actions and of an authorizer's answers
_DATABASE_AT, _FACTORY_AT, _URI_AT = 0, 5, 7  # in the arguments of connect
_classes = Classes("sqlite3", "sqlite")
_own = _classes.own


def hook_sqlite3(module: Any) -> None:
    """Route every connection of this process; ``module`` is ``_sqlite3``, which ``sqlite3`` is made from.

    Raises
    ------
    ShadowError
        If this Python's has not what the hook stands on.
    """
    require(
        "sqlite3",
        platform.python_version(),
        {
            module: "Blob Connection Cursor connect",
            module.Connection: "backup blobopen commit cursor in_transaction rollback set_authorizer",
            module.Cursor: " ".join(_CURSOR_STEPS),
            module.Blob: " ".join(_BLOB_STEPS),
        },
    )
    _classes.stand_in(module.Connection, _Connection, _CONNECTION_STEPS, "_perflab", "_perflab_gate")
    _classes.stand_in(module.Cursor, _Cursor, _CURSOR_STEPS)
    _classes.own["blob"] = _classes.ours["blob"] = module.Blob  # which can have no subclass
    connect = _routed(module.connect)
    _classes.put_in_place()
    dbapi.replace("sqlite3", module.connect, connect)


class _Gate:
    """What SQLite asks before a shadow connection does something; then it asks the service's authorizer."""

    def __init__(self, ours: Session) -> None:
        self.session = ours
        self.theirs: Callable[..., Any] | None = None
        self.refusal: ShadowError | None = None

    def __call__(self, action: int, first: Any, second: Any, *where: Any) -> Any:
        try:
            if action == _ATTACH and not _is_harmless(first):
                scope.refuse(
                    self.session.store or "sqlite", f"a shadow connection may not open the file {first!r}"
                )
            if action == _FUNCTION and second == "load_extension":
                _refuse_extension(self.session)
        except ShadowError as refusal:
            self.refusal = refusal
            return _DENY
        return _OK if self.theirs is None else self.theirs(action, first, second, *where)


class _Step(Step):
    kind = "sqlite"

    @staticmethod
    def lose(connection: Any) -> BaseException | None:
        from sqlite3 import OperationalError, ProgrammingError

        try:
            _own["connection"].in_transaction.__get__(connection)
        except ProgrammingError:
            return None
        _own["connection"].close(connection)
        return OperationalError(session.LOST)

    def take_over(self, _instead: Callable[..., Any]) -> bool:
        return sqlite_kept.take_over(self.connection, _own["connection"], _instead, _where)

    def undisturbed(self) -> contextlib.AbstractContextManager[Any]:
        if self.session is None or not self.session.shadow or self.call == "interrupt":
            return contextlib.nullcontext()
        return self.session.lock

    def instead(self, error: BaseException) -> BaseException:
        """Return our refusal instead of SQLite's "not authorized", where we gave SQLite that answer."""
        gate = getattr(self.connection, "_perflab_gate", None)
        if gate is None or gate.refusal is None:
            return error
        refusal: BaseException = gate.refusal
        gate.refusal = None
        return refusal


class _Work(_Step):
    """A statement of a cursor."""

    def begin(self) -> None:
        text = self.argument(0, "sql")
        self.statement = read_statement(text)
        self.name = self.statement.summary
        self.span = begin_span(self.name, self.session, text)

    def prepare(self) -> tuple[Any, ...]:
        if self.session is None or not self.session.shadow or not self.arguments:
            return self.arguments
        return (session.to_send(self.session, self.arguments[0]), *self.arguments[1:])

    def rolls_back(self) -> bool:
        return self.statement.ends in ("rollback", "rollback to")


class _Fence(_Step):
    """A call that changes the database or the connection."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return owner


class _Lasting(_Fence):
    """A call that changes what only this connection has: none that is opened instead would be the same."""

    def prepare(self) -> tuple[Any, ...]:
        if self.session is not None and self.session.shadow:
            self.session.instead = None
        return self.arguments


class _Ending(_Fence):
    """``commit``, ``rollback``, and leaving ``with connection``."""

    def begin(self) -> None:
        left_with = self.call == "__exit__"
        self.back = self.argument(0, "type") is not None if left_with else self.call == "rollback"
        if _is_open_with_work(self.connection):
            self.name = "ROLLBACK" if self.back else "COMMIT"
            self.span = begin_span(self.name, self.session)

    def rolls_back(self) -> bool:
        return self.back


class _Close(_Fence):
    """``close``: marked work may not close, and so roll back, what is open for somebody else."""

    def run(self, method: Any) -> Any:
        known = self.session
        mine = known is not None and known.shadow
        if scope.current() is None or mine or not _is_open_with_work(self.connection):
            return method(self.owner, *self.arguments, **self.options)
        return super().run(method)


class _Backup(_Fence):
    """``backup``: the connection it writes to is asked for, too."""

    def prepare(self) -> tuple[Any, ...]:
        target = self.argument(0, "target")
        session.admit(session_of(target), self.kind, lambda: self.lose(target))
        return self.arguments


class _Extension(_Fence):
    """``load_extension``: what it loads may write anything."""

    def prepare(self) -> tuple[Any, ...]:
        if self.session is not None and self.session.shadow:
            _refuse_extension(self.session)
        return self.arguments


class _BlobStep(_Step):
    """Reading and writing a blob."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return owner._perflab_connection

    def rolls_back(self) -> bool:
        return self.call in ("close", "__exit__")


_CONNECTION_STEPS: dict[str, type[Step]] = {
    **dict.fromkeys(("commit", "rollback", "__exit__"), _Ending),
    **dict.fromkeys(("isolation_level", "autocommit", "interrupt", "serialize"), _Fence),
    **dict.fromkeys(("create_function", "create_aggregate", "create_window_function"), _Lasting),
    **dict.fromkeys(("create_collation", "set_progress_handler", "set_trace_callback"), _Lasting),
    **dict.fromkeys(("setlimit", "setconfig", "deserialize"), _Lasting),
    **dict.fromkeys(("enable_load_extension", "load_extension"), _Extension),
    "backup": _Backup,
    "close": _Close,
}
_CURSOR_STEPS: dict[str, type[Step]] = dict.fromkeys(("execute", "executemany", "executescript"), _Work)
_BLOB_STEPS = ("read", "write", "seek", "tell", "close", "__len__", "__getitem__", "__setitem__", "__exit__")


class _Connection:
    """What is ours of a connection."""

    __slots__ = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        shadow = scope.current()
        if shadow is None:
            super().__init__(*arguments, **options)
            session.keep_ordinary(self, "sqlite", lambda: _where(arguments, options))
            return
        instead = functools.partial(_own["connection"], *arguments, **options)
        name, twin = _reach_shadow(arguments, options, shadow)
        arguments, options = dbapi.with_given(arguments, options, _DATABASE_AT, "database", name)
        arguments, options = dbapi.with_given(arguments, options, _URI_AT, "uri", twin is not None)
        super().__init__(*arguments, **options)
        try:
            gate = _Gate(_kept(self, twin))
            object.__setattr__(self, "_perflab_gate", gate)
            _own["connection"].set_authorizer(self, gate)
            if twin is not None:  # what was in a memory of its own is nowhere else
                gate.session.instead = instead
        except BaseException:
            _own["connection"].close(self)
            raise

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        theirs = dbapi.given(arguments, options, 0, "factory", _own["cursor"])
        factory = theirs and (_classes.fenced(theirs, "cursor") or theirs)
        arguments, options = dbapi.with_given(arguments, options, 0, "factory", factory)
        made = super().cursor(*arguments, **options)  # type: ignore[misc]  # the driver's
        return _classes.checked(made, theirs, "cursor")

    def execute(self, *arguments: Any) -> Any:
        return _Connection.cursor(self).execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return _Connection.cursor(self).executemany(*arguments)

    def executescript(self, *arguments: Any) -> Any:
        return _Connection.cursor(self).executescript(*arguments)

    def set_authorizer(self, *arguments: Any, **options: Any) -> Any:
        gate = getattr(self, "_perflab_gate", None)
        if gate is None or scope.current() is None:
            return _Fence("set_authorizer", self, arguments, options).run(_own["connection"].set_authorizer)
        gate.theirs, gate.session.instead = (
            arguments[0] if arguments else options["authorizer_callback"],
            None,
        )
        return None

    def blobopen(self, *arguments: Any, **options: Any) -> Any:
        return _OurBlob(self, _Lasting("blobopen", self, arguments, options).run(_own["connection"].blobopen))


class _Cursor:
    """What is ours of a cursor."""

    __slots__ = ()


class _Blob:
    """A blob that is open, which can have no subclass; ``isinstance`` takes it for what it holds."""

    def __init__(self, connection: Any, blob: Any) -> None:
        self._perflab_connection, self._blob = connection, blob

    def __repr__(self) -> str:
        return repr(self._blob)

    def __enter__(self) -> Any:
        self._blob.__enter__()
        return self


def _blob_method(name: str) -> Callable[..., Any]:
    def attached(self: Any, *arguments: Any, **options: Any) -> Any:
        return _BlobStep(name, self, arguments, options).run(
            lambda blob, *given, **named: getattr(blob._blob, name)(*given, **named)
        )

    return attached


_OurBlob = type(
    "Blob",
    (_Blob,),
    {
        "__class__": property(lambda _: _own["blob"]),
        **{name: _blob_method(name) for name in _BLOB_STEPS},
    },
)


def _routed(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def attached(*arguments: Any, **options: Any) -> Any:
        theirs = dbapi.given(arguments, options, _FACTORY_AT, "factory", _own["connection"])
        factory = theirs and _classes.fenced(theirs, "connection")
        if factory is None and scope.current() is not None:
            _classes.refuse_factory(theirs)
        arguments, options = dbapi.with_given(arguments, options, _FACTORY_AT, "factory", factory or theirs)
        return _classes.checked(connect(*arguments, **options), theirs, "connection")

    return attached


def _named(arguments: tuple[Any, ...], options: dict[str, Any]) -> sqlite_files.Named:
    name = dbapi.given(arguments, options, _DATABASE_AT, "database", "")
    return sqlite_files.read_name(name, uri=bool(dbapi.given(arguments, options, _URI_AT, "uri", False)))


def _where(arguments: tuple[Any, ...], options: dict[str, Any]) -> Place:
    path = _named(arguments, options).path
    return sqlite_files.place_of(path, session.twins("sqlite")) if path else Place("", 0, ":memory:")


def _reach_shadow(
    arguments: tuple[Any, ...], options: dict[str, Any], shadow: scope.Shadow
) -> tuple[str, Twin | None]:
    """Return the name that opens the shadow of a file instead of it; no store for a database in memory.

    Raises
    ------
    ShadowError
        If the file is not a known one, its shadow is not there, or the run is over.
    """
    try:
        named = _named(arguments, options)
    except (TypeError, ValueError) as error:
        scope.refuse("sqlite", f"which file this is cannot be told: {error}", shadow)
    if named.unclear:
        scope.refuse("sqlite", f"which file this is cannot be told: it is {named.unclear}", shadow)
    if not named.path:
        scope.require_live(shadow, "sqlite")
        return ":memory:", None
    twin = session.twin_for("sqlite", [sqlite_files.place_of(named.path, session.twins("sqlite"))], shadow)
    there = twin.shadow.database
    if not os.path.isfile(there):
        scope.refuse(twin.store.name, f"its shadow {there} is not there; copy production's file", shadow)
    if sqlite_files.same_file(there, twin.production.database):
        scope.refuse(twin.store.name, f"its shadow {there} is production's own file", shadow)
    return sqlite_files.shadow_uri(twin, named.options), twin


def _kept(connection: Any, twin: Twin | None) -> Session:
    """Remember a connection of marked work, after SQLite said which file it has open."""
    if twin is None:
        ours = Session("", True, "", ":memory:", "sqlite")
        session.keep(connection, ours)
        return ours
    ours = session.keep_shadow(connection, twin)
    listed = _own["cursor"](connection).execute("PRAGMA database_list").fetchall()
    session.confirm(twin, sqlite_files.place_of(str(listed[0][2]), session.twins("sqlite")))
    return ours


def _is_harmless(name: Any) -> bool:
    """Tell whether marked work may attach a file: a shadow, or one that is gone when it is closed."""
    if name is None:  # SQLite does not know it yet: it is no literal
        return False
    named = sqlite_files.read_name(name, uri=True)
    if named.unclear or not named.path:
        return not named.unclear
    return any(sqlite_files.same_file(named.path, twin.shadow.database) for twin in session.twins("sqlite"))


def _refuse_extension(ours: Session) -> None:
    scope.refuse(ours.store or "sqlite", "marked work may load no extension: it may write anything")


def _is_open_with_work(connection: Any) -> bool:
    from sqlite3 import ProgrammingError

    try:
        return bool(connection.in_transaction)
    except ProgrammingError:
        return False
