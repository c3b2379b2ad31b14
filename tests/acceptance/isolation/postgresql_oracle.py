"""What really happened to a PostgreSQL production database, told by the server alone.

Rows: logical decoding, each committed transaction by its id. What decoding does not show: the catalogue,
sequences, large objects, comments and grants, locks, notifications and sessions, asked for one by one. None
of perflab's own decoding is used: the bytes are read here, as far as needed.
"""

from __future__ import annotations

import struct
from typing import Any

import psycopg

SLOT = "soak_oracle"
SCHEMA = """
CREATE TABLE item (id bigserial PRIMARY KEY, note text NOT NULL);
CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL);
CREATE TABLE scratch (note text);
CREATE TABLE watched (note text);
CREATE TABLE ruled (note text);
CREATE TABLE parts (k int, note text) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
CREATE SEQUENCE numbers;
CREATE VIEW items AS SELECT id, note FROM item;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM item;
CREATE FUNCTION add_item(text) RETURNS bigint LANGUAGE sql
    AS 'INSERT INTO item (note) VALUES ($1) RETURNING id';
CREATE FUNCTION add_item_as_owner(text) RETURNS bigint LANGUAGE sql SECURITY DEFINER
    AS 'INSERT INTO public.item (note) VALUES ($1) RETURNING id';
CREATE PROCEDURE put_item(text) LANGUAGE sql AS 'INSERT INTO item (note) VALUES ($1)';
CREATE FUNCTION copy_watched() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO item (note) VALUES (NEW.note); RETURN NEW; END';
CREATE TRIGGER copying AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION copy_watched();
CREATE RULE instead AS ON INSERT TO ruled DO INSTEAD INSERT INTO item (note) VALUES (NEW.note);
INSERT INTO stock SELECT n, 10 FROM generate_series(0, 49) n;
SELECT lo_from_bytea(4242, 'of production');
"""

_CATALOGUE = """
SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
  SELECT 'c ' || oid || ' ' || relname || ' ' || relnatts || ' ' || relkind::text || ' ' || relowner || ' '
         || coalesce(relacl::text, '') || coalesce(obj_description(oid, 'pg_class'), '') AS line
    FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace
  UNION ALL SELECT 'p ' || oid || ' ' || proname || ' ' || md5(prosrc) FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT 't ' || oid || ' ' || typname FROM pg_type WHERE oid >= 16384 AND typnamespace = 'public'::regnamespace
  UNION ALL SELECT 'l ' || oid || ' ' || lomowner || ' ' || coalesce(lomacl::text, '') FROM pg_largeobject_metadata
  UNION ALL SELECT 'b ' || loid || ' ' || pageno || ' ' || md5(data) FROM pg_largeobject
) AS catalogue
"""  # noqa: E501 - one statement, no parameters


class PostgresOracle:
    """Knows what production looked like, and what it did since.

    Parameters
    ----------
    url : str
        Superuser's URL of production.
    shadow_role : str
        The login that must never be seen there.
    """

    def __init__(self, url: str, shadow_role: str) -> None:
        self._role = shadow_role
        self._session = psycopg.connect(url, autocommit=True)
        self._listener = psycopg.connect(url, autocommit=True)
        self._listener.execute("LISTEN news")
        for (name,) in self._ask(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384"
        ):
            self._session.execute(f"ALTER TABLE {name} REPLICA IDENTITY FULL")
        self._session.execute(f"CREATE PUBLICATION {SLOT} FOR ALL TABLES")
        self._session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
        self.own: set[int] = set()
        self._catalogue = self._one(_CATALOGUE)
        self._numbers = self._one("SELECT last_value::text || is_called FROM numbers")
        self.decoded = 0

    def close(self) -> None:
        """Leave nothing behind."""
        self._session.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
        self._session.execute(f"DROP PUBLICATION {SLOT}")
        self._session.close()
        self._listener.close()

    def clear(self) -> None:
        """Empty production's tables, as a transaction of ordinary work."""
        with self._session.transaction():
            self._session.execute("TRUNCATE item, watched, ruled, parts, scratch")
            self.own.add(int(self._one("SELECT pg_current_xact_id()::text")))

    def check(self) -> list[str]:
        """Return what happened in production that no ordinary transaction did; empty when all is well."""
        wrong = []
        for xid, tables in self._transactions():
            self.decoded += 1
            if xid not in self.own:
                wrong.append(f"transaction {xid} changed {', '.join(sorted(tables))}")
        if self._one(_CATALOGUE) != self._catalogue:
            wrong.append("the catalogue, a comment, a grant or a large object changed")
        numbers = self._one("SELECT last_value::text || is_called FROM numbers")
        if numbers != self._numbers:
            wrong.append(f"the sequence moved from {self._numbers} to {numbers}")
        wrong += [f"notification {note.payload!r}" for note in self._listener.notifies(timeout=0)]
        seen = self._ask(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND usename = %s",
            self._role,
        )
        wrong += [f"the shadow login was in production: {query}" for (query,) in seen]
        locks = self._ask(
            "SELECT l.objid FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " JOIN pg_stat_activity a USING (pid)"
            " WHERE locktype = 'advisory' AND d.datname = current_database() AND a.usename = %s",
            self._role,
        )
        wrong += [f"advisory lock {lock} is held by the shadow login" for (lock,) in locks]
        return wrong

    def _transactions(self) -> list[tuple[int, set[str]]]:
        """Decode who changed which tables since the last call."""
        rows = self._ask(
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '1', 'publication_names', %s)",
            SLOT,
            SLOT,
        )
        names: dict[int, str] = {}
        found: list[tuple[int, set[str]]] = []
        for (data,) in rows:
            message = bytes(data)
            kind = message[:1]
            if kind == b"B":
                found.append((struct.unpack_from(">i", message, 17)[0], set()))
            elif kind == b"R":
                relation = struct.unpack_from(">I", message, 1)[0]
                names[relation] = message[5:].split(b"\0")[1].decode()
            elif kind in b"IUD":
                found[-1][1].add(names.get(struct.unpack_from(">I", message, 1)[0], "?"))
            elif kind == b"T":
                found[-1][1].add("truncated")
        return [(xid, tables) for xid, tables in found if tables]

    def _ask(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._session.execute(text, parameters or None).fetchall()  # type: ignore[arg-type]  # text

    def _one(self, text: str) -> str:
        return str(self._ask(text)[0][0])
