"""What PostgreSQL and MariaDB count, asked with one login that needs no right to read a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow import mariadb_login

from .counters import KeyedTable

if TYPE_CHECKING:
    import psycopg
    import pymysql

_STATEMENT_S = 0.5
_KEYED = """
SELECT n.nspname, c.relname, key.attname,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indnatts = 1
  JOIN pg_attribute key ON key.attrelid = c.oid AND key.attnum = i.indkey[0]
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND key.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
   AND has_table_privilege(c.oid, 'SELECT')
 ORDER BY 1, 2
"""
_COUNTS = "SELECT schemaname, relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND datname = current_database()"
_MARIADB_KEYED = """
SELECT k.TABLE_NAME, MIN(k.COLUMN_NAME) FROM information_schema.COLUMNS k
 WHERE k.TABLE_SCHEMA = %s AND k.COLUMN_KEY = 'PRI'
 GROUP BY k.TABLE_NAME
HAVING COUNT(*) = 1 AND MIN(k.DATA_TYPE) IN ('tinyint', 'smallint', 'mediumint', 'int', 'bigint')
"""
_MARIADB_COUNTS = """
SELECT TABLE_NAME, ROWS_CHANGED FROM information_schema.TABLE_STATISTICS WHERE TABLE_SCHEMA = %s
"""
_MARIADB_SESSIONS = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = %s AND DB = %s"


class PostgresCounters:
    """PostgreSQL's cumulative statistics of tables.

    Parameters
    ----------
    url : str
        A login on the production database; it reads rows only of tables it may SELECT from.
    shadow_user : str
        Whose sessions are counted.
    """

    def __init__(self, url: str, shadow_user: str) -> None:
        self._url, self._shadow_user = url, shadow_user
        self._session: psycopg.Connection[Any] | None = None

    def connect(self) -> None:
        """Log in; every statement is bounded to half a second.

        Raises
        ------
        ShadowError
            If the server does not let the audit in.
        """
        import psycopg

        try:
            self._session = psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, application_name="perflab audit"
            )
            self._session.execute(
                f"SET statement_timeout = {int(_STATEMENT_S * 1000)}; SET lock_timeout = 100;"
                " SET default_transaction_read_only = on"
            )
        except psycopg.Error as error:
            self.close()
            raise ShadowError(f"production's counters cannot be read: {error}") from error

    def notes(self) -> list[str]:
        """Say what this server does not count: nothing, unless it was told not to."""
        found = self._ask("SHOW track_counts")
        return [] if found[0][0] == "on" else ["which rows were changed: track_counts is off"]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return inserted, updated and deleted rows by table, rolled back ones included."""
        counted = {}
        for schema, table, *rows in self._ask(_COUNTS):
            for operation, count in zip(("insert", "update", "delete"), rows, strict=True):
                counted[f"{schema}.{table}", operation] = int(count)
        return counted

    def keyed_tables(self) -> list[KeyedTable]:
        """Return the tables with a single integer as primary key that the login may read."""
        from psycopg import sql

        found = []
        for schema, table, key, columns in self._ask(_KEYED):
            question = sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(
                sql.Identifier(key), sql.Identifier(schema, table)
            )
            last = int(self._ask(question)[0][0])
            found.append(KeyedTable(f"{schema}.{table}", tuple(columns), key, last))
        return found

    def newer(self, table: KeyedTable, above: int, most: int) -> list[tuple[int, tuple[str | None, ...]]]:
        """Return rows with a key above, in its order."""
        from psycopg import sql

        key = sql.Identifier(table.key)
        question = sql.SQL("SELECT {}, {} FROM {} WHERE {} > {} ORDER BY 1 LIMIT {}").format(
            key,
            sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.columns),
            sql.Identifier(*table.name.split(".", 1)),
            key,
            sql.Literal(above),
            sql.Literal(most),
        )
        return [(int(first), tuple(values)) for first, *values in self._ask(question)]

    def shadow_sessions(self) -> int:
        """Return how many sessions of the shadow's login are in this database now."""
        return int(self._ask(_SESSIONS, self._shadow_user)[0][0])

    def operation(self, named: str) -> str:
        """Return the operation itself: this server counts each apart."""
        return named

    def close(self) -> None:
        """Log out; again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _ask(self, question: Any, *values: Any) -> list[tuple[Any, ...]]:
        import psycopg

        if self._session is None:
            raise ShadowError("the session is closed")
        try:
            return self._session.execute(question, values or None).fetchall()
        except psycopg.errors.QueryCanceled as error:
            raise ShadowError(f"a question took longer than {_STATEMENT_S} s") from error
        except psycopg.Error as error:
            raise ShadowError(f"production does not answer: {error}") from error


class MariadbCounters:
    """MariaDB's table statistics, which it keeps with ``userstat = 1``: rows changed, of any operation.

    Parameters
    ----------
    url : str
        A login on production's server that may SELECT from the schema; with PROCESS it sees others' sessions.
    schema : str
        Production's schema.
    shadow_user : str
        Whose sessions are counted.
    """

    def __init__(self, url: str, schema: str, shadow_user: str) -> None:
        self._url, self._schema, self._shadow_user = url, schema, shadow_user
        self._session: pymysql.Connection[Any] | None = None
        self._counts_tables = False

    def connect(self) -> None:
        """Log in; every statement is bounded to half a second.

        Raises
        ------
        ShadowError
            If the server does not let the audit in.
        """
        self._session = mariadb_login.connect(self._url, statement_timeout_s=_STATEMENT_S)
        self._counts_tables = mariadb_login.variable(self._session, "userstat") == "ON"

    def notes(self) -> list[str]:
        """Say what this server does not count."""
        said = []
        if not self._counts_tables:
            said.append(
                "how many rows of which table were changed: userstat is off, and the server's other counters"
                " (Handler_write and the like) are of all its schemas together"
            )
        privileges = " ".join(str(row[0]) for row in self._ask("SHOW GRANTS"))
        if "PROCESS" not in privileges and "ALL PRIVILEGES ON *.*" not in privileges:
            said.append("sessions of the shadow login on production: the audit login lacks PROCESS")
        return said

    def counts(self) -> dict[tuple[str, str], int]:
        """Return changed rows by table; nothing without ``userstat``."""
        if not self._counts_tables:
            return {}
        return {
            (f"{self._schema}.{table}", "change"): int(count)
            for table, count in self._ask(_MARIADB_COUNTS, self._schema)
        }

    def keyed_tables(self) -> list[KeyedTable]:
        """Return the tables with a single integer as primary key."""
        found = []
        for table, key in self._ask(_MARIADB_KEYED, self._schema):
            question = (
                f"SELECT COALESCE(MAX({_quoted(key)}), 0) FROM {_quoted(self._schema)}.{_quoted(table)}"
            )
            last = int(self._ask(question)[0][0])
            found.append(KeyedTable(f"{self._schema}.{table}", (), str(key), last))
        return found

    def newer(self, table: KeyedTable, above: int, most: int) -> list[tuple[int, tuple[str | None, ...]]]:
        """Return rows with a key above, in its order."""
        schema, _, name = table.name.partition(".")
        key = _quoted(table.key)
        of = f"{_quoted(schema)}.{_quoted(name)} t"
        question = f"SELECT {key}, t.* FROM {of} WHERE {key} > %s ORDER BY {key} LIMIT %s"
        return [(int(first), _texts(values)) for first, *values in self._ask(question, above, most)]

    def shadow_sessions(self) -> int:
        """Return how many sessions of the shadow's login are in production's schema now."""
        return int(self._ask(_MARIADB_SESSIONS, self._shadow_user, self._schema)[0][0])

    def operation(self, named: str) -> str:
        """Return the one operation this server counts."""
        del named
        return "change"

    def close(self) -> None:
        """Log out; again does nothing."""
        import contextlib

        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):  # it may be closed already
                session.close()

    def _ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        import pymysql

        if self._session is None:
            raise ShadowError("the session is closed")
        try:
            return mariadb_login.rows(self._session, question, *values)
        except (pymysql.MySQLError, OSError) as error:
            raise ShadowError(f"production does not answer: {mariadb_login.said(error)}") from error


def _quoted(name: str) -> str:
    return "`" + str(name).replace("`", "``") + "`"


def _texts(values: list[Any]) -> tuple[str | None, ...]:
    return tuple(
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else None
        if value is None
        else str(value)
        for value in values
    )
