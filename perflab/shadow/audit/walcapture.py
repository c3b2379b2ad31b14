"""Read what production's PostgreSQL changed while a run went on, from its write-ahead log.

A *temporary* logical slot with the ``pgoutput`` plugin, read through SQL functions: the slot is gone
with its session whatever becomes of us. ``pgoutput`` needs publications, which outlive a session; they
carry the session's application name, are dropped by `WalCapture.close`, and what a killed audit left
is dropped by the next one.

The audit must not hurt. A publication that publishes updates makes every UPDATE of a table *without a replica
identity* fail; so there are two: inserts and truncations of all tables, updates and deletes of those
tables only that have an identity. The others' updates and deletes are *not checked*, and said to be.
Statements and locks time out; a session nobody polls is ended by the server, and its slot with it.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError

from .attribution import Change, Claim
from .pgoutput import Begin, Decoder, RowChange, fingerprint
from .tables import Tables, read_tables
from .walposition import clock_difference_ns, present_position, read_lsn

if TYPE_CHECKING:
    import psycopg

_NAME = "perflab_audit_"
_MESSAGES_PER_POLL = 50_000
_CHANGES_KEPT = 500_000
_SESSION = {
    "lock_timeout": "2s",
    "idle_session_timeout": "120s",
    "synchronous_commit": "local",
    "client_min_messages": "error",
}
LIMITS = (
    (
        "sequences, large objects, foreign tables, NOTIFY, advisory locks and DDL are not in the change"
        " stream: that they were left alone follows from the refused login and the separate database"
    ),
)

Row = Callable[[RowChange, int, str, str], object]


class WalCapture:
    """The change stream of one database.

    Parameters
    ----------
    url : str
        A login on the production database that may create publications and slots.
    on_row : callable
        Called with every row change, its commit time (Unix ns by this machine's clock), its transaction's id
        and the LSN of its commit.
    is_shadow : callable
        Tells whether a table, written ``schema.table``, is the shadow's (where both share a database).
    statement_timeout : str
        Longest statement on production, as PostgreSQL writes it.

    Attributes
    ----------
    not_checked : list of str
        What could not be seen, in plain words; a store with any is not proven.
    """

    unit = "transactions"
    removed_by_server = 0

    def __init__(
        self,
        url: str,
        on_row: Row,
        *,
        is_shadow: Callable[[str], bool] = lambda _: False,
        statement_timeout: str = "10s",
    ) -> None:
        self.not_checked: list[str] = []
        self.limits = list(LIMITS)
        self.shadow_changes = 0
        self._is_shadow = is_shadow
        self._url = url
        self._on_row = on_row
        self._statement_timeout = statement_timeout
        self._name = f"{_NAME}{secrets.token_hex(6)}"
        self._session: psycopg.Connection[Any] | None = None
        self._decoder = Decoder()
        self._changes: list[Change] = []
        self._tables = Tables()
        self._clock_ns = 0
        self._begin: Begin | None = None
        self._rows: Counter[tuple[str, str]] = Counter()
        self._end_lsn: int | None = None
        self._confirmed = 0

    @property
    def session(self) -> psycopg.Connection[Any] | None:
        """The audit's own session on production, None when closed."""
        return self._session

    def open(self) -> None:
        """Create publications and slot; from here on every commit is seen.

        Raises
        ------
        ShadowError
            If the server or the login does not allow it; the message says what to change.
        """
        import psycopg

        try:
            session = self._session = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=5,
                application_name=self._name,
            )
            settings = {**_SESSION, "statement_timeout": self._statement_timeout}
            for key, value in settings.items():  # older servers do not know all of them
                session.execute(
                    "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s", (value, key)
                )
            self._check_server(session)
            _drop_left_behind(session)
            self._publish(session)
            session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', true)", (self._name,))
            self._confirmed = self._slot_position(session)
            self._clock_ns = clock_difference_ns(session)
        except psycopg.errors.InsufficientPrivilege as error:
            self.close()
            raise ShadowError(
                f"the audit login may not read production's changes: {_said(error)}."
                " It needs to be a superuser, since a publication of all tables takes one"
            ) from error
        except psycopg.errors.QueryCanceled as error:
            self.close()
            raise ShadowError(
                f"no slot within {self._statement_timeout}: a transaction that writes has been open longer;"
                " see pg_stat_activity, ordered by xact_start"
            ) from error
        except psycopg.Error as error:
            self.close()
            raise ShadowError(f"production's changes cannot be read: {_said(error)}") from error
        except ShadowError:
            self.close()
            raise

    def poll(self) -> bool:
        """Read what was committed since the last call; bounded by a count and the statement timeout.

        Returns
        -------
        bool
            Whether everything that was in the log at the time of the call was read.

        Raises
        ------
        ShadowError
            If the session is lost: changes since then cannot be had any more.
        """
        import psycopg

        if self._session is None:
            return True
        try:
            messages = self._read(self._session)
            self._confirmed = self._slot_position(self._session)
        except psycopg.errors.QueryCanceled as error:
            if self._slot_position(self._session) == self._confirmed:
                return False  # too much for the timeout; the slot has not moved, the next call tries again
            raise ShadowError("production's change stream was cut off half way by the timeout") from error
        except psycopg.Error as error:
            raise ShadowError(f"production's change stream broke off: {_said(error)}") from error
        return messages < _MESSAGES_PER_POLL

    def end(self) -> None:
        """Fix the end of the window: what is committed after it needs no claim."""
        if self._end_lsn is None and self._session is not None:
            self._end_lsn = read_lsn(self._session, "SELECT pg_current_wal_insert_lsn()")

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
        target = present_position(self._session)
        while read_lsn(self._session, "SELECT pg_current_wal_flush_lsn()") < target:
            if time.monotonic() > until:
                raise ShadowError("production did not flush its log in time; the last changes were not read")
            time.sleep(0.02)
        while not self.poll():
            if time.monotonic() > until:
                raise ShadowError("production wrote faster than its change stream could be read")
        self._compare_tables(self._session)

    def changes(self) -> list[Change]:
        """Return the transactions of the window, oldest first."""
        return self._changes

    def claims(self, rows: Sequence[dict[str, Any]]) -> list[Claim]:
        """Read the agents' claims as this database would have written them down."""
        return [claim for row in rows if (claim := self._tables.claim(row)) is not None]

    def close(self) -> None:
        """Drop slot and publications and end the session; again does nothing."""
        import psycopg

        session, self._session = self._session, None
        if session is None:
            return
        try:
            if session.closed:
                session = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
            _drop_publications(session, self._name)
        except psycopg.Error as error:
            self.not_checked.append(
                f"the audit could not drop its publications {self._name}_*: {_said(error)};"
                " the next audit will try again"
            )
        finally:
            session.close()

    def _check_server(self, session: psycopg.Connection[Any]) -> None:
        level = session.execute("SHOW wal_level").fetchone()
        if level is None or level[0] != "logical":
            raise ShadowError(
                f"production's changes cannot be decoded: wal_level is {level[0] if level else 'unknown'!r},"
                " and must be 'logical' (a setting that needs a restart)"
            )
        standby = session.execute("SELECT pg_is_in_recovery()").fetchone()
        if standby and standby[0]:
            raise ShadowError(
                "the audit login leads to a standby, where no publication can be made; give it on the primary"
            )

    def _publish(self, session: psycopg.Connection[Any]) -> None:
        from psycopg import sql

        self._tables = read_tables(session)
        self.not_checked += self._tables.not_seen()
        where = "publish_via_partition_root = true"
        session.execute(
            sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES WITH (publish = 'insert, truncate', {})").format(
                sql.Identifier(f"{self._name}_a"), sql.SQL(where)
            )
        )
        if self._tables.with_identity:
            session.execute(
                sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish = 'update, delete', {})").format(
                    sql.Identifier(f"{self._name}_u"),
                    sql.SQL(", ").join(
                        sql.Identifier(*names) for names in sorted(self._tables.with_identity)
                    ),
                    sql.SQL(where),
                )
            )

    def _slot_position(self, session: psycopg.Connection[Any]) -> int:
        from psycopg import sql

        where = sql.SQL("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = {}")
        return read_lsn(session, where.format(sql.Literal(self._name)))

    def _read(self, session: psycopg.Connection[Any]) -> int:
        messages = 0
        names = f"{self._name}_a" + (f",{self._name}_u" if self._tables.with_identity else "")
        with session.cursor(binary=True) as cursor:
            for (message,) in cursor.stream(
                "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, %s,"
                " 'proto_version', '1', 'publication_names', %s)",
                (self._name, _MESSAGES_PER_POLL, names),
            ):
                messages += 1
                for event in self._decoder.feed(bytes(message)):
                    if isinstance(event, RowChange):
                        self._row(event)
                    elif isinstance(event, Begin):
                        self._begin = event
                        self._rows.clear()
                    else:
                        self._commit()
        return messages

    def _row(self, change: RowChange) -> None:
        if self._is_shadow(change.table):
            self.shadow_changes += 1
            return
        self._rows[change.table, change.operation] += 1
        begin = self._begin
        assert begin is not None  # a row stands between Begin and Commit
        self._on_row(
            change,
            begin.commit_time_ns + self._clock_ns,
            str(begin.xid),
            f"{begin.commit_lsn >> 32:X}/{begin.commit_lsn & 0xFFFF_FFFF:X}",
        )

    def _commit(self) -> None:
        begin, self._begin = self._begin, None
        if begin is None or not self._rows:
            return
        if self._end_lsn is not None and begin.commit_lsn >= self._end_lsn:
            return
        if len(self._changes) >= _CHANGES_KEPT:
            note = f"transactions beyond the first {_CHANGES_KEPT:,} were not attributed"
            if note not in self.not_checked:
                self.not_checked.append(note)
            return
        rows = [(table, operation, count) for (table, operation), count in self._rows.items()]
        what = ", ".join(f"{operation} {table} ({count})" for table, operation, count in sorted(rows)[:8])
        self._changes.append(
            Change(
                begin.commit_time_ns + self._clock_ns,
                (fingerprint(rows),),
                where=sorted(rows)[0][0],
                what=f"transaction {begin.xid}: {what}",
            )
        )

    def _compare_tables(self, session: psycopg.Connection[Any]) -> None:
        new = read_tables(session).identities_unlike(self._tables)
        if new:
            self.not_checked.append(
                f"tables created or altered while the run went on: {', '.join(new)};"
                " their updates and deletes were not seen"
            )


def _drop_left_behind(session: psycopg.Connection[Any]) -> None:
    """Drop publications of audits whose session is gone."""
    rows = session.execute(
        "SELECT DISTINCT left(pubname, -2) FROM pg_publication WHERE starts_with(pubname, %s)"
        " AND left(pubname, -2) NOT IN (SELECT application_name FROM pg_stat_activity)",
        (_NAME,),
    ).fetchall()
    for (name,) in rows:
        _drop_publications(session, name)


def _drop_publications(session: psycopg.Connection[Any], name: str) -> None:
    from psycopg import sql

    session.execute(
        sql.SQL("DROP PUBLICATION IF EXISTS {}, {}").format(
            sql.Identifier(f"{name}_a"), sql.Identifier(f"{name}_u")
        )
    )


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
