"""Put what a MariaDB or MySQL binlog says into plain events, and events into whole transactions.

The bytes are decoded by the library ``mysql-replication``; here is what its events mean for the audit.
Nothing in this file talks to a server.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from .attribution import Change
from .pgoutput import Operation, RowChange, fingerprint

STATEMENT = "statement"
"""Fingerprint of what was logged as a statement: only a claim that is opaque accounts for it."""

# GTID events of MariaDB: a group that is one statement, without a COMMIT of its own
_STANDALONE = 1
_INCIDENT = 26
_COMPRESSED = frozenset({40, *range(165, 172)})
_TRUNCATE = re.compile(r"TRUNCATE\s+(?:TABLE\s+)?(?:[`\w$]+\s*\.\s*)?`?([^`\s;]+)`?", re.IGNORECASE)
_LEADING = re.compile(r"(?:\s+|/\*(?![!M]).*?\*/|--\s[^\n]*\n|#[^\n]*(?:\n|\Z))*", re.DOTALL)
_IGNORED = re.compile(
    r"(?:SAVEPOINT|ROLLBACK\s+(?:WORK\s+)?TO|RELEASE|XA\s+(?:START|BEGIN|END)|FLUSH|ANALYZE|OPTIMIZE|CHECK|REPAIR"
    r"|GRANT|REVOKE|SET\s+PASSWORD|SET\s+DEFAULT|(?:CREATE|ALTER|DROP|RENAME)\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)"
    r"|(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?(?:/\*!\d*\s*)?TEMPORARY)\b",
    re.IGNORECASE,
)
_DEFINES = re.compile(r"(?:CREATE|ALTER|DROP|RENAME|TRUNCATE)\b", re.IGNORECASE)

Kind = Literal["gtid", "begin", "rows", "statement", "end", "other"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that was logged as it was written, in a session whose default schema was ``schema``."""

    schema: str
    text: str

    @property
    def changes_data(self) -> bool:
        """Whether it changes rows, as far as its first word tells; what is not known counts as yes."""
        return not _DEFINES.match(self.text)

    def concerns(self, schema: str) -> bool:
        """Tell whether it may have to do with a schema: run in it, or naming it."""
        return self.schema == schema or re.search(rf"\b{re.escape(schema)}\b", self.text) is not None

    def fingerprint(self) -> str:
        """Return what a claim would call it."""
        found = _TRUNCATE.match(self.text)
        return fingerprint([(found[1], "truncate", 1)]) if found else STATEMENT


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event, as far as the audit needs it.

    ``offset`` is where the next one begins; ``timestamp_s`` is 0 in events that the server makes up.
    ``gtid`` stands in the event that begins a transaction; a ``standalone`` one has no end of its own.
    ``problem`` says in plain words why its rows are not known.
    """

    kind: Kind
    timestamp_s: int
    offset: int
    rows: tuple[RowChange, ...] = ()
    statement: Statement | None = None
    gtid: str = ""
    standalone: bool = False
    problem: str = ""


@dataclass(slots=True)
class Group:
    """A transaction as it comes in; ``open`` until its COMMIT, unless it is one statement."""

    gtid: str = ""
    open: bool = False
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    statements: list[Statement] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing that counts was in it."""
        return not self.rows and not self.statements

    def change(self, time_ns: int) -> Change:
        """Return it as one change of production; statements are told by their first words only."""
        counted = sorted((table, operation, count) for (table, operation), count in self.rows.items())
        said = [f"{operation} {table} ({count})" for table, operation, count in counted]
        said += [" ".join(statement.text.split()[:3]) for statement in self.statements]
        if not self.statements:
            written = fingerprint(counted)
        elif len(self.statements) == 1 and not counted:
            written = self.statements[0].fingerprint()
        else:
            written = STATEMENT
        where = counted[0][0] if counted else self.statements[0].schema
        what = f"transaction {self.gtid or 'without a GTID'}: {', '.join(said[:8])}"
        return Change(time_ns, (written,), where=where, what=what)


def wanted_events() -> list[type[Any]]:
    """Return the library's events that `decode` knows what to do with."""
    from pymysqlreplication import event, row_event

    return [
        event.BeginLoadQueryEvent,
        event.ExecuteLoadQueryEvent,
        event.GtidEvent,
        event.HeartbeatLogEvent,
        event.MariadbGtidEvent,
        event.NotImplementedEvent,
        event.QueryEvent,
        event.RotateEvent,
        event.XAPrepareEvent,
        event.XidEvent,
        row_event.DeleteRowsEvent,
        row_event.PartialUpdateRowsEvent,
        row_event.UpdateRowsEvent,
        row_event.WriteRowsEvent,
    ]


def decode(event: Any) -> LogEvent:
    """Turn an event of the library into one of ours."""
    name = type(event).__name__
    head = (int(event.timestamp), int(event.packet.log_pos))
    if name in ("MariadbGtidEvent", "GtidEvent"):
        standalone = name == "GtidEvent" or bool(event.flags & _STANDALONE)
        return LogEvent("gtid", *head, gtid=str(event.gtid), standalone=standalone)
    if name == "XidEvent":
        return LogEvent("end", *head)
    if name == "XAPrepareEvent":
        return LogEvent(
            "end",
            *head,
            problem="whether prepared XA transactions were committed: the binlog has them when prepared",
        )
    if name == "QueryEvent":
        return _statement(event, head)
    if name in ("BeginLoadQueryEvent", "ExecuteLoadQueryEvent"):
        return LogEvent("other", *head, problem="what LOAD DATA changed: it is in the binlog as a statement")
    if name.endswith("RowsEvent"):
        return _rows(event, head)
    if name == "NotImplementedEvent" and event.event_type in _COMPRESSED:
        return LogEvent(
            "other", *head, problem="changes in compressed events of the binlog (log_bin_compress,"
            " binlog_transaction_compression): they cannot be read here"
        )  # fmt: skip
    if name == "NotImplementedEvent" and event.event_type == _INCIDENT:
        return LogEvent("other", *head, problem="what an incident left out of the binlog, as the server says")
    return LogEvent("other", *head)


def _statement(event: Any, head: tuple[int, int]) -> LogEvent:
    text = event.query if isinstance(event.query, str) else event.query.decode("utf-8", "replace")
    text = text[_LEADING.match(text).end() :]  # type: ignore[union-attr]  # it matches the empty text too
    word = text.rstrip("; \n").upper()
    if word == "BEGIN":
        return LogEvent("begin", *head)
    if word in ("COMMIT", "ROLLBACK"):
        return LogEvent("end", *head)
    if word.startswith(("XA COMMIT", "XA ROLLBACK")) or not text or _IGNORED.match(text):
        return LogEvent("other", *head)
    schema = event.schema.decode("utf-8", "replace") if isinstance(event.schema, bytes) else str(event.schema)
    return LogEvent("statement", *head, statement=Statement(schema, text))


def _rows(event: Any, head: tuple[int, int]) -> LogEvent:
    name = type(event).__name__
    operation: Operation = (
        "insert" if name.startswith("Write") else "delete" if name.startswith("Delete") else "update"
    )
    table = f"{event.schema}.{event.table}"
    try:
        rows = tuple(
            RowChange(table, operation, _values(row.get("after_values") or row.get("values") or {}))
            for row in event.rows
        )
    except Exception as error:  # a column's type that the library does not know
        why = f"rows of {table}: the library cannot decode them ({type(error).__name__}: {error})"
        return LogEvent("rows", *head, rows=(RowChange(table, operation, ()),), problem=why)
    return LogEvent("rows", *head, rows=rows, problem=_partial(event, table))


def _partial(event: Any, table: str) -> str:
    """Say that a row image left columns out, "" where it is whole."""
    bitmap = getattr(event, "columns_present_bitmap2", None) or event.columns_present_bitmap
    present = sum(bin(byte).count("1") for byte in bytes(bitmap))
    if present >= event.number_of_columns:
        return ""
    return f"unchanged columns of {table}: a session wrote rows with a binlog_row_image other than FULL"


def _values(row: dict[str, Any]) -> tuple[str | None, ...]:
    """Write a row's values as text, whatever their types."""
    return tuple(
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else None
        if value is None
        else str(value)
        for value in row.values()
    )
