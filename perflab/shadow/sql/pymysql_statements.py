"""Statements and transactions of PyMySQL connections: traced, delayed on demand, and claimed when ordinary.

Every statement of every cursor goes through ``Connection.query``. The server's answer says whether a
transaction is open, so that autocommit, DDL that commits, and ``COMMIT AND CHAIN`` need no second guess.
What fails here is counted, and the statement goes on without it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import Span

from perflab.shadow import canaries, scope
from perflab.shadow.scope import process
from perflab.shadow.sql.claims import OPAQUE
from perflab.shadow.sql.pymysql import place_of
from perflab.shadow.sql.pymysql_shared import refuse_shared
from perflab.shadow.sql.session import (
    Session,
    begin_span,
    claim,
    keep_ordinary,
    session_of,
    settle,
    to_send,
    twins,
    upkeep,
)
from perflab.shadow.sql.statement_mariadb import MariaStatement, read_mariadb

_IN_TRANSACTION, _AUTOCOMMIT, _NO_BACKSLASHES = 1, 2, 512  # the server's status
_FOUND_ROWS = 2  # a client's capability
_DEADLOCK = 1213  # the one error that rolls back the transaction, not the statement


def hook(connection: Any) -> None:
    """Wrap what sends statements in ``pymysql.connections.Connection``, and the cursor's way there."""
    from pymysql.cursors import Cursor

    connection.query = _wrapped(connection.query, _Query)
    connection.next_result = _wrapped(connection.next_result, _NextResult)
    for name in ("begin", "commit", "rollback", "autocommit", "select_db"):
        setattr(connection, name, _wrapped(getattr(connection, name), _ENDINGS.get(name, _Setting)))
    for name in ("execute", "executemany"):
        setattr(Cursor, name, _templated(getattr(Cursor, name), name))


class _Step:
    """One call under way: what is done before, when it went well, when it failed. Never in the way."""

    name = ""
    span: Span | None = None

    def __init__(
        self, call: str, connection: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.call, self.connection, self.arguments, self.options = call, connection, arguments, options
        self.began_ns = time.time_ns()
        self.session: Session | None = None
        self._working = True
        self._guard(self._begin)

    @property
    def counted(self) -> Session | None:
        """The session, if writes on it may have to be claimed: ordinary work's."""
        session = self.session
        return session if session is not None and not session.shadow else None

    def check(self) -> None:
        """Refuse, or rewrite the arguments of, what marked work may not send as it is."""

    def upkeep(self) -> contextlib.AbstractContextManager[Any]:
        """Return what the call runs in; rolling a shadow back is always allowed."""
        return contextlib.nullcontext()

    def planted_ns(self) -> int:
        return scope.delay_ns(self.name) if self.span is not None else 0

    def end(self, error: BaseException | None = None) -> None:
        if self.span is not None:
            scope.finish(self.span, error)
        if self._working:
            self._guard(lambda: self._end(error))

    def _begin(self) -> None: ...

    def _end(self, error: BaseException | None) -> None: ...

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failure:
            self._working = False
            process.ledger.step_aside(f"sql: {self.call}: {type(failure).__name__}")

    def _ended(self) -> bool:
        """Tell whether no transaction is open any more, as far as the server's last word tells."""
        result = getattr(self.connection, "_result", None)
        status = int(self.connection.server_status)
        if result is not None and result.server_status is None:  # rows carry no status
            return bool(status & _AUTOCOMMIT) and not status & _IN_TRANSACTION
        return not status & _IN_TRANSACTION


class _Query(_Step):
    """A statement."""

    read: MariaStatement

    def _begin(self) -> None:
        self.session = session_of(self.connection)
        text = getattr(self.connection, "_perflab_template", None)
        self.read = read_mariadb(self._text if text is None else text)
        self.name = self.read.statement.summary
        self.span = begin_span(self.name, self.session, self.read.shown)

    @property
    def _text(self) -> str:
        sent = self.arguments[0] if self.arguments else self.options["sql"]
        return sent if isinstance(sent, str) else bytes(sent).decode(self.connection.encoding, "replace")

    def check(self) -> None:
        session = session_of(self.connection)
        if session is None or not session.shadow or scope.current() is None:
            canaries.watch("mariadb", self.arguments or self.options["sql"])
            return
        text = self._text
        refuse_shared(self.connection, text)
        sent = to_send(session, text)
        if sent is not text:
            rest = {name: value for name, value in self.options.items() if name != "sql"}
            self.arguments, self.options = (sent, *self.arguments[1:]), rest

    def upkeep(self) -> contextlib.AbstractContextManager[Any]:
        back = self._working and self.read.statement.ends in ("rollback", "rollback to")
        return upkeep(self.session) if back else contextlib.nullcontext()

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None:
            return
        self._mark_elsewhere(session)
        statement = self.read.statement
        if self.read.commits:
            if error is None:
                _settle(self.connection, session, self.began_ns, kept=True)
            elif session.tally.rows or session.tally.opaque:  # it may have failed before it committed
                _claim_opaque(self.connection, session, self.began_ns)
                session.tally.opaque = True
        if error is not None:
            self._fail(session, error)
            return
        result = self.connection._result
        more = bool(result.has_next)
        if self._is_counted():
            session.tally.note(*self._outcome(result))
        if self.read.temporary:
            self._keep_temporary()
        if statement.ends in ("commit", "rollback") or self._ended():
            _settle(self.connection, session, self.began_ns, kept=statement.ends != "rollback")
        if more:
            self.connection._perflab_began_ns = self.began_ns
        if statement.operation == "USE":
            _enter(self.connection, self.read.shown.rstrip("; \n\t")[3:].strip().strip("`"))

    def _mark_elsewhere(self, session: Session) -> None:
        database = self.read.database
        if database and database != session.database.lower():
            self.connection._perflab_elsewhere = True
            session.tally.opaque = True

    def _is_counted(self) -> bool:
        """Tell whether a change stream will show it: not what a temporary table holds."""
        return self.read.statement.table not in getattr(self.connection, "_perflab_temporary", ())

    def _keep_temporary(self) -> None:
        known: set[str] = getattr(self.connection, "_perflab_temporary", set())
        made = self.read.statement.operation == "CREATE"
        self.connection._perflab_temporary = (
            known | {self.read.temporary} if made else known - {self.read.temporary}
        )

    def _outcome(self, result: Any) -> Any:
        affected = int(result.affected_rows) if not result.unbuffered_active else -1
        message = result.message if isinstance(result.message, bytes) else b""
        if int(self.connection.server_status) & _NO_BACKSLASHES and "\\" in self._text:
            return self.read.statement, -1
        numbers = [int(number) for number in re.findall(rb"\d+", message)]
        found_rows = bool(self.connection.client_flag & _FOUND_ROWS)
        many = getattr(self.connection, "_perflab_many", False)
        if many and self.read.counting == "upsert":
            return self.read.statement, -1
        return self.read.outcome(affected, numbers, found_rows=found_rows)

    def _fail(self, session: Session, error: BaseException) -> None:
        lost = not self.connection.open
        code = error.args[0] if error.args else 0
        if lost and (self._ended() or self.read.statement.ends == "commit"):
            # whether it was done is unknown
            if self.read.statement.ends != "commit":
                session.tally.note(self.read.statement, -1)
            _settle(self.connection, session, self.began_ns, kept=True)
        elif lost or code == _DEADLOCK:
            session.tally.drop()


class _NextResult(_Step):
    """The answer to a further statement of a text, or of a procedure."""

    def _begin(self) -> None:
        self.session = session_of(self.connection)
        self.began_ns = getattr(self.connection, "_perflab_began_ns", self.began_ns)

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None:
            return
        session.tally.opaque = True
        if error is None and self._ended():
            _settle(self.connection, session, self.began_ns, kept=True)
        elif error is not None:
            _claim_opaque(self.connection, session, self.began_ns)


class _Ending(_Step):
    """``begin``, ``commit`` and ``rollback`` of a connection."""

    kept = True

    def _begin(self) -> None:
        self.session = session_of(self.connection)
        if self.connection.open:
            self.span = begin_span(self.name, self.session)

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None or self.span is None:
            return
        # a COMMIT whose connection was lost may have been done
        if error is None or not self.connection.open:
            _settle(self.connection, session, self.began_ns, kept=self.kept)


class _Begin(_Ending):
    name = "BEGIN"


class _Commit(_Ending):
    name = "COMMIT"


class _Rollback(_Ending):
    name, kept = "ROLLBACK", False

    def upkeep(self) -> contextlib.AbstractContextManager[Any]:
        return upkeep(self.session)


class _Setting(_Step):
    """``autocommit``, which may commit, and ``select_db``, which may lead elsewhere."""

    database = ""

    def _begin(self) -> None:
        self.session = session_of(self.connection)
        given = self.arguments[0] if self.arguments else next(iter(self.options.values()), "")
        self.database = given if isinstance(given, str) else ""

    def check(self) -> None:
        session = session_of(self.connection)
        if session is not None and session.shadow and self.database:
            to_send(session, f"USE `{self.database}`")

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is not None and error is None and self._ended():
            _settle(self.connection, session, self.began_ns, kept=True)
        if session is not None and error is None and self.database:
            _enter(self.connection, self.database)


_ENDINGS: dict[str, type[_Step]] = {"begin": _Begin, "commit": _Commit, "rollback": _Rollback}


def _enter(connection: Any, database: str) -> None:
    """Claim what ordinary work writes from now on for the store of the database it has entered."""
    session = session_of(connection)
    if session is None or database.lower() == session.database.lower():
        return
    place = place_of(connection)
    tally = session.tally
    keep_ordinary(connection, "mariadb", lambda: type(place)(place.host, place.port, database, place.user))
    entered = session_of(connection)
    if entered is not None and (tally.rows or tally.opaque):  # a transaction over two databases
        entered.tally.opaque = connection._perflab_elsewhere = True


def _settle(connection: Any, session: Session, began_ns: int, *, kept: bool) -> None:
    """Settle a transaction; one that wrote in another database may show there, too."""
    if vars(connection).pop("_perflab_elsewhere", False) and kept:
        _claim_opaque(connection, session, began_ns)
    if session.claims:
        settle(session, began_ns, kept=kept)
    else:
        session.tally.drop()


def _claim_opaque(connection: Any, session: Session, began_ns: int) -> None:
    """Claim that something may have been written in any known database of this server."""
    place = place_of(connection)
    for twin in twins("mariadb"):
        if twin.production.same_server(place):
            claim(
                Session(twin.store.name, False, session.user, session.database, "mariadb"), OPAQUE, began_ns
            )


def _wrapped(method: Callable[..., Any], step_class: type[_Step]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(connection: Any, *arguments: Any, **options: Any) -> Any:
        step = step_class(method.__name__, connection, arguments, options)
        try:
            step.check()
            planted_ns = step.planted_ns()
            if planted_ns:
                scope.sleep(planted_ns)
            with step.upkeep():
                result = method(connection, *step.arguments, **step.options)
        except BaseException as error:
            step.end(error)
            raise
        step.end()
        return result

    return attached


def _templated(method: Callable[..., Any], call: str) -> Callable[..., Any]:
    """Have a statement read before values are put in: faster, and no value gets into a span."""

    @functools.wraps(method)
    def attached(cursor: Any, *arguments: Any, **options: Any) -> Any:
        connection = cursor.connection
        query = arguments[0] if arguments else options.get("query")
        values = arguments[1] if len(arguments) > 1 else options.get("args")
        many = call == "executemany"
        if connection is None or values is None or not isinstance(query, str):
            return method(cursor, *arguments, **options)
        before = vars(connection).get("_perflab_template")
        connection._perflab_template = query
        if many:
            connection._perflab_many = True
        try:
            return method(cursor, *arguments, **options)
        finally:
            if before is None:
                vars(connection).pop("_perflab_template", None)
            if many:
                vars(connection).pop("_perflab_many", None)

    return attached
