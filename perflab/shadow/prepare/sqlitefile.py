"""The shadow of a SQLite file: another file with its schema and, where asked for, a masked sample of rows.

A file has no login: what keeps the sides apart is the hook alone. Production is opened read-only, in one
transaction. A note beside the shadow says that it is ours.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from perflab.config import Sample
from perflab.errors import ConfigError, ShadowError

from .masks import Column, make_mask
from .sampling import MOST_ROWS, Plan, plan_sample
from .standing import Check
from .tables import Reference, Table

SEQUENCE_OFFSET = 1_000_000_000
_BUSY_S = 5
_TYPES = (("INT", "bigint"), ("CHAR", "text"), ("CLOB", "text"), ("TEXT", "text"), ("BLOB", "blob"))
_NAMES = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class PreparedFile:
    """A SQLite shadow; ``created`` says whether it was made just now, ``rows`` what was copied per table."""

    shadow: str
    created: bool
    rows: dict[str, int]


def prepare_sqlite(
    production: str,
    shadow: str,
    *,
    sample: Sample | None = None,
    unmasked: Collection[str] = (),
    mask_key: bytes = b"",
    refresh: bool = False,
) -> PreparedFile:
    """Make a shadow file; one that is there keeps its rows unless ``refresh``.

    Parameters
    ----------
    production, shadow : str
        Paths.
    sample : Sample, optional
        Rows to begin with.
    unmasked : collection of str
        ``table.column`` that may be copied as they are.
    mask_key : bytes
        What masks depend on.
    refresh : bool
        Whether it is built anew.

    Returns
    -------
    PreparedFile

    Raises
    ------
    ShadowError
        If a file of that name is somebody else's, or production cannot be read.
    """
    path = Path(shadow)
    if os.path.realpath(production) == os.path.realpath(shadow):
        raise ShadowError(f"the shadow of {production} needs a name of its own")
    if path.exists() and _read_note(path) is None:
        raise ShadowError(f"a file {shadow} exists and was not made by perflab; choose another name")
    if path.exists() and not refresh:
        return PreparedFile(shadow, False, {})
    fresh = path.with_name(f"{path.name}.building")
    fresh.unlink(missing_ok=True)
    try:
        with closing(_open(production, "ro")) as source, closing(_open(str(fresh), "rwc")) as target:
            source.execute("BEGIN")
            statements = _statements(source)
            tables = [sql for kind, sql in statements if kind == "table"]
            for statement in tables:
                target.execute(statement)
            rows = {} if sample is None else _copy(source, target, sample, unmasked, mask_key)
            for kind, statement in statements:
                if kind != "table":
                    target.execute(statement)
            _offset(source, target)
            target.commit()
            note = {"of": production, "schema": _fingerprint(statements), "rows": rows, "at": _now()}
        _note_path(path).write_text(json.dumps(note), encoding="utf-8")
        for name in _NAMES[1:]:
            Path(f"{path}{name}").unlink(missing_ok=True)
        fresh.replace(path)
    except sqlite3.Error as error:
        raise ShadowError(f"the shadow of {production} cannot be made: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return PreparedFile(shadow, True, rows)


def drop_sqlite(shadow: str, *, only_look: bool = False) -> tuple[str, ...]:
    """Remove a shadow file and what lies beside it.

    Raises
    ------
    ShadowError
        If it was not made by `prepare_sqlite`.
    """
    path = Path(shadow)
    if path.exists() and _read_note(path) is None:
        raise ShadowError(f"the file {shadow} was not made by perflab; it is not removed")
    there = [Path(f"{path}{name}") for name in _NAMES if Path(f"{path}{name}").exists()]
    if _note_path(path).exists():
        there.append(_note_path(path))
    if not only_look:
        for item in there:
            item.unlink()
    return tuple(f"file {item}" for item in there)


def look_at_sqlite(production: str, shadow: str) -> list[Check]:
    """Look at a shadow file, changing nothing."""
    path = Path(shadow)
    if not path.exists():
        return [Check("there", "bad", f"there is no file {shadow}")]
    note = _read_note(path)
    if note is None:
        return [Check("ours", "bad", f"{shadow} was not made by 'perflab shadow prepare'")]
    try:
        with closing(_open(production, "ro")) as source:
            same = _fingerprint(_statements(source)) == note.get("schema")
    except sqlite3.Error as error:
        schema = Check("schema", "unknown", f"{production}: {error}")
    else:
        schema = (
            Check("schema", "good", "production's has not changed since")
            if same
            else Check("schema", "bad", "production's has changed since; prepare --refresh")
        )
    return [
        Check("there", "good", shadow),
        Check("ours", "good", f"made of {note.get('of')} at {note.get('at')}"),
        Check("confined", "unknown", "a file has no login: the hooks alone keep it apart"),
        schema,
        Check("rows", "good", f"{sum(note.get('rows', {}).values())} were copied from production"),
    ]


def _copy(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    sample: Sample,
    unmasked: Collection[str],
    key: bytes,
) -> dict[str, int]:
    """Copy the newest rows asked for and those they refer to; triggers are made later and do not fire."""
    plan = plan_sample(_tables(source), sample, unmasked)
    rows: dict[str, set[tuple[Any, ...]]] = {}
    fresh: list[tuple[Table, list[tuple[Any, ...]]]] = []
    for name, count in plan.wanted.items():
        table = plan.tables[name]
        order = ", ".join(f"{_quoted(column)} DESC" for column in table.primary_key)
        query = _selection(table) + (f" ORDER BY {order}" if order else "")
        query += f" LIMIT {-1 if count is None else count}"
        fresh.append((table, _take(rows, name, source.execute(query))))
    while fresh:
        table, found = fresh.pop()
        for reference in table.references:
            parent = plan.tables[reference.parent]
            places = [table.column_names.index(name) for name in reference.columns]
            where = " AND ".join(f"{_quoted(column)} = ?" for column in reference.parent_columns)
            for values in {tuple(row[place] for place in places) for row in found}:
                if None not in values:
                    more = _take(
                        rows, parent.full_name, source.execute(f"{_selection(parent)} WHERE {where}", values)
                    )
                    fresh.append((parent, more))
    for name, taken in rows.items():
        _write(target, plan, plan.tables[name], taken, key)
    return {name.removeprefix("main."): len(taken) for name, taken in rows.items()}


def _take(
    rows: dict[str, set[tuple[Any, ...]]], name: str, found: Iterable[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    kept = rows.setdefault(name, set())
    new: list[tuple[Any, ...]] = []
    for row in found:
        if row not in kept:
            kept.add(row)
            new.append(row)
        if len(kept) > MOST_ROWS:
            raise ShadowError(f"the sample has more than {MOST_ROWS} rows of {name}; ask for fewer")
    return new


def _write(
    target: sqlite3.Connection, plan: Plan, table: Table, rows: Iterable[tuple[Any, ...]], key: bytes
) -> None:
    masks = [
        make_mask(*plan.masks[column.name], key) if column.name in plan.masks else None
        for column in table.columns
    ]
    names = ", ".join(map(_quoted, table.column_names))
    marks = ", ".join("?" for _ in masks)
    for row in rows:
        masked = [
            value if value is None or mask is None else _typed(mask(str(value)), value)
            for value, mask in zip(row, masks, strict=True)
        ]
        target.execute(f"INSERT INTO {_quoted(table.name)} ({names}) VALUES ({marks})", masked)


def _typed(masked: str | None, value: object) -> object:
    """Return a masked text as what the value was."""
    if masked is None or isinstance(value, str | bytes):
        return masked
    try:
        return type(value)(masked)  # type: ignore[call-arg]  # an int or a float here
    except ValueError:
        return masked


def _tables(source: sqlite3.Connection) -> dict[str, Table]:
    found: dict[str, Table] = {}
    keys: dict[str, tuple[str, ...]] = {}
    names = [name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    names = [name for name in names if not name.startswith("sqlite_")]
    for name in names:
        columns = source.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
        keys[name] = tuple(row[1] for row in sorted((r for r in columns if r[5]), key=lambda row: row[5]))
    for name in names:
        columns = source.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
        unique = {keys[name][0]} if len(keys[name]) == 1 else set()
        for index in source.execute(f"PRAGMA index_list({_quoted(name)})").fetchall():
            parts = source.execute(f"PRAGMA index_info({_quoted(index[1])})").fetchall()
            unique |= {parts[0][2]} if index[2] and len(parts) == 1 else set()
        references: dict[int, list[tuple[str, str, str | None]]] = {}
        for row in source.execute(f"PRAGMA foreign_key_list({_quoted(name)})").fetchall():
            references.setdefault(row[0], []).append((row[2], row[3], row[4]))
        found[f"main.{name}"] = Table(
            "main",
            name,
            False,
            tuple(
                Column(f"main.{name}.{row[1]}", _type(row[2]), not row[3] and not row[5], row[1] in unique)
                for row in columns
            ),
            keys[name],
            tuple(
                Reference(
                    tuple(own for _, own, _ in parts),
                    f"main.{parts[0][0]}",
                    tuple(theirs or keys[parts[0][0]][i] for i, (_, _, theirs) in enumerate(parts)),
                )
                for parts in references.values()
                if parts[0][0] in names
            ),
        )
    return found


def _type(declared: str) -> str:
    """Return what masks call a declared type, by SQLite's own rules of affinity."""
    return next(
        (name for words, name in _TYPES if words in declared.upper()), "numeric" if declared else "blob"
    )


def _statements(session: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return what made a file's tables, indexes, views and triggers, in order."""
    rows = session.execute(
        "SELECT type, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid"
    ).fetchall()
    if any(str(sql).upper().startswith("CREATE VIRTUAL") for _, sql in rows):
        raise ConfigError("a SQLite file with virtual tables cannot be prepared; copy it by hand")
    return [(str(kind), str(sql)) for kind, sql in rows]


def _offset(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Set AUTOINCREMENT ids ahead of production's; other rowids begin after the largest there is."""
    if source.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
        for name, last in source.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            target.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            target.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (name, last + SEQUENCE_OFFSET))


def _fingerprint(statements: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(sorted(statements)).encode()).hexdigest()[:32]


def _selection(table: Table) -> str:
    return f"SELECT {', '.join(map(_quoted, table.column_names))} FROM {_quoted(table.name)}"


def _open(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode={mode}", uri=True, timeout=_BUSY_S)


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.perflab.json")


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(_note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
