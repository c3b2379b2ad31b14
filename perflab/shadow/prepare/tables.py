"""The tables of a database, their columns and references, as sampling needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perflab.errors import ConfigError

from .masks import Column

if TYPE_CHECKING:
    import psycopg

_TABLES = (
    "SELECT o.oid, n.nspname, o.relname, o.relkind = 'p' FROM pg_class o"
    " JOIN pg_namespace n ON n.oid = o.relnamespace"
    " WHERE o.relkind IN ('r', 'p') AND NOT o.relispartition AND o.relpersistence <> 't'"
    " AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    " AND NOT EXISTS (SELECT FROM pg_depend d"
    "   WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')"
    " ORDER BY n.nspname, o.relname"
)
_COLUMNS = (
    "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,"
    " EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1"
    "   AND i.indkey[0] = a.attnum),"
    " CASE WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND a.atttypmod > 4"
    "   THEN a.atttypmod - 4 END"
    " FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"
    " AND a.attgenerated = '' ORDER BY a.attnum"
)
_KEYS = (
    "SELECT coalesce(pg_partition_root(c.conrelid), c.conrelid)::oid,"
    " CASE WHEN c.contype = 'f' THEN coalesce(pg_partition_root(c.confrelid), c.confrelid)::oid END,"
    " ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k (n, i)"
    "   JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.i),"
    " ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k (n, i)"
    "   JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.n ORDER BY k.i)"
    " FROM pg_constraint c WHERE c.contype IN ('p', 'f') AND c.conparentid = 0 AND c.conrelid <> 0"
    " ORDER BY c.conname"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key: columns of a table that name a row of another."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table to take rows of; a partitioned one stands for all its parts."""

    schema: str
    name: str
    partitioned: bool
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def full_name(self) -> str:
        """Schema and name, as ``perflab.toml`` may write it."""
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> Column:
        """Return one of its columns."""
        return next(column for column in self.columns if column.name == f"{self.full_name}.{name}")

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' own names."""
        return tuple(column.name.removeprefix(f"{self.full_name}.") for column in self.columns)


def read_tables(session: psycopg.Connection[Any]) -> dict[str, Table]:
    """Return a database's tables by full name; generated columns are left out, they make themselves."""
    with session.transaction():
        # so that types are written with their schema
        session.execute("SET LOCAL search_path = pg_catalog")
        return _read(session)


def find_table(tables: Mapping[str, Table], name: str) -> Table:
    """Return the table a person means by ``orders`` or ``audit.log``.

    Raises
    ------
    ConfigError
        If there is none, or several schemas have one.
    """
    if name in tables:
        return tables[name]
    found = [table for table in tables.values() if table.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"the sample names the table {name!r}; there are {', '.join(table.full_name for table in found)}:"
            " write it with its schema"
        )
    known = ", ".join(sorted(tables)[:20]) or "none"
    raise ConfigError(
        f"the sample names the table {name!r}, which production does not have; there are: {known}"
    )


def find_column(tables: Mapping[str, Table], name: str) -> Column:
    """Return the column a person means by ``users.email`` or ``public.users.email``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    table_name, _, column = name.rpartition(".")
    if not table_name:
        raise ConfigError(f"{name!r} names no column; write it as table.column")
    table = find_table(tables, table_name)
    if column not in table.column_names:
        raise ConfigError(
            f"{table.full_name} has no column {column!r}; there are: {', '.join(table.column_names)}"
        )
    return table.column(column)


def _read(session: psycopg.Connection[Any]) -> dict[str, Table]:
    names: dict[int, tuple[str, str, bool]] = {
        oid: (schema, name, partitioned)
        for oid, schema, name, partitioned in session.execute(_TABLES).fetchall()
    }
    primary: dict[int, tuple[str, ...]] = {}
    references: dict[int, list[Reference]] = {}
    for table, parent, columns, parent_columns in session.execute(_KEYS).fetchall():
        if parent is None:
            primary[table] = tuple(columns)
        elif table in names and parent in names:
            reference = Reference(tuple(columns), ".".join(names[parent][:2]), tuple(parent_columns))
            references.setdefault(table, []).append(reference)
    found: dict[str, Table] = {}
    for oid, (schema, name, partitioned) in names.items():
        columns = tuple(
            Column(f"{schema}.{name}.{column}", type_name, nullable, unique, width)
            for column, type_name, nullable, unique, width in session.execute(_COLUMNS, (oid,)).fetchall()
        )
        found[f"{schema}.{name}"] = Table(
            schema, name, partitioned, columns, primary.get(oid, ()), tuple(references.get(oid, ()))
        )
    return found
