"""Statements and transactions of asyncpg connections: fenced, traced, delayed, and claimed when ordinary.

All are methods of the driver's protocol; `Connection.transaction()` sends its BEGIN, COMMIT and savepoints
there as texts. Whether a statement may be sent is `perflab.shadow.sql.asyncpg`'s to say; what fails in what
is noted here is counted, and the statement goes on without it.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import Span

from perflab.errors import ShadowError
from perflab.shadow import canaries, scope
from perflab.shadow.scope import process
from perflab.shadow.sql import asyncpg_kept, session
from perflab.shadow.sql.asyncpg import admitted
from perflab.shadow.sql.claims import OPAQUE
from perflab.shadow.sql.session import Session, session_of, settle
from perflab.shadow.sql.statement import Statement, read_statement

_own: dict[str, Statement] = {}
"""Texts the driver itself sends: to look types up, and when a connection returns to its pool."""
_COMMITS = re.compile(r"\b(?:commit|end)\b", re.IGNORECASE)
_READ_AT_ONCE = 2


def hook(module: Any) -> None:
    """Wrap the methods of ``asyncpg``'s protocol that carry a statement out."""
    from asyncpg import exceptions, introspection

    for name, text in vars(introspection).items():
        if name.isupper() and isinstance(text, str):
            _own[text] = Statement("SELECT", "pg_type", "no")
    _hook_reset_query(module.Connection)
    _Work.errors = exceptions
    protocol = module.protocol.Protocol
    for name in ("query", "copy_in", "copy_out"):
        setattr(protocol, name, _of_text(name, getattr(protocol, name)))
    protocol.bind_execute = _bind_execute(protocol.bind_execute)
    for name in ("bind", "bind_execute_many"):
        setattr(protocol, name, _of_state(name, getattr(protocol, name)))


def to_send(known: Session | None, text: str) -> str:
    """Return the statement to send instead of ``text``; the driver's own are sent as they are.

    Raises
    ------
    ShadowError
        If in modes ``schema`` and ``table`` it cannot be proven to reach shadow tables only.
    """
    return text if text in _own else session.to_send(known, text)


def _hook_reset_query(connection_class: Any) -> None:
    get_reset_query = connection_class.get_reset_query

    @functools.wraps(get_reset_query)
    def attached(connection: Any) -> Any:
        text = get_reset_query(connection)
        if len(_own) < 100:  # there is one for each kind of server
            _own.setdefault(text, Statement("RESET", "", "no"))
        return text

    connection_class.get_reset_query = attached


class _Work:
    """One statement under way: what is done before, when it went well, when it failed. Never in the way."""

    __slots__ = (
        "alone", "began_ns", "call", "counted", "delay_ns", "known", "protocol", "span", "statement", "text",
    )  # fmt: skip
    errors: Any

    def __init__(self, call: str, protocol: Any, text: str) -> None:
        self.call, self.protocol, self.text = call, protocol, text
        self.began_ns = time.time_ns()
        self.span: Span | None = None
        self.known: Session | None = None
        self.counted: Session | None = None
        self.delay_ns = 0
        self.statement = Statement("", "", "opaque")
        self._guard(self._begin)

    def _begin(self) -> None:
        self.known = session_of(self.protocol)
        self.counted = self.known if self.known is not None and self.known.claims else None
        self.statement = _own.get(self.text) or read_statement(self.text)
        self.alone = not self.protocol.is_in_transaction()
        session.catch_up(self.known, alone=self.alone)
        name = self.statement.summary
        self.span = session.begin_span(name, self.known, self.text)
        self.delay_ns = scope.delay_ns(name)

    async def carry_out(self, send: Callable[[], Any], *values: Any) -> Any:
        """Send it with these values, if the running code may; rolling a shadow back it always may."""
        try:
            canaries.watch("postgresql", (self.text, values))
            if self.delay_ns:
                await scope.async_wait(self.delay_ns)
            known = self.known
            if known is not None and known.shadow and self.statement.ends in ("rollback", "rollback to"):
                with session.upkeep(known):
                    admitted(self.protocol)
                    answer = await send()
            else:
                admitted(self.protocol)
                answer = await send()
        except BaseException as error:
            if self.span is not None:
                scope.finish(self.span, error)
            self._guard(functools.partial(self._failed, error))
            raise
        if self.span is not None:
            self.span.end()
        return answer

    def done(self, status: str | bytes | None) -> None:
        """Note what the server said at the end of the statement, None where it did not say."""
        if self.counted is not None:
            self._guard(lambda: self._done(status.decode() if isinstance(status, bytes) else status))

    def _done(self, status: str | None) -> None:
        counted, statement = self.counted, self.statement
        if counted is None:
            return
        counted.tally.note(statement, _rows(status))
        inside = self.protocol.is_in_transaction()
        if not inside or statement.ends in ("commit", "rollback"):
            settle(counted, self.began_ns, kept=statement.ends != "rollback" and status != "ROLLBACK")
        if statement.writes == "opaque" and self.call == "query":
            for _ in _COMMITS.findall(self.text)[:100]:  # several statements in one text
                session.claim(counted, OPAQUE, self.began_ns)

    def _failed(self, error: BaseException) -> None:
        counted, errors = self.counted, self.errors
        if counted is None or isinstance(error, (errors.InterfaceError, ShadowError)):  # it was not sent
            return
        connected = self.protocol.is_connected()
        if isinstance(error, errors.PostgresError) and connected:  # the server did not do it
            if not self.protocol.is_in_transaction():
                settle(counted, self.began_ns, kept=False)
        elif self.statement.ends == "commit" or self.alone:  # it may have been done
            counted.tally.note(self.statement, -1)
            settle(counted, self.began_ns, kept=True)
        elif not connected:
            settle(counted, self.began_ns, kept=False)
        elif self.statement.writes != "no":
            counted.tally.opaque = True

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as failure:
            self.counted = None
            process.ledger.step_aside(f"sql: {self.call}: {type(failure).__name__}")


def _of_text(call: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method whose first argument is a statement and whose answer is its status."""

    @functools.wraps(method)
    async def attached(protocol: Any, text: str, *arguments: Any, **options: Any) -> Any:
        protocol = await asyncpg_kept.take_over(protocol)
        if session.pass_by(protocol):
            admitted(protocol)
            return await method(protocol, text, *arguments, **options)
        work = _Work(call, protocol, text)
        status = await work.carry_out(
            lambda: method(protocol, to_send(work.known, text), *arguments, **options), arguments, options
        )
        work.done(status)
        return status

    return attached


def _of_state(call: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method whose first argument is a prepared statement and whose answer does not count rows."""

    @functools.wraps(method)
    async def attached(protocol: Any, state: Any, *arguments: Any, **options: Any) -> Any:
        if session.pass_by(protocol):
            admitted(protocol)
            return await method(protocol, state, *arguments, **options)
        work = _Work(call, protocol, state.query)
        answer = await work.carry_out(
            lambda: method(protocol, state, *arguments, **options), arguments, options
        )
        work.done(None)
        return answer

    return attached


def _bind_execute(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``bind_execute``, which says how many rows were written only when asked, and read to the end.

    For one row (``fetchrow``, ``fetchval``) of what was written, two are asked for: where there is one, the
    server comes to the end and says so. The caller gets what it asked for.
    """

    @functools.wraps(method)
    async def attached(
        protocol: Any, state: Any, args: Any, portal_name: str, limit: int, return_extra: bool, timeout: Any
    ) -> Any:
        if session.pass_by(protocol):
            admitted(protocol)
            return await method(protocol, state, args, portal_name, limit, return_extra, timeout)
        work = _Work("bind_execute", protocol, state.query)
        statement = work.statement
        if work.counted is None or (statement.writes != "rows" and not statement.ends):
            answer = await work.carry_out(
                lambda: method(protocol, state, args, portal_name, limit, return_extra, timeout), args
            )
            work.done(None)
            return answer
        first = limit == 1 and not portal_name
        rows, status, completed = await work.carry_out(
            lambda: method(
                protocol, state, args, portal_name, _READ_AT_ONCE if first else limit, True, timeout
            ),
            args,
        )
        work.done(status)
        if first and rows:
            rows, status, completed = rows[:1], None, False
        return (rows, status, completed) if return_extra else rows

    return attached


def _rows(status: str | None) -> int:
    """Read the count at the end of ``INSERT 0 3``; -1 where there is none."""
    count = (status or "").rpartition(" ")[2]
    return int(count) if count.isdigit() else -1
