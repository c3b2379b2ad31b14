"""What really happened to a MariaDB production database, told by the server alone.

Rows and definitions: the binlog, each transaction by its GTID, read with SQL. What the binlog does not show:
catalogue and rights, sequences and counters, global settings, user locks, tables in use and sessions, asked
for one by one. None of perflab's own reading of the binlog is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pymysql

SHOP, SHADOW, APP, ROLE = "soak_shop", "soak_shadow", "soak_app", "soak_role"
SCHEMA = """
CREATE TABLE item (id bigint AUTO_INCREMENT PRIMARY KEY, note varchar(200) NOT NULL);
CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL);
CREATE TABLE scratch (note varchar(200));
CREATE TABLE watched (note varchar(200));
CREATE TABLE parts (k int, note varchar(200)) PARTITION BY LIST (k)
    (PARTITION one VALUES IN (1), PARTITION two VALUES IN (2));
CREATE TABLE apart (id bigint AUTO_INCREMENT PRIMARY KEY, note varchar(200));
CREATE SEQUENCE numbers;
CREATE VIEW items AS SELECT id, note FROM item;
CREATE PROCEDURE put_item(text varchar(200)) SQL SECURITY INVOKER INSERT INTO item (note) VALUES (text);
CREATE PROCEDURE put_item_as_owner(text varchar(200)) SQL SECURITY DEFINER
    INSERT INTO soak_shop.item (note) VALUES (text);
CREATE FUNCTION add_item(text varchar(200)) RETURNS bigint MODIFIES SQL DATA
    BEGIN INSERT INTO item (note) VALUES (text); RETURN LAST_INSERT_ID(); END;
CREATE TRIGGER copying AFTER INSERT ON watched FOR EACH ROW INSERT INTO item (note) VALUES (NEW.note);
INSERT INTO stock SELECT seq, 10 FROM seq_0_to_49;
INSERT INTO apart (note) VALUES ('production'), ('production');
"""
EMPTIED = ("item", "watched", "parts", "scratch")
LOCKS = 20

_CATALOGUE = {
    "a table": f"""
        SELECT table_name, table_type, engine, create_time, table_comment, table_collation,
            IF(table_name IN ('apart'), auto_increment, 0)
        FROM information_schema.tables WHERE table_schema = '{SHOP}'""",
    "a column": f"""
        SELECT table_name, column_name, column_type, column_default, extra
        FROM information_schema.columns WHERE table_schema = '{SHOP}'""",
    "an index": f"""
        SELECT table_name, index_name, column_name
        FROM information_schema.statistics WHERE table_schema = '{SHOP}'""",
    "a routine": f"SELECT name, body, definer, modified FROM mysql.proc WHERE db <> '{SHADOW}'",
    "an event": f"SELECT name, body, modified FROM mysql.event WHERE db <> '{SHADOW}'",
    "a view": f"""
        SELECT table_name, view_definition, definer
        FROM information_schema.views WHERE table_schema = '{SHOP}'""",
    "a trigger": f"""
        SELECT trigger_name, action_statement, created
        FROM information_schema.triggers WHERE trigger_schema = '{SHOP}'""",
    "a login": "SELECT host, user, priv FROM mysql.global_priv",
    "a right on a database": "SELECT * FROM mysql.db",
    "a right on a table": "SELECT * FROM mysql.tables_priv",
    "a server": "SELECT * FROM mysql.servers",
    "a database": "SELECT schema_name, default_collation_name FROM information_schema.schemata",
    "a sequence": f"SELECT * FROM {SHOP}.numbers",
    "rows of a table that ordinary work leaves alone": f"SELECT * FROM {SHOP}.apart",
    "a global setting": """
        SELECT variable_name, variable_value FROM information_schema.global_variables
        WHERE variable_name NOT LIKE 'GTID%'""",
}
"""What must never change here, and how to ask for it."""

_NEVER = {
    "the shadow login was elsewhere": f"""
        SELECT CONCAT(COALESCE(db, 'nowhere'), ': ', COALESCE(info, '')) FROM information_schema.processlist
        WHERE user = '{ROLE}' AND COALESCE(db, '') <> '{SHADOW}'""",
    "a user lock is held": " UNION ALL ".join(
        f"SELECT 'marked {number}' FROM DUAL WHERE IS_USED_LOCK('marked {number}') IS NOT NULL"
        for number in range(LOCKS)
    ),
    "rows of marked work are in production": " UNION ALL ".join(
        f"(SELECT CONCAT('{table}: ', note) FROM {SHOP}.{table} WHERE note NOT LIKE 'ordinary%' LIMIT 3)"
        for table in EMPTIED
    ),
}
"""What must always be empty."""

_QUIET = frozenset(
    {
        "Annotate_rows", "Write_rows_v1", "Update_rows_v1", "Delete_rows_v1", "Xid", "Format_desc",
        "Gtid_list", "Binlog_checkpoint", "Stop", "XA_prepare", "Intvar", "User var", "RAND",
    }
)  # fmt: skip
_TABLE = re.compile(r"table_id: \d+ \((.*?)\.")
_IN = re.compile(r"use `(.*?)`; ")
_PLACELESS = re.compile(r"(COMMIT|ROLLBACK|BEGIN|SAVEPOINT|RELEASE|XA )")


@dataclass(slots=True)
class _Group:
    """A transaction, or a statement that is one by itself, and the databases it is about."""

    gtid: str
    places: set[str] = field(default_factory=set)
    about: list[str] = field(default_factory=list)


class MariaOracle:
    """Knows what production looked like, and what it did since.

    Parameters
    ----------
    session : pymysql.Connection
        Of the superuser, in autocommit; it must have made nothing but ordinary changes.
    """

    def __init__(self, session: pymysql.Connection[Any]) -> None:
        self._session = session
        self._ask("SET SESSION group_concat_max_len = 64 * 1024 * 1024")
        self.own: set[str] = set()
        self.decoded = 0
        self._file, self._at, *_ = self._ask("SHOW MASTER STATUS")[0]
        self._before: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Take production as it is now for what it should stay."""
        self._before = {name: self._state(query) for name, query in _CATALOGUE.items()}
        self._groups()

    @property
    def session_id(self) -> int:
        """Number of the oracle's own session: one that marked work may try to end."""
        return int(self._session.thread_id())

    def close(self) -> None:
        """Leave nothing behind."""
        self._session.close()

    def clear(self) -> None:
        """Empty production's tables, as a transaction of ordinary work, and forget the binlog's past."""
        for table in EMPTIED:
            self._ask(f"DELETE FROM {SHOP}.{table}")
            self.own.add(str(self._ask("SELECT @@last_gtid")[0][0]))
        self._ask(f"PURGE BINARY LOGS TO '{self._file}'")

    def check(self) -> list[str]:
        """Return what happened in production that no ordinary transaction did; empty when all is well."""
        wrong = []
        for group in self._groups():
            where = ", ".join(sorted(group.places))
            if group.gtid in self.own:
                self.decoded += 1
                if SHADOW in group.places:
                    wrong.append(f"ordinary transaction {group.gtid} changed {where}: {group.about}")
            elif group.places - {SHADOW}:
                wrong.append(f"transaction {group.gtid} changed {where}: {group.about}")
        for name, query in _CATALOGUE.items():
            now = self._state(query)
            if now != self._before[name]:
                wrong.append(f"{name} changed: {_difference(self._before[name], now)}")
        for name, query in _NEVER.items():
            wrong += [f"{name}: {found[0]}" for found in self._ask(query)]
        used = self._ask(f"SHOW OPEN TABLES FROM {SHOP} WHERE in_use > 0 OR name_locked > 0")
        wrong += [f"table {table} of production is in use" for _, table, *_ in used]
        return wrong

    def _groups(self) -> list[_Group]:
        """Read who changed what since the last call."""
        found: list[_Group] = []
        following = True
        while following:
            following = False
            for _, _, kind, _, end, about in self._ask(
                f"SHOW BINLOG EVENTS IN '{self._file}' FROM {int(self._at)}"
            ):
                self._at = end
                if kind == "Rotate":
                    self._file, self._at, following = about.partition(";")[0], 4, True
                elif kind == "Gtid":
                    found.append(_Group(about.split("GTID ")[1].split()[0]))
                elif kind not in _QUIET:
                    found[-1].places |= _places(kind, about)
                    found[-1].about.append(about[:120])
        return found

    def _state(self, query: str) -> list[tuple[Any, ...]]:
        return sorted(self._ask(query), key=repr)

    def _ask(self, text: str) -> list[tuple[Any, ...]]:
        with self._session.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())


def _places(kind: str, about: str) -> set[str]:
    """Return the databases an event is about; what cannot be told is a place of its own."""
    table = _TABLE.match(about) if kind == "Table_map" else None
    if table is not None:
        return {table[1]}
    if kind != "Query":
        return {f"an event {kind}"}
    inside = _IN.match(about)
    places = {inside[1]} if inside is not None else set()
    if inside is None and not _PLACELESS.match(about):
        places = {"?"}
    return places | ({SHOP} if SHOP in about else set())


def _difference(before: list[tuple[Any, ...]], now: list[tuple[Any, ...]]) -> str:
    lost = [row for row in before if row not in now]
    new = [row for row in now if row not in before]
    return f"{lost[:3]} -> {new[:3]}"
