"""Read what production's MariaDB changed while a run went on, from its binary log.

The audit listens as a replica does, from the present position on, with a server id of its own that no
replica has; it is never registered, so that semi-synchronous replication does not wait for it. One connection
carries the log, one asks the audit's questions, one the library's; statements and locks time out. Nothing is
created on the server and no table is locked; when the controller dies, the server ends what is left at its
next heartbeat.

Rows can be told only from row events; what a session wrote as a *statement* (``binlog_format`` STATEMENT or
MIXED) is searched for canaries as text, and said not to be checked. The log's times are whole seconds, of
the moment a statement began; when an event arrived narrows them down.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.mariadb_login import arguments, connect, said
from perflab.units import NS_PER_S

from .attribution import Change, Claim
from .binlogevents import Group, LogEvent, Statement, decode, wanted_events
from .mariadbserver import (
    HOW_TO_GRANT,
    check_server,
    clock_difference_ns,
    file_number,
    free_server_id,
    position,
)
from .mariadbtables import Catalogue, read_catalogue
from .pgoutput import RowChange

if TYPE_CHECKING:
    import pymysql

_EVENTS_PER_POLL = 50_000
_POLL_S = 5.0
_CHANGES_KEPT = 500_000
_HEARTBEAT_S = 0.2
_SILENCE_S = 10
_PATIENCE_S = 600  # how long the server keeps what nobody polls for: a pause between two phases of a run
LIMITS = (
    (
        "sequences, advisory locks (GET_LOCK) and temporary tables are not in the binlog as changes: that"
        " they were left alone follows from the refused login"
    ),
    "other schemas of the server are searched for canaries; who changed them otherwise is not asked",
    "a session with the right to it can switch its own binlog off (SET sql_log_bin = 0): that is not seen",
    (
        "the binlog's times are whole seconds, so a change may lie up to 1.25 s off the claim that accounts"
        " for it"
    ),
)

Row = Callable[[RowChange, int, str, str], object]


class BinlogCapture:
    """The change stream of one schema; rows of other schemas are searched for canaries, and not counted.

    Parameters
    ----------
    url : str
        A login on production's server that may read its binlog.
    schema : str
        Production's schema.
    on_row : callable
        Called with every row change, its time (Unix ns by this machine's clock), its transaction's GTID and
        the file and offset of its event.
    is_shadow : callable
        Tells whether a table, written ``schema.table``, is the shadow's.

    Attributes
    ----------
    not_checked : list of str
        What could not be seen, in plain words; a store with any is not proven.
    limits : list of str
        What the method cannot see here.
    """

    unit = "transactions"
    removed_by_server = 0

    def __init__(
        self, url: str, schema: str, on_row: Row, is_shadow: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.not_checked: list[str] = []
        self.limits = list(LIMITS)
        self.shadow_changes = 0
        self._url, self._schema, self._on_row, self._is_shadow = url, schema, on_row, is_shadow
        self._session: pymysql.Connection[Any] | None = None
        self._log: Any = None
        self._stream: pymysql.Connection[Any] | None = None
        self._changes: list[Change] = []
        self._catalogue = Catalogue()
        self._clock_ns = 0
        self._group = Group()
        self._end: tuple[int, int] | None = None
        self._statements = 0

    @property
    def session(self) -> pymysql.Connection[Any] | None:
        """The audit's own session on production, None when closed."""
        return self._session

    def open(self) -> None:
        """Join the log at its present end; from here on every commit is seen.

        Raises
        ------
        ShadowError
            If the server or the login does not allow it; the message says what to change.
        """
        import pymysql

        try:
            self._session = connect(self._url)
            self.not_checked += check_server(self._session, self._schema)
            self._catalogue = read_catalogue(self._session, self._schema)
            self._say_what_is_hidden()
            self._clock_ns = clock_difference_ns(self._session)
            self._log = self._join(*position(self._session))
            self._read_until(position(self._session), time.monotonic() + _SILENCE_S)
        except (pymysql.MySQLError, OSError) as error:
            self.close()
            raise ShadowError(f"production's binlog cannot be read: {said(error)}; {HOW_TO_GRANT}") from error
        except ShadowError:
            self.close()
            raise

    def poll(self) -> bool:
        """Read what was committed since the last call; bounded by a count and a time.

        Returns
        -------
        bool
            Whether everything that was in the log at the time of the call was read.

        Raises
        ------
        ShadowError
            If the log broke off: changes since then cannot be had any more.
        """
        import pymysql

        if self._session is None:
            return True
        try:
            return self._read_until(position(self._session), time.monotonic() + _POLL_S)
        except (pymysql.MySQLError, OSError) as error:
            raise ShadowError(f"production's binlog broke off: {said(error)}") from error

    def end(self) -> None:
        """Fix the end of the window: what is committed after it needs no claim."""
        if self._end is None and self._session is not None:
            name, offset = position(self._session)
            self._end = (file_number(name), offset)

    def drain(self, deadline_s: float) -> None:
        """Read up to the end of the window, and what was committed by now for canaries.

        Raises
        ------
        ShadowError
            If that was not reached in time.
        """
        if self._session is None:
            return
        self.end()
        until = time.monotonic() + deadline_s
        while not self.poll():
            if time.monotonic() > until:
                raise ShadowError("production wrote faster than its binlog could be read")
        self._catalogue.tables.logged |= read_catalogue(self._session, self._schema).tables.logged
        self.not_checked += check_server(self._session, self._schema)
        if self._statements:
            self.not_checked.append(
                f"which rows {self._statements} statements changed: they were written to the binlog as"
                " statements (a session with binlog_format STATEMENT or MIXED), not as rows"
            )

    def changes(self) -> list[Change]:
        """Return the transactions of the window, oldest first."""
        return self._changes

    def claims(self, rows: Sequence[dict[str, Any]]) -> list[Claim]:
        """Read the agents' claims as this server's binlog would have written them down."""
        return [claim for row in rows if (claim := self._catalogue.tables.claim(row)) is not None]

    def close(self) -> None:
        """End all connections, and the server's thread that fed us; again does nothing."""
        import pymysql

        session, self._session = self._session, None
        stream, self._stream = self._stream, None
        log, self._log = self._log, None
        try:
            if session is not None and stream is not None:
                with session.cursor() as cursor:
                    cursor.execute(f"KILL CONNECTION {int(stream.thread_id())}")
        except (pymysql.MySQLError, OSError):
            pass  # it ends by itself, at the server's next heartbeat
        for one in (log, session):
            if one is not None:
                with contextlib.suppress(pymysql.MySQLError, OSError):  # closed already
                    one.close()

    def _say_what_is_hidden(self) -> None:
        found = self._catalogue
        if found.elsewhere:
            self.not_checked.append(
                f"what {', '.join(found.elsewhere)} changed where their data lie: their engines keep it"
                f" on another"
                " server"
            )
        if found.unsearchable:
            self.not_checked.append(
                f"canaries in {', '.join(found.unsearchable[:8])}: columns that are compressed, or of a"
                f" character"
                " set of two or four bytes, cannot be searched in the binlog"
            )
        if found.cascading:
            self.limits.append(
                f"rows changed by foreign keys that cascade from {', '.join(found.cascading[:8])} are"
                f" not in the"
                " binlog; the change they follow from is"
            )

    def _join(self, file: str, offset: int) -> Any:
        from pymysqlreplication import BinLogStreamReader

        assert self._session is not None
        return BinLogStreamReader(
            {**arguments(self._url), "read_timeout": _SILENCE_S},
            server_id=free_server_id(self._session),
            log_file=file,
            log_pos=offset,
            resume_stream=True,
            blocking=True,
            only_events=wanted_events(),
            slave_heartbeat=_HEARTBEAT_S,
            ignore_decode_errors=True,
            enable_logging=False,
            pymysql_wrapper=self._connect,
        )

    def _connect(self, **settings: Any) -> pymysql.Connection[Any]:
        """Connect for the library, which asks again when a connection broke: then changes may be lost."""
        import pymysql

        if "db" in settings:  # the library's own questions
            settings["database"] = settings.pop("db")
            return pymysql.connect(**settings)
        if self._stream is not None:
            raise ShadowError("production's binlog broke off: the server ended the audit's connection")
        self._stream = pymysql.connect(**settings)
        with self._stream.cursor() as cursor:
            cursor.execute(f"SET SESSION net_write_timeout = {_PATIENCE_S}")
        return self._stream

    def _read_until(self, target: tuple[str, int], until: float) -> bool:
        """Read events until the log's position is reached; heartbeats carry it where nothing is written."""
        assert self._log is not None
        wanted = (file_number(target[0]), target[1])
        for _ in range(_EVENTS_PER_POLL):
            if (file_number(self._log.log_file), self._log.log_pos) >= wanted and self._stream is not None:
                return True
            if time.monotonic() > until:
                return False
            event = self._log.fetchone()
            if event is None:
                raise ShadowError("production's binlog broke off: the server says that it has ended")
            self._take(decode(event))
        return False

    def _take(self, event: LogEvent) -> None:
        """Take one event into the transaction it belongs to."""
        if event.problem and event.problem not in self.not_checked:
            self.not_checked.append(event.problem)
        if event.kind == "gtid":
            self._group = Group(event.gtid, open=not event.standalone)
        elif event.kind == "begin":
            self._group.open = True
        elif event.kind != "other":
            time_ns = self._time_ns(event.timestamp_s)
            where = f"{self._log.log_file}:{event.offset}"
            for change in event.rows:
                self._note(change, time_ns, where)
            if event.statement is not None:
                self._note_statement(event.statement, time_ns, where)
            if event.kind == "end" or (event.kind == "statement" and not self._group.open):
                self._commit(time_ns, event.offset)

    def _note(self, change: RowChange, time_ns: int, where: str) -> None:
        if self._is_shadow(change.table):
            self.shadow_changes += 1
            return
        schema, _, table = change.table.partition(".")
        if schema == self._schema and table.lower() not in self._catalogue.sequences:
            self._group.rows[change.table, change.operation] += 1
        self._on_row(change, time_ns, self._group.gtid, where)

    def _note_statement(self, statement: Statement, time_ns: int, where: str) -> None:
        if self._is_shadow(f"{statement.schema}.") and not statement.concerns(self._schema):
            return
        text = RowChange(statement.schema, "statement", (statement.text,))
        self._on_row(text, time_ns, self._group.gtid, where)
        if statement.concerns(self._schema):
            self._statements += statement.changes_data
            self._group.statements.append(statement)

    def _commit(self, time_ns: int, offset: int) -> None:
        group, self._group = self._group, Group()
        if group.is_empty:
            return
        if self._end is not None and (file_number(self._log.log_file), offset) > self._end:
            return
        if len(self._changes) >= _CHANGES_KEPT:
            note = f"transactions beyond the first {_CHANGES_KEPT:,} were not attributed"
            if note not in self.not_checked:
                self.not_checked.append(note)
            return
        self._changes.append(group.change(time_ns))

    def _time_ns(self, timestamp_s: int) -> int:
        """Return an event's time by our clock: inside its whole second, as near to its arrival as it goes."""
        earliest = timestamp_s * NS_PER_S + self._clock_ns
        return min(max(time.time_ns(), earliest), earliest + NS_PER_S)
