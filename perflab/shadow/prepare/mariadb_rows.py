"""Copy a sample of a MariaDB database's rows into its shadow, masked, and set the shadow's ids apart."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError

if TYPE_CHECKING:
    import pymysql

_AT_ONCE = 500
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalogue describes it; ``length`` is in characters, 0 where it has none."""

    table: str
    name: str
    kind: str
    length: int
    nullable: bool


def masked(columns: Sequence[Column], masks: Mapping[str, str], salt: str) -> dict[Column, str]:
    """Return for each masked column the SQL expression that is copied instead of it.

    Parameters
    ----------
    columns : sequence of Column
        All columns that will be copied.
    masks : mapping of str to str
        ``table.column`` -> ``null``, ``hash`` or ``fixed:VALUE``.
    salt : str
        What hashes begin with, so that they cannot be looked up; equal values stay equal within a copy.

    Raises
    ------
    ShadowError
        If a mask names no column, or is not one that fits it.

    Examples
    --------
    >>> email = Column("user", "email", "varchar", 20, False)
    >>> masked([email], {"user.email": "fixed:it's"}, "")[email]
    "'it''s'"
    """
    by_name = {f"{column.table}.{column.name}": column for column in columns}
    found: dict[Column, str] = {}
    for name, mask in masks.items():
        column = by_name.get(name)
        if column is None:
            raise ShadowError(f"mask {name!r} names no column; write it as table.column")
        if mask == "null" and column.nullable:
            found[column] = "NULL"
        elif mask == "hash" and column.kind in _TEXTS:
            length = min(column.length or 64, 64)
            found[column] = f"LEFT(SHA2(CONCAT({_literal(salt)}, {_quoted(column.name)}), 256), {length})"
        elif mask.startswith("fixed:"):
            found[column] = _literal(mask.removeprefix("fixed:"))
        else:
            kind = f"{column.kind}{'' if column.nullable else ' not null'}"
            raise ShadowError(
                f"mask {mask!r} does not fit {name} ({kind}); there are: null (of a column that may be),"
                " hash (of text), fixed:VALUE"
            )
    return found


def copy_rows(
    reader: pymysql.Connection[Any],
    writer: pymysql.Connection[Any],
    production: str,
    shadow: str,
    rows: int,
    masks: Mapping[str, str],
) -> dict[str, int]:
    """Copy some rows of each table, without a lock in production; return how many of which table.

    Parameters
    ----------
    reader, writer : pymysql.Connection
        Sessions of administrators on production's and on the shadow's server.
    production, shadow : str
        Names of the databases; the shadow has the tables already, and no triggers yet.
    rows : int
        How many of each table.
    masks : mapping of str to str
        As `masked` takes them; they are checked even when no row is copied.

    Raises
    ------
    ShadowError
        If a mask does not fit.
    """
    columns = _columns(writer, shadow)
    expressions = masked([each for table in columns.values() for each in table], masks, secrets.token_hex(16))
    if rows <= 0:
        return {}
    copied: dict[str, int] = {}
    _run(reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    try:
        for table, of_table in columns.items():
            chosen = ", ".join(expressions.get(each, _quoted(each.name)) for each in of_table)
            given = ", ".join(_quoted(each.name) for each in of_table)
            wanted = f"SELECT {chosen} FROM {_quoted(production)}.{_quoted(table)} LIMIT {int(rows)}"
            into = f"INSERT INTO {_quoted(shadow)}.{_quoted(table)} ({given}) VALUES"
            copied[table] = _copy_table(reader, writer, wanted, into.replace("%", "%%"), len(of_table))
    finally:
        reader.rollback()
    while _remove_orphans(writer, shadow, copied):
        pass
    return {table: number for table, number in copied.items() if number}


def _copy_table(
    reader: pymysql.Connection[Any], writer: pymysql.Connection[Any], wanted: str, into: str, width: int
) -> int:
    from pymysql.cursors import SSCursor

    copied = 0
    decoders, reader.decoders = reader.decoders, {}  # text stays the server's own
    _run(writer, "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0")
    try:
        with reader.cursor(SSCursor) as source, writer.cursor() as sink:
            source.execute(wanted)
            while batch := source.fetchmany(_AT_ONCE):
                sink.executemany(f"{into} ({', '.join(['%s'] * width)})", [list(row) for row in batch])
                copied += len(batch)
    finally:
        reader.decoders = decoders
    return copied


def _remove_orphans(writer: pymysql.Connection[Any], shadow: str, copied: dict[str, int]) -> bool:
    """Remove rows that refer to rows which were not copied; return whether there were any."""
    keys: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for name, table, column, other, other_column in _run(
        writer,
        "SELECT constraint_name, table_name, column_name, referenced_table_name, referenced_column_name"
        " FROM information_schema.key_column_usage WHERE table_schema = %s AND referenced_table_schema = %s"
        " ORDER BY ordinal_position",
        shadow,
        shadow,
    ):
        keys.setdefault((str(name), str(table), str(other)), []).append((str(column), str(other_column)))
    removed = False
    for (_, table, other), pairs in keys.items():
        same = " AND ".join(f"p.{_quoted(theirs)} = c.{_quoted(own)}" for own, theirs in pairs)
        given = " AND ".join(f"c.{_quoted(own)} IS NOT NULL" for own, _ in pairs)
        count = _change(
            writer,
            f"DELETE c FROM {_quoted(shadow)}.{_quoted(table)} c"
            f" LEFT JOIN {_quoted(shadow)}.{_quoted(other)} p ON {same}"
            f" WHERE {given} AND p.{_quoted(pairs[0][1])} IS NULL",
        )
        copied[table] = copied.get(table, 0) - count
        removed = removed or count > 0
    return removed


def move_counters(
    reader: pymysql.Connection[Any],
    writer: pymysql.Connection[Any],
    production: str,
    shadow: str,
    offset: int,
) -> int:
    """Set every AUTO_INCREMENT and sequence ahead of production's; return how many.

    By ``offset``, or half way to its end where that is nearer: so the ids of shadow rows differ from those
    of production in logs, caches and at third parties.

    Parameters
    ----------
    reader, writer : pymysql.Connection
        Sessions of administrators on production's and on the shadow's server.
    production, shadow : str
        Names of the databases.
    offset : int
        How far ahead.
    """
    moved = 0
    there = {name for (name,) in _run(writer, "SELECT table_name FROM information_schema.tables"
                                      " WHERE table_schema = %s", shadow)}  # fmt: skip
    for table, kind, following in _run(
        reader,
        "SELECT t.table_name, c.column_type, t.auto_increment FROM information_schema.tables t"
        " JOIN information_schema.columns c USING (table_schema, table_name)"
        " WHERE t.table_schema = %s AND t.auto_increment IS NOT NULL AND c.extra LIKE '%%auto_increment%%'",
        production,
    ):
        end = _end_of(str(kind))
        if table in there and end:
            ahead = int(following) + min(offset, max(0, end - int(following)) // 2)
            _run(writer, f"ALTER TABLE {_quoted(shadow)}.{_quoted(table)} AUTO_INCREMENT = {ahead}")
            moved += 1
    for (name,) in _run(
        reader,
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = %s AND table_type = 'SEQUENCE'",
        production,
    ):
        ((following, least, most, step),) = _run(
            reader,
            "SELECT next_not_cached_value, minimum_value, maximum_value, increment"
            f" FROM {_quoted(production)}.{_quoted(name)}",
        )
        way = 1 if step >= 0 else -1
        ahead = min(offset, abs((most if way > 0 else least) - following) // 2)
        ahead -= ahead % (abs(step) or 1)
        _run(writer, f"SELECT SETVAL({_quoted(shadow)}.{_quoted(name)}, {following + way * ahead}, 0)")
        moved += 1
    return moved


def _end_of(column_type: str) -> int:
    """Return the greatest value of a type of whole numbers, 0 of another type."""
    found = re.match(r"([a-z]+)", column_type)
    bits = _BITS.get(found[1], 0) if found else 0
    return 2 ** (bits if "unsigned" in column_type else bits - 1) - 1 if bits else 0


def _columns(session: pymysql.Connection[Any], database: str) -> dict[str, list[Column]]:
    """Return what can be written, of every table, in order."""
    found: dict[str, list[Column]] = {}
    for table, name, kind, length, nullable in _run(
        session,
        "SELECT c.table_name, c.column_name, c.data_type, coalesce(c.character_maximum_length, 0),"
        " c.is_nullable = 'YES' FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = %s AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        " AND c.is_generated = 'NEVER' AND c.table_name <> '_perflab' ORDER BY 1, c.ordinal_position",
        database,
    ):
        column = Column(str(table), str(name), str(kind), int(length), bool(nullable))
        found.setdefault(column.table, []).append(column)
    return found


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _change(session: pymysql.Connection[Any], statement: str) -> int:
    with session.cursor() as cursor:
        return int(cursor.execute(statement))


def _run(session: pymysql.Connection[Any], statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())
