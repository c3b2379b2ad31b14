"""What a call on a connection, cursor or large object of psycopg 2 is: fenced, traced, claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.sql import psycopg2_kept, session
from perflab.shadow.sql.dbapi import Step
from perflab.shadow.sql.session import begin_span, catch_up, settle
from perflab.shadow.sql.statement import read_statement

_IDLE, _INERROR = 0, 3  # libpq's states of a transaction
_READY = 1  # psycopg2's state of a connection: it sends a BEGIN before the next statement
_DATABASE_WIDE = "large objects belong to the whole database; mode {!r} cannot keep them apart"


class _Step(Step):
    kind = "postgresql"

    @staticmethod
    def lose(connection: Any) -> BaseException | None:
        own = psycopg2_kept.own_class(connection)
        if own.closed.__get__(connection):
            return None
        own.close(connection)
        from psycopg2 import OperationalError

        lost: BaseException = OperationalError(session.LOST)
        return lost

    def take_over(self, _instead: Callable[..., Any]) -> bool:
        self.successor = psycopg2_kept.successor(self.owner, self.connection, _instead)
        return self.successor is not None

    def status(self) -> int:
        return int(self.connection.get_transaction_status())


class _Work(_Step):
    """A statement of a cursor."""

    def begin(self) -> None:
        text = self.text()
        self.statement = read_statement(text)
        self.name = self.statement.summary
        connection, idle = self.connection, self.status() == _IDLE
        self.alone = idle and (connection.autocommit or connection.status != _READY)
        catch_up(self.session, alone=idle)
        self.span = begin_span(self.name, self.session, text)

    def text(self) -> str:
        """Return the statement, as it was given or as the driver will write it."""
        if self.call == "callproc":
            return f"SELECT * FROM {self.argument(0, 'procname')}()"
        if self.call in ("copy_from", "copy_to"):
            how = "FROM STDIN" if self.call == "copy_from" else "TO STDOUT"
            return f'COPY "{self.argument(1, "table")}" {how}'
        query = self.argument(0, "sql" if self.call == "copy_expert" else "query")
        if isinstance(query, str):
            return query
        if isinstance(query, bytes):
            return query.decode("utf-8", "replace")
        return str(query.as_string(self.connection) if hasattr(query, "as_string") else query)

    def prepare(self) -> tuple[Any, ...]:
        if self.session is None or not self.session.shadow:
            return self.arguments
        text = self.text()
        if self.session.mode == "database":
            session.to_send(self.session, text)  # remembers what it leaves
            return self.arguments
        values = self.argument(1, "vars_list" if self.call == "executemany" else "vars")
        if self.call in ("execute", "executemany") and values is not None:
            return self._prepare_merged(text, values)
        sent = session.to_send(self.session, text)
        if self.call in ("callproc", "copy_from", "copy_to"):
            if sent != text:
                scope.refuse(self.session.store, f"{self.call} cannot be rewritten; write it as a statement")
            return self.arguments
        if self.arguments:
            return (sent, *self.arguments[1:])
        self.options["sql" if self.call == "copy_expert" else "query"] = sent
        return ()

    def _prepare_merged(self, text: str, values: Any) -> tuple[Any, ...]:
        """Judge what is sent, with the values in it: a value may write itself as any SQL (``AsIs``)."""
        self.options.clear()
        if self.call == "execute":
            return (session.to_send(self.session, self._merged(text, values)),)
        every = list(values)
        for one in every:
            session.to_send(self.session, self._merged(text, one))
        return (session.to_send(self.session, text), every)

    def _merged(self, text: str, values: Any) -> str:
        from psycopg2.extensions import encodings

        return str(self.owner.mogrify(text, values).decode(encodings[self.connection.encoding]))

    def rolls_back(self) -> bool:
        return self.statement.ends in ("rollback", "rollback to")

    def finish(self, error: BaseException | None) -> None:
        counted = self.counted
        if counted is None:
            return
        if error is not None:
            # whether a statement outside a transaction was done is unknown when its connection was lost
            if self.alone and self.connection.closed:
                counted.tally.note(self.statement, -1)
                settle(counted, self.began_ns, kept=True)
            return
        counted.tally.note(self.statement, self.owner.rowcount)
        if self.connection.async_:
            counted.unsettled.append(self.began_ns)  # the answer is not in yet
        elif self.status() == _IDLE:
            kept = self.statement.ends != "rollback" and self.owner.statusmessage != "ROLLBACK"
            settle(counted, self.began_ns, kept=kept)


class _Fence(_Step):
    """A call that sends, but writes no rows of a table."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return getattr(owner, "_perflab_connection", owner)


class _Read(_Step):
    """Reading a cursor with a name, which sends."""

    def rolls_back(self) -> bool:
        return self.call == "close"


class _Ending(_Step):
    """``commit``, ``rollback``, and what rolls back on the way; two phases may end another session's work."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return owner

    def begin(self) -> None:
        commits = self.call.endswith("commit")
        self.name = "COMMIT" if commits else "ROLLBACK"
        status = self.status()
        self.kept = commits and status != _INERROR
        catch_up(self.session, alone=status == _IDLE)
        if (status != _IDLE or self.call.startswith("tpc_")) and not self.connection.closed:
            self.span = begin_span(self.name, self.session)

    def prepare(self) -> tuple[Any, ...]:
        if self.call == "set_client_encoding" and self.session is not None:
            self.session.instead = None  # another connection would have another
        return self.arguments

    def rolls_back(self) -> bool:
        return self.call in ("rollback", "tpc_rollback", "reset")

    def finish(self, error: BaseException | None) -> None:
        counted = self.counted
        if counted is None or self.span is None:
            return
        # a COMMIT whose connection was lost may have been done
        kept = self.kept and (error is None or bool(self.connection.closed))
        counted.tally.opaque |= self.call == "tpc_commit"
        if error is None or self.connection.closed or self.status() == _IDLE:
            settle(counted, self.began_ns, kept=kept)


class _Close(_Step):
    """``close``: marked work may not close, and so roll back, what is open for somebody else."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return owner

    def run(self, method: Any) -> Any:
        known = self.session
        mine = known is not None and known.shadow
        if scope.current() is None or mine or self.connection.closed or self.status() == _IDLE:
            with session.upkeep(known):
                result = method(self.owner, *self.arguments, **self.options)
            self._end(None)
            return result
        return super().run(method)

    def finish(self, _error: BaseException | None) -> None:
        if self.counted is not None:
            self.counted.tally.drop()


class _Poll(_Step):
    """``poll``: where an asynchronous connection of ordinary work learns what was done."""

    @staticmethod
    def connected(owner: Any) -> Any:
        return owner

    def finish(self, _error: BaseException | None) -> None:
        counted = self.counted
        if counted is not None and counted.unsettled and (self.connection.closed or self.status() == _IDLE):
            began_ns = counted.unsettled[0]
            counted.unsettled.clear()
            settle(counted, began_ns, kept=True)


class _Large(_Fence):
    """A large object, which is a row of no table."""

    def prepare(self) -> tuple[Any, ...]:
        if self.session is not None and self.session.shadow and self.session.mode != "database":
            scope.refuse(self.session.store, _DATABASE_WIDE.format(self.session.mode))
        return self.arguments

    def finish(self, _error: BaseException | None) -> None:
        made = self.call == "lobject" and not self.argument(1, "oid")
        if self.counted is not None and (made or self.call in ("write", "truncate", "unlink")):
            self.counted.tally.opaque = True


CONNECTION_STEPS: dict[str, type[Step]] = {
    **dict.fromkeys(
        (
            "commit",
            "rollback",
            "tpc_commit",
            "tpc_rollback",
            "reset",
            "set_client_encoding",
            "set_isolation_level",
        ),
        _Ending,
    ),
    **dict.fromkeys(("tpc_begin", "tpc_prepare", "tpc_recover", "set_session", "cancel"), _Fence),
    **dict.fromkeys(("autocommit", "isolation_level", "readonly", "deferrable"), _Fence),
    "poll": _Poll,
    "close": _Close,
}
CURSOR_STEPS: dict[str, type[Step]] = dict.fromkeys(
    ("execute", "executemany", "callproc", "copy_from", "copy_to", "copy_expert"), _Work
)
NAMED_STEPS: dict[str, type[Step]] = dict.fromkeys(
    ("fetchone", "fetchmany", "fetchall", "scroll", "close", "__next__"), _Read
)
LOBJECT_OPENS: type[Step] = _Large
MAKES: type[Step] = _Fence
"""Making a cursor or large object, where the connection is not the caller's yet."""
LOBJECT_STEPS: dict[str, type[Step]] = dict.fromkeys(
    ("close", "export", "read", "seek", "tell", "truncate", "unlink", "write"), _Large
)
