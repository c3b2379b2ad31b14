"""Decode what PostgreSQL's ``pgoutput`` plugin says: which transaction changed which rows of which tables.

The bytes come from a logical replication slot (see `perflab.shadow.audit.walcapture`). The format is the one
of the PostgreSQL manual, chapter "Logical Replication Message Formats", protocol version 1: whole
transactions, in commit order, aborted ones left out. Nothing here talks to a server.

Sequences, large objects, NOTIFY, advisory locks, DDL and temporary or unlogged tables are not in this
stream; nor are tables a publication leaves out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from perflab.errors import ShadowError

Operation = Literal["insert", "update", "delete", "truncate", "statement"]
"""``statement``: MariaDB wrote the text of a statement instead of rows; its only value is that text."""

_EPOCH_OFFSET_US = 946_684_800_000_000
_LSN_AND_TIME_AND_XID = struct.Struct(">qqi")
_COMMIT = struct.Struct(">bqqq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction starts; its changes follow up to the `Commit`.

    ``commit_time_ns`` is Unix time by the server's clock, in steps of 1000 ns; ``commit_lsn`` is the
    position of its commit record.
    """

    xid: int
    commit_lsn: int
    commit_time_ns: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction ends. ``end_lsn`` is the position just after it."""

    commit_lsn: int
    end_lsn: int
    commit_time_ns: int


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row changed, or one table truncated.

    ``table`` is ``schema.table``; ``values`` are the row's values as text (None for NULL): the new row
    of an insert or update, the identifying columns of a delete, nothing of a truncate. Large values
    an update left alone are not in the stream and are None here too.
    """

    table: str
    operation: Operation
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A whole committed transaction with all its row changes."""

    xid: int
    commit_time_ns: int
    changes: tuple[RowChange, ...]


Event = Begin | Commit | RowChange


class Decoder:
    """Turn messages into events. It remembers the relations it was told of; feed messages in order."""

    def __init__(self) -> None:
        self._tables: dict[int, str] = {}

    def feed(self, message: bytes) -> list[Event]:
        """Decode one message; relations, types, origins and logical messages give no event.

        Raises
        ------
        ShadowError
            If the bytes are no pgoutput message of protocol version 1.
        """
        kind = message[:1]
        try:
            if kind == b"I":
                return [self._row(message, "insert", _tuple_at(message, 5)[1])]
            if kind == b"U":
                return [self._update(message)]
            if kind == b"D":
                return [self._row(message, "delete", _tuple_at(message, 5)[1])]
            if kind == b"B":
                lsn, time_us, xid = _LSN_AND_TIME_AND_XID.unpack_from(message, 1)
                return [Begin(xid & 0xFFFF_FFFF, lsn, _unix_ns(time_us))]
            if kind == b"C":
                _, lsn, end_lsn, time_us = _COMMIT.unpack_from(message, 1)
                return [Commit(lsn, end_lsn, _unix_ns(time_us))]
            if kind == b"R":
                self._remember(message)
                return []
            if kind == b"T":
                return list(self._truncated(message))
        except (struct.error, UnicodeDecodeError, IndexError, ValueError) as error:
            raise ShadowError(f"a pgoutput message of kind {kind!r} is cut short or malformed") from error
        if kind in (b"O", b"Y", b"M"):
            return []
        raise ShadowError(
            f"a pgoutput message of unknown kind {kind!r}; the slot must be read with proto_version '1'"
        )

    def _row(self, message: bytes, operation: Operation, values: tuple[str | None, ...]) -> RowChange:
        return RowChange(self._table(_UINT32.unpack_from(message, 1)[0]), operation, values)

    def _update(self, message: bytes) -> RowChange:
        at = 5
        if message[at : at + 1] in (b"K", b"O"):
            at, _ = _tuple_at(message, at)
        return self._row(message, "update", _tuple_at(message, at)[1])

    def _truncated(self, message: bytes) -> Iterator[RowChange]:
        count = _INT32.unpack_from(message, 1)[0]
        for index in range(count):
            yield RowChange(self._table(_UINT32.unpack_from(message, 6 + 4 * index)[0]), "truncate", ())

    def _remember(self, message: bytes) -> None:
        schema_end = message.index(b"\0", 5)
        name_end = message.index(b"\0", schema_end + 1)
        schema = message[5:schema_end].decode() or "pg_catalog"
        name = message[schema_end + 1 : name_end].decode()
        self._tables[_UINT32.unpack_from(message, 1)[0]] = f"{schema}.{name}"

    def _table(self, relation: int) -> str:
        try:
            return self._tables[relation]
        except KeyError:
            raise ShadowError(
                f"the stream changes relation {relation}, which it never described;"
                " it was not read from its start"
            ) from None


def transactions(messages: Iterable[bytes]) -> Iterator[Transaction]:
    """Put messages together into whole transactions, in commit order.

    Parameters
    ----------
    messages : iterable of bytes
        The ``data`` column of ``pg_logical_slot_get_binary_changes``, in its order.

    Yields
    ------
    Transaction

    Raises
    ------
    ShadowError
        If a message is malformed.
    """
    decoder = Decoder()
    begin: Begin | None = None
    changes: list[RowChange] = []
    for message in messages:
        for event in decoder.feed(message):
            if isinstance(event, Begin):
                begin, changes = event, []
            elif isinstance(event, RowChange):
                changes.append(event)
            elif begin is not None:
                yield Transaction(begin.xid, begin.commit_time_ns, tuple(changes))
                begin = None


def fingerprint(rows: Iterable[Sequence[object]]) -> str:
    """Write what a transaction changed so that agent and audit write it alike.

    Parameters
    ----------
    rows : iterable of (table, operation, rows)
        Table names lose their schema and their case; rows of equal table and operation are added up,
        those that add up to 0 left out.

    Returns
    -------
    str
        A JSON list of ``[table, operation, rows]``, sorted; ``"[]"`` when nothing was changed.

    Examples
    --------
    >>> fingerprint([("public.Orders", "insert", 1), ("stock", "update", 2), ("orders", "insert", 1)])
    '[["orders","insert",2],["stock","update",2]]'
    """
    counts: dict[tuple[str, str], int] = {}
    for table, operation, count in rows:
        key = (str(table).rpartition(".")[2].lower(), str(operation))
        counts[key] = counts.get(key, 0) + int(str(count))
    return json.dumps(
        [[table, operation, count] for (table, operation), count in sorted(counts.items()) if count > 0],
        separators=(",", ":"),
        ensure_ascii=False,
    )


def _tuple_at(message: bytes, at: int) -> tuple[int, tuple[str | None, ...]]:
    """Read one row, from its kind byte on; return the position after it and its values as text."""
    if message[at : at + 1] not in (b"N", b"K", b"O"):
        raise ValueError("no row where one was announced")
    count = _INT16.unpack_from(message, at + 1)[0]
    at += 3
    values: list[str | None] = []
    for _ in range(count):
        kind = message[at]
        at += 1
        if kind in b"nu":
            values.append(None)
            continue
        length = _INT32.unpack_from(message, at)[0]
        at += 4
        if kind not in b"tb" or length < 0 or at + length > len(message):
            raise ValueError("a value reaches past the end of its message")
        values.append(message[at : at + length].decode("utf-8", "surrogateescape"))
        at += length
    return at, tuple(values)


def _unix_ns(time_us: int) -> int:
    """Turn microseconds since 2000-01-01 UTC into Unix nanoseconds."""
    return (time_us + _EPOCH_OFFSET_US) * 1000
