"""Statements and transactions of psycopg connections: traced, delayed on demand, and claimed when ordinary.

Nothing here decides whether a statement may be sent (`perflab.shadow.sql.session` does), and nothing here may
stand in the way of one: what fails here is counted, and the statement goes on without it.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from opentelemetry.trace import Span

from perflab.shadow import scope
from perflab.shadow.scope import process
from perflab.shadow.sql.claims import OPAQUE
from perflab.shadow.sql.session import (
    NOT_KEPT,
    Session,
    begin_span,
    catch_up,
    claim,
    pass_by,
    session_of,
    settle,
    upkeep,
)
from perflab.shadow.sql.statement import Statement, read_statement

_IDLE, _INERROR = 0, 3  # libpq's states of a transaction; one that is lost is idle no more


def hook(module: Any) -> None:
    """Wrap cursors, the ends of transactions, and pipelines of ``psycopg``."""
    for prefix, run_async in (("", False), ("Async", True)):
        for name in ("Cursor", "ServerCursor"):
            _hook_cursor(getattr(module, f"{prefix}{name}"), run_async=run_async)
        connection = getattr(module, f"{prefix}Connection")
        for name in ("commit", "rollback", "tpc_commit", "tpc_rollback"):
            _wrap(connection, name, _Ending, run_async=run_async)
        transaction = getattr(module, f"{prefix}Transaction")
        _wrap(transaction, "__aenter__" if run_async else "__enter__", _BlockBegin, run_async=run_async)
        _wrap(transaction, "__aexit__" if run_async else "__exit__", _BlockEnd, run_async=run_async)
        pipeline = getattr(module, f"{prefix}Pipeline")
        for name in ("sync", *(("__aenter__", "__aexit__") if run_async else ("__enter__", "__exit__"))):
            _wrap(pipeline, name, _PipelineSync, run_async=run_async)


class _Step:
    """One call under way: what is done before, when it went well, when it failed. Never in the way."""

    connection: Any
    name = ""
    span: Span | None = None

    def __init__(self, call: str, owner: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.call, self.owner, self.arguments, self.options = call, owner, arguments, options
        self.began_ns = time.time_ns()
        self.session: Session | None = None
        self._working = True
        try:
            self._begin()
        except Exception as failure:
            self._failed(failure)

    @property
    def counted(self) -> Session | None:
        """The session, if writes on it are to be claimed."""
        session = self.session
        return session if session is not None and session.store and not session.shadow else None

    def planted_ns(self) -> int:
        """Return the delay planted here; asked where any is planted at all."""
        return scope.delay_ns(self.name) if self.span is not None else 0

    def rolls_back(self) -> bool:
        """Tell whether the call is upkeep: rolling a shadow back is always allowed."""
        return False

    def end(self, error: BaseException | None = None) -> None:
        if self.span is not None and self.span is not NOT_KEPT:
            scope.finish(self.span, error)
        if self._working:
            try:
                self._end(error)
            except Exception as failure:
                self._failed(failure)

    def _begin(self) -> None: ...

    def _end(self, error: BaseException | None) -> None: ...

    def _failed(self, failure: Exception) -> None:
        self._working = False
        process.ledger.step_aside(f"sql: {self.call}: {type(failure).__name__}")


class _Work(_Step):
    """A statement."""

    def _begin(self) -> None:
        self.connection = self.owner._conn
        self.session = session_of(self.connection)
        query = self.arguments[0] if self.arguments else next(iter(self.options.values()))
        text = _text(query, self.connection)
        self.statement: Statement = read_statement(text)
        self.alone = self.connection.pgconn.transaction_status == _IDLE
        if self.session is not None and self.session.passed:
            catch_up(self.session, alone=self.alone)
        if scope.unnamed():
            self.span = NOT_KEPT
        else:
            self.name = self.statement.summary
            self.span = begin_span(self.name, self.session, text)

    def rolls_back(self) -> bool:
        return self._working and self.statement.ends in ("rollback", "rollback to")

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None:
            return
        pipeline = self.connection._pipeline is not None
        if error is not None:
            # whether a statement outside a transaction was done is unknown when its connection was lost
            if self.alone and self.connection.autocommit and self.connection.broken:
                session.tally.note(self.statement, -1)
                settle(session, self.began_ns, kept=True)
            return
        if self.statement.writes != "no" or self.statement.ends:
            session.tally.note(self.statement, -1 if pipeline else self._rows())
        if not pipeline and self.connection.pgconn.transaction_status == _IDLE:
            kept = self.statement.ends != "rollback" and self.owner.statusmessage != "ROLLBACK"
            settle(session, self.began_ns, kept=kept)

    def _rows(self) -> int:
        returning = self.call == "executemany" and len(getattr(self.owner, "_results", ())) > 1
        return -1 if returning else int(self.owner.rowcount)


class _Ending(_Step):
    """``commit`` and ``rollback`` of a connection; the two-phase ones may end another session's work."""

    def _begin(self) -> None:
        self.connection = self.owner
        self.session = session_of(self.connection)
        self.name = self.call.removeprefix("tpc_").upper()
        status = self.connection.pgconn.transaction_status
        if self.session is not None and self.session.passed:
            catch_up(self.session, alone=status == _IDLE)
        self.kept = self.name == "COMMIT" and status != _INERROR
        if (status != _IDLE or self.call.startswith("tpc_")) and not self.connection.closed:
            self.span = begin_span(self.name, self.session)

    def rolls_back(self) -> bool:
        return self.call.endswith("rollback")

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None or self.span is None:
            return
        # a COMMIT whose connection was lost may have been done
        kept = self.kept and (error is None or self.connection.broken)
        session.tally.opaque |= self.call == "tpc_commit"
        if self.connection._pipeline is not None:
            _put_off(session, self.began_ns, kept=kept)
        elif error is None or self.connection.pgconn.transaction_status == _IDLE or self.connection.closed:
            settle(session, self.began_ns, kept=kept)


class _BlockBegin(_Step):
    """Entering ``with connection.transaction()``: a savepoint, unless it is the outer one."""

    def _end(self, error: BaseException | None) -> None:
        session = session_of(self.owner._conn)
        if session is not None and error is None and self.owner.savepoint_name:
            session.tally.save(self.owner.savepoint_name)


class _BlockEnd(_Step):
    """Leaving ``with connection.transaction()``."""

    def _begin(self) -> None:
        self.connection = self.owner._conn
        self.session = session_of(self.connection)
        self.outer = bool(self.owner._outer_transaction)
        self.back = bool(self.arguments[0]) or self.owner.force_rollback
        self.name = ("ROLLBACK" if self.back else "COMMIT") if self.outer else "SAVEPOINT"
        self.aborted = self.connection.pgconn.transaction_status == _INERROR
        catch_up(self.session, alone=False)
        if not self.connection.closed:
            self.span = begin_span(self.name, self.session)

    def rolls_back(self) -> bool:
        return self._working and self.back

    def _end(self, error: BaseException | None) -> None:
        session = self.counted
        if session is None:
            return
        if not self.outer:
            if self.back:
                session.tally.take_back(self.owner.savepoint_name)
            session.tally.release(self.owner.savepoint_name)
            return
        kept = not self.back and not self.aborted and (error is None or self.connection.broken)
        (settle if self.connection._pipeline is None else _put_off)(session, self.began_ns, kept=kept)


class _PipelineSync(_Step):
    """A point where a pipeline's answers are all in: what was committed in it is settled."""

    def _end(self, error: BaseException | None) -> None:
        connection = self.owner._conn
        session = session_of(connection)
        if session is None or not session.claims:
            return
        for began_ns in session.unsettled:
            claim(session, OPAQUE, began_ns)
        session.unsettled.clear()
        if connection.autocommit and not connection._num_transactions:
            settle(session, self.began_ns, kept=error is None or connection.broken)


def _put_off(session: Session, began_ns: int, *, kept: bool) -> None:
    """Settle what was committed in a pipeline when its answers are in."""
    if session.tally.take() and kept:
        session.unsettled.append(began_ns)


def _wrap(owner: Any, name: str, step_class: type[_Step], *, run_async: bool) -> None:
    method = owner.__dict__.get(name)
    if method is None:
        return

    of_connection = step_class is _Ending

    @functools.wraps(method)
    def attached(self: Any, *arguments: Any, **options: Any) -> Any:
        if pass_by(self if of_connection else self._conn):
            return method(self, *arguments, **options)
        step = step_class(name, self, arguments, options)
        try:
            planted_ns = step.planted_ns() if process.control.planted else 0
            if planted_ns:
                scope.sleep(planted_ns)
            if step.session is not None and step.session.shadow and step.rolls_back():
                with upkeep(step.session):
                    result = method(self, *arguments, **options)
            else:
                result = method(self, *arguments, **options)
        except BaseException as error:
            step.end(error)
            raise
        step.end()
        return result

    @functools.wraps(method)
    async def attached_async(self: Any, *arguments: Any, **options: Any) -> Any:
        if pass_by(self if of_connection else self._conn):
            return await method(self, *arguments, **options)
        step = step_class(name, self, arguments, options)
        try:
            planted_ns = step.planted_ns() if process.control.planted else 0
            if planted_ns:
                await scope.async_wait(planted_ns)
            if step.session is not None and step.session.shadow and step.rolls_back():
                with upkeep(step.session):
                    result = await method(self, *arguments, **options)
            else:
                result = await method(self, *arguments, **options)
        except BaseException as error:
            step.end(error)
            raise
        step.end()
        return result

    setattr(owner, name, attached_async if run_async else attached)


def _hook_cursor(cursor_class: Any, *, run_async: bool) -> None:
    for name in ("execute", "executemany"):
        _wrap(cursor_class, name, _Work, run_async=run_async)
    if "copy" in cursor_class.__dict__:
        wrap_copy = _wrap_copy_async if run_async else _wrap_copy
        cursor_class.copy = wrap_copy(cursor_class.copy)
    if "stream" in cursor_class.__dict__:
        wrap_stream = _wrap_stream_async if run_async else _wrap_stream
        cursor_class.stream = wrap_stream(cursor_class.stream)


def _wrap_copy(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    @contextlib.contextmanager
    def attached(cursor: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        step = _Work("copy", cursor, arguments, options)
        try:
            with method(cursor, *arguments, **options) as copy:
                yield copy
        except BaseException as error:
            step.end(error)
            raise
        step.end()

    return attached


def _wrap_copy_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    @contextlib.asynccontextmanager
    async def attached(cursor: Any, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        step = _Work("copy", cursor, arguments, options)
        try:
            async with method(cursor, *arguments, **options) as copy:
                yield copy
        except BaseException as error:
            step.end(error)
            raise
        step.end()

    return attached


def _wrap_stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(cursor: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        step = _Work("stream", cursor, arguments, options)
        try:
            yield from method(cursor, *arguments, **options)
        except BaseException as error:
            step.end(error)
            raise
        step.end()

    return attached


def _wrap_stream_async(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def attached(cursor: Any, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        step = _Work("stream", cursor, arguments, options)
        try:
            async with contextlib.aclosing(method(cursor, *arguments, **options)) as rows:
                async for row in rows:
                    yield row
        except BaseException as error:
            step.end(error)
            raise
        step.end()

    return attached


def _text(query: Any, connection: Any) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    return str(query.as_string(connection)) if hasattr(query, "as_string") else str(query)
