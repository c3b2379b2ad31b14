"""Copy a masked sample of production's rows into a shadow, each row with the rows it refers to.

Everything is read in one REPEATABLE READ transaction that may not write, row by row through us, with limits
on how long a statement may run or wait. What looks personal and has no mask is refused before a row is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perflab.config import Sample
from perflab.errors import ConfigError, ShadowError

from .masks import Column, Mask, make_mask
from .personal import require_declared
from .tables import Reference, Table, find_column, find_table

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

MOST_ROWS = 1_000_000
_STATEMENT_TIMEOUT = "60s"
_LOCK_TIMEOUT = "2s"
_AT_ONCE = 5_000

Tell = Callable[[str], None]
Row = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is copied: the tables in order with how many rows of each were asked for, None meaning all."""

    tables: dict[str, Table]
    wanted: dict[str, int | None]
    masks: dict[str, tuple[str, Column]]


def plan_sample(tables: dict[str, Table], sample: Sample, unmasked: Collection[str] = ()) -> Plan:
    """Resolve what is asked for against production's tables, and refuse what would copy personal data.

    Parameters
    ----------
    tables : dict of str to Table
        Production's, by full name.
    sample : Sample
        From ``perflab.toml``.
    unmasked : collection of str
        ``table.column`` that may be copied as they are.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If a name is unknown, a mask unfit, or a column looks personal and nothing is said about it.
    """
    wanted: dict[str, int | None] = {name: sample.rows for name in tables if sample.rows}
    for name, rows in sample.tables.items():
        wanted[find_table(tables, name).full_name] = None if rows == "all" else int(rows)
    wanted = {name: rows for name, rows in wanted.items() if rows != 0}
    masks = {
        (column := find_column(tables, name)).name: (kind, column) for name, kind in sample.masks.items()
    }
    _follow_masks(tables, masks)
    for kind, column in masks.values():
        make_mask(kind, column, b"")
    require_declared(
        (
            (column.name, column.type_name, _is_key(tables[name], column))
            for name in _reached(tables, wanted)
            for column in tables[name].columns
        ),
        {*masks, *(find_column(tables, name).name for name in unmasked)},
    )
    return Plan(tables, wanted, masks)


def copy_sample(
    source: psycopg.Connection[Any],
    shadow: psycopg.Connection[Any],
    plan: Plan,
    key: bytes,
    tell: Tell,
) -> dict[str, int]:
    """Read, mask and write the rows.

    Parameters
    ----------
    source, shadow : psycopg.Connection
        Production, or a replica of it, and a superuser's session in the shadow. Both in autocommit.
    plan : Plan
        From `plan_sample`.
    key : bytes
        What masks depend on.
    tell : callable
        Takes a line for each table.

    Returns
    -------
    dict of str to int
        Rows written per table.

    Raises
    ------
    ShadowError
        If there are more rows than can be held, or the shadow does not take them.
    """
    import psycopg

    written: dict[str, int] = {}
    with source.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for setting, value in (
            ("statement_timeout", _STATEMENT_TIMEOUT),
            ("lock_timeout", _LOCK_TIMEOUT),
            ("search_path", "pg_catalog"),
        ):
            source.execute("SELECT set_config(%s, %s, true)", (setting, value))
        rows = _read_all(source, plan, tell)
    with shadow.transaction():
        # neither triggers nor the order of references matter while rows come in that fit together
        shadow.execute("SET LOCAL session_replication_role = replica")
        for name, found in rows.items():
            try:
                _write(shadow, plan, plan.tables[name], found.values(), key)
            except psycopg.Error as error:
                said = str(error).strip().splitlines()[0]
                raise ShadowError(f"the shadow does not take the sampled rows of {name}: {said}") from error
            written[name] = len(found)
            tell(f"{name}: {len(found)} rows written")
    return written


def _follow_masks(tables: dict[str, Table], masks: dict[str, tuple[str, Column]]) -> None:
    """Give a column that refers to a masked one the same mask, so that rows still find each other."""
    pairs = [
        (table.column(mine), tables[reference.parent].column(theirs))
        for table in tables.values()
        for reference in table.references
        for mine, theirs in zip(reference.columns, reference.parent_columns, strict=True)
    ]
    for _ in range(len(tables)):
        changed = False
        for mine, theirs in pairs:
            if theirs.name in masks and mine.name not in masks:
                masks[mine.name] = masks[theirs.name]
                changed = True
        if not changed:
            break
    for mine, theirs in pairs:
        kind, _ = masks.get(mine.name, ("", mine))
        if mine.name in masks and kind != "null" and kind != masks.get(theirs.name, ("", theirs))[0]:
            raise ConfigError(
                f"{mine.name} refers to {theirs.name}: mask that one, and this one becomes the same by itself"
            )
        if mine.name in masks and theirs.name in masks and kind != "null":
            masks[mine.name] = (kind, masks[theirs.name][1])


def _reached(tables: dict[str, Table], wanted: Collection[str]) -> list[str]:
    """Return the tables rows are taken from: those asked for and all they refer to."""
    found = dict.fromkeys(wanted)
    waiting = list(wanted)
    while waiting:
        for reference in tables[waiting.pop()].references:
            if reference.parent not in found:
                found[reference.parent] = None
                waiting.append(reference.parent)
    return sorted(found)


def _is_key(table: Table, column: Column) -> bool:
    own = column.name.removeprefix(f"{table.full_name}.")
    return own in table.primary_key or any(own in reference.columns for reference in table.references)


def _read_all(
    source: psycopg.Connection[Any], plan: Plan, tell: Tell
) -> dict[str, dict[tuple[str, str], Row]]:
    """Read the rows asked for, then what they refer to, until nothing is missing."""
    rows: dict[str, dict[tuple[str, str], Row]] = {}
    fresh: list[tuple[str, list[Row]]] = []
    for name, count in plan.wanted.items():
        table = plan.tables[name]
        found = _take(rows, name, _read_newest(source, table, count))
        tell(f"{name}: {len(found)} rows read")
        fresh.append((name, found))
    asked: set[tuple[str, tuple[str, ...], Row]] = set()
    while fresh:
        name, found = fresh.pop()
        table = plan.tables[name]
        for reference in table.references:
            keys = []
            for values in _keys(table, reference, found):
                question = (reference.parent, reference.parent_columns, values)
                if question not in asked:
                    asked.add(question)
                    keys.append(values)
            for start in range(0, len(keys), _AT_ONCE):
                parent = plan.tables[reference.parent]
                more = _read_parents(source, parent, reference, keys[start : start + _AT_ONCE])
                fresh.append((reference.parent, _take(rows, reference.parent, more)))
    return rows


def _take(rows: dict[str, dict[tuple[str, str], Row]], name: str, found: Iterator[Row]) -> list[Row]:
    """Keep rows that are new; a row is known by its place in the snapshot."""
    kept = rows.setdefault(name, {})
    new: list[Row] = []
    total = sum(map(len, rows.values()))
    for part, place, *values in found:
        where = (str(part), str(place))
        if where not in kept:
            kept[where] = tuple(values)
            new.append(kept[where])
            if total + len(new) > MOST_ROWS:
                raise ShadowError(
                    f"the sample is larger than {MOST_ROWS} rows (reading {name}); ask for fewer"
                )
    return new


def _keys(table: Table, reference: Reference, rows: Sequence[Row]) -> Iterator[Row]:
    places = [table.column_names.index(name) for name in reference.columns]
    for row in rows:
        values = tuple(row[place] for place in places)
        if None not in values:
            yield values


def _read_newest(source: psycopg.Connection[Any], table: Table, count: int | None) -> Iterator[Row]:
    from psycopg import sql

    query = _selection(table)
    if count is not None:
        if table.primary_key:
            order = sql.SQL(", ").join(
                sql.SQL("{} DESC").format(sql.Identifier("t", c)) for c in table.primary_key
            )
            query += sql.SQL(" ORDER BY {}").format(order)
        query += sql.SQL(" LIMIT {}").format(sql.Literal(count))
    return _copy_out(source, query, ())


def _read_parents(
    source: psycopg.Connection[Any], parent: Table, reference: Reference, keys: Sequence[Row]
) -> Iterator[Row]:
    from psycopg import sql

    names = [f"k{i}" for i in range(len(reference.parent_columns))]
    on = sql.SQL(" AND ").join(
        sql.SQL("{} = {}::{}").format(
            sql.Identifier("t", column), sql.Identifier("w", name), sql.SQL(parent.column(column).type_name)
        )
        for name, column in zip(names, reference.parent_columns, strict=True)
    )
    query = _selection(parent) + sql.SQL(" JOIN unnest({}) AS w({}) ON {}").format(
        sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in names),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        on,
    )
    return _copy_out(source, query, [list(column) for column in zip(*keys, strict=True)])


def _selection(table: Table) -> sql.Composed:
    from psycopg import sql

    columns = [
        sql.SQL("t.tableoid"),
        sql.SQL("t.ctid"),
        *(sql.Identifier("t", c) for c in table.column_names),
    ]
    return sql.SQL("SELECT {} FROM {}{} t").format(
        sql.SQL(", ").join(columns),
        sql.SQL("" if table.partitioned else "ONLY "),
        sql.Identifier(table.schema, table.name),
    )


def _copy_out(source: psycopg.Connection[Any], query: sql.Composed, values: Sequence[Any]) -> Iterator[Row]:
    from psycopg import sql

    statement = sql.SQL("COPY ({}) TO STDOUT").format(query)
    with source.cursor().copy(statement, values or None) as copy:
        yield from copy.rows()


def _write(
    shadow: psycopg.Connection[Any], plan: Plan, table: Table, rows: Collection[Row], key: bytes
) -> None:
    """Write rows of text as the server gave them, masked where a mask stands."""
    from psycopg import sql

    masks: list[Mask | None] = [
        make_mask(*plan.masks[column.name], key) if column.name in plan.masks else None
        for column in table.columns
    ]
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.schema, table.name),
        sql.SQL(", ").join(map(sql.Identifier, table.column_names)),
    )
    with shadow.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row(
                [
                    value if value is None or mask is None else mask(value)
                    for value, mask in zip(row, masks, strict=True)
                ]
            )
