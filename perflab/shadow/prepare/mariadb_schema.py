"""Copy a MariaDB database's schema into a shadow, from the catalogue, one object at a time.

Everything that runs with somebody's rights runs with the shadow login's. Left out, and listed: tables that
are elsewhere, references to other databases, what takes locks that the whole server shares, and what
production has but does not work. Events are made switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.sql.statement_mariadb import REACHING_OUT, USER_LOCKS

if TYPE_CHECKING:
    import pymysql

_TOKEN = (
    r"(?P<skip>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|\#[^\n]*|--\s[^\n]*|/\*.*?\*/)"
    r"|(?<![\w$`.])(?:`{quoted}`|{plain}\b)\s*\.\s*(?=`(?P<quoted>(?:[^`]|``)+)`|(?P<plain>[\w$]+))"
)
_DEFINER = re.compile(
    r"\A(\s*CREATE\s+(?:ALGORITHM\s*=\s*\w+\s+)?)DEFINER\s*=\s*"
    r"`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r",\n\s*CONSTRAINT `(?P<name>(?:[^`]|``)+)` FOREIGN KEY \([^)]*\)"
    r" REFERENCES `(?P<database>(?:[^`]|``)+)`\.`[^\n]*?(?=,?\n)"
)
_DIRECTORY = re.compile(r"\s(?:DATA|INDEX) DIRECTORY\s*=?\s*'(?:[^'\\]|\\.|'')*'")
_EVENT_STATE = re.compile(
    r"(ON COMPLETION (?:NOT )?PRESERVE )(?:ENABLE|DISABLE(?: ON SLAVE)?)\b", re.IGNORECASE
)
_LOCKS = re.compile(rf"{USER_LOCKS}[`\s]*\(", re.IGNORECASE)
_BODIES = {
    # kind -> (query of names, columns of SHOW CREATE that are the text and the time zone)
    "PACKAGE": ("routine_name FROM information_schema.routines WHERE routine_schema", 2, 0),
    "PACKAGE BODY": ("routine_name FROM information_schema.routines WHERE routine_schema", 2, 0),
    "FUNCTION": ("routine_name FROM information_schema.routines WHERE routine_schema", 2, 0),
    "PROCEDURE": ("routine_name FROM information_schema.routines WHERE routine_schema", 2, 0),
    "TRIGGER": ("trigger_name FROM information_schema.triggers WHERE trigger_schema", 2, 0),
    "EVENT": ("event_name FROM information_schema.events WHERE event_schema", 3, 2),
}


def named(name: str) -> str:
    """Write a name as MariaDB quotes it."""
    return "`" + name.replace("`", "``") + "`"


def copy_schema(
    reader: pymysql.Connection[Any],
    writer: pymysql.Connection[Any],
    production: str,
    shadow: str,
    definer: str,
    *,
    one_server: bool,
) -> Iterator[list[str]]:
    """Make a database's objects in its shadow, in two steps: tables and sequences, then what runs on them.

    Parameters
    ----------
    reader, writer : pymysql.Connection
        Sessions of administrators on production's and on the shadow's server.
    production, shadow : str
        Names of the databases.
    definer : str
        ```user`@`host``` of the shadow login.
    one_server : bool
        Whether both are on one server.

    Yields
    ------
    list of str
        After each step, what was left out and why.

    Raises
    ------
    ShadowError
        If a table that is not left out cannot be made.
    """
    copying = _Copying(reader, writer, production, shadow, definer, one_server)
    copying.begin()
    copying.sequences()
    copying.tables()
    yield copying.taken()
    for kind in ("PACKAGE", "PACKAGE BODY", "FUNCTION", "PROCEDURE"):
        copying.bodies(kind)
    copying.views()
    for kind in ("TRIGGER", "EVENT"):
        copying.bodies(kind)
    yield copying.taken()


@dataclass(slots=True)
class _Copying:
    reader: pymysql.Connection[Any]
    writer: pymysql.Connection[Any]
    production: str
    shadow: str
    definer: str
    one_server: bool
    left_out: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def begin(self) -> None:
        self.reader.select_db(self.production)
        self.writer.select_db(self.shadow)
        self._read("SET SESSION sql_mode = ''")
        self._write("SET SESSION sql_mode = '', foreign_key_checks = 0")
        self.rows = self._read(
            "SELECT table_name, table_type, coalesce(engine, '') FROM information_schema.tables"
            " WHERE table_schema = %s ORDER BY 1",
            self.production,
        )
        routines = self._read(
            "SELECT routine_name FROM information_schema.routines WHERE routine_schema = %s", self.production
        )
        self.names = {str(row[0]).lower() for row in (*self.rows, *routines)}

    def taken(self) -> list[str]:
        taken, self.left_out = self.left_out, []
        return taken

    def sequences(self) -> None:
        for name, kind, _ in self.rows:
            if kind == "SEQUENCE":
                self._write(self._created("SEQUENCE", name, 1))

    def tables(self) -> None:
        for name, kind, engine in self.rows:
            if kind not in ("BASE TABLE", "SYSTEM VERSIONED"):
                continue
            if engine.lower() in REACHING_OUT:
                self.left_out.append(f"table {name}: its engine {engine} reaches out of the database")
                continue
            if not engine:
                self.left_out.append(f"table {name}: its engine is not there")
                continue
            text = _DIRECTORY.sub("", self._created("TABLE", name, 1))
            try:
                self._write(self._without_references(name, text))
            except self.writer.Error as error:
                raise ShadowError(f"table {name!r} cannot be made in the shadow: {error.args[-1]}") from error

    def views(self) -> None:
        """Make views; one that stands on another waits for it."""
        waiting = {}
        for name, kind, _ in self.rows:
            found = self._body("VIEW", name, 1) if kind == "VIEW" else None
            if found is not None:
                waiting[name] = found[0]
        said: dict[str, str] = {}
        made = True
        while waiting and made:
            made = False
            for name, text in tuple(waiting.items()):
                try:
                    self._write(text)
                except self.writer.Error as error:
                    said[name] = str(error.args[-1])
                else:
                    del waiting[name]
                    made = True
        self.left_out += [f"view {name}: {said[name]}" for name in waiting]

    def bodies(self, kind: str) -> None:
        query, text_at, zone_at = _BODIES[kind]
        order = "action_order, 1" if kind == "TRIGGER" else "1"
        of_kind = "" if kind in ("TRIGGER", "EVENT") else f" AND routine_type = '{kind}'"
        for (name,) in self._read(f"SELECT {query} = %s{of_kind} ORDER BY {order}", self.production):
            found = self._body(kind, name, text_at)
            if found is None:
                continue
            text, row = found
            if kind == "EVENT":
                text, switched_off = _EVENT_STATE.subn(r"\1DISABLE", text, count=1)
                if not switched_off:
                    self.left_out.append(f"event {name}: it cannot be switched off")
                    continue
            settings = f"sql_mode = {self.writer.escape(row[1])}, collation_connection = {row[text_at + 2]}"
            if zone_at:
                settings += f", time_zone = {self.writer.escape(row[zone_at])}"
            try:
                self._write(f"SET SESSION {settings}")
                self._write(text)
            except self.writer.Error as error:
                self.left_out.append(f"{kind.lower()} {name}: {error.args[-1]}")
        self._write("SET NAMES utf8mb4")
        self._write("SET SESSION sql_mode = '', time_zone = DEFAULT")

    def _body(self, kind: str, name: str, text_at: int) -> tuple[str, tuple[Any, ...]] | None:
        """Return the text that makes something with rights of its own, and what SHOW CREATE says."""
        try:
            row = self._read(f"SHOW CREATE {kind} {named(name)}")[0]
        except self.reader.Error as error:
            self.left_out.append(f"{kind.lower()} {name}: {error.args[-1]}")
            return None
        text, defined = _DEFINER.subn(
            lambda found: f"{found[1]}DEFINER={self.definer}", str(row[text_at] or ""), count=1
        )
        why = "" if defined else "its definer cannot be told"
        if self.one_server and _LOCKS.search(text):
            why = "it takes user locks, which all databases of a server share"
        if why:
            self.left_out.append(f"{kind.lower()} {name}: {why}")
            return None
        return self._renamed(text), row

    def _created(self, kind: str, name: str, text_at: int) -> str:
        return self._renamed(str(self._read(f"SHOW CREATE {kind} {named(name)}")[0][text_at]))

    def _renamed(self, text: str) -> str:
        """Write the shadow wherever production is written before one of its own objects."""
        pattern = _TOKEN.replace("{quoted}", re.escape(self.production.replace("`", "``"))).replace(
            "{plain}", re.escape(self.production)
        )

        def rename(found: re.Match[str]) -> str:
            follows = (found["quoted"] or found["plain"] or "").replace("``", "`").lower()
            if found["skip"] is not None or follows not in self.names:
                return found[0]
            return f"{named(self.shadow)}."

        return re.sub(pattern, rename, text, flags=re.DOTALL)

    def _without_references(self, table: str, text: str) -> str:
        """Take references to other databases out: they would lock rows there."""

        def cut(found: re.Match[str]) -> str:
            if found["database"] == self.shadow.replace("`", "``"):
                return found[0]
            self.left_out.append(f"reference {found['name']} of table {table}: to {found['database']}")
            return ""

        return _REFERENCE.sub(cut, text)

    def _read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.reader.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def _write(self, statement: str) -> None:
        with self.writer.cursor() as cursor:
            cursor.execute(statement)
