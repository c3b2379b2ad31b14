"""Shadow tables inside production's own database: for modes ``schema`` and ``table``.

Every table is made anew from production's by ``LIKE``, empty. What ``LIKE ... INCLUDING ALL`` would share or
carry along is mended before anybody sees it: a default that draws from production's sequence (measured: a
leak) draws from one of the shadow's own; defaults, checks, generated columns and indexes that call functions
nobody knows are left out, by name; foreign keys point to shadow tables; there are no triggers and no rules.
The login may use these tables and no others; what it still reaches through PUBLIC is listed.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.sql.rewrite import rewrite
from perflab.shadow.sql.rewrite_lexer import Unproven
from perflab.shadow.sql.rewrite_room import Room

from . import shadowcode, shadowsequences
from .databaseaccess import MARK

if TYPE_CHECKING:
    import psycopg

_NOTE = f"{MARK} tables"
_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relispartition
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND coalesce(obj_description(c.oid, 'pg_class'), '') NOT LIKE %(note)s || '%%'
   AND coalesce(obj_description(n.oid, 'pg_namespace'), '') NOT LIKE %(note)s || '%%'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
 ORDER BY 2, 3
"""
_KEYS = """
SELECT c.conname, c.conrelid, c.confrelid, c.condeferrable, c.condeferred, c.confupdtype::text,
       c.confdeltype::text, c.confmatchtype::text,
       (SELECT array_agg(attname ORDER BY o) FROM unnest(c.conkey) WITH ORDINALITY k(n, o)
          JOIN pg_attribute ON attrelid = c.conrelid AND attnum = n),
       (SELECT array_agg(attname ORDER BY o) FROM unnest(c.confkey) WITH ORDINALITY k(n, o)
          JOIN pg_attribute ON attrelid = c.confrelid AND attnum = n)
  FROM pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0
"""
_REACHED = """
SELECT 'table ' || c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'
   AND n.nspname <> 'information_schema'
   AND c.oid <> ALL (%(own)s)
   AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(%(role)s, c.oid, 'USAGE, UPDATE')
       ELSE has_table_privilege(%(role)s, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') END
UNION ALL
SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND p.prosecdef
   AND has_schema_privilege(%(role)s, n.oid, 'USAGE') AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
 ORDER BY 1
"""
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


@dataclass(slots=True)
class PreparedTables:
    """Shadow tables in production's database.

    Parameters
    ----------
    tables, sequences : list of str
        What the shadow has now, by its names.
    left_out : list of str
        What of production it does not have, and why.
    reachable : list of str
        What of production the login may still use, through PUBLIC: nothing but rewriting keeps it apart.
    """

    tables: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reachable: list[str] = field(default_factory=list)


def prepare_tables(
    admin_dsn: str, room: Room, role: str, password: str, connection_limit: int = 50
) -> PreparedTables:
    """Make, or bring up to date, the shadow tables in a PostgreSQL database, and their login.

    Repeatable: tables that are there keep their rows; those production has got since are added.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on production's server, on any database.
    room : Room
        Where the tables will be: ``database``, and the schema, or what their names begin with.
    role, password : str
        The shadow login.
    connection_limit : int
        Most sessions of the login.

    Raises
    ------
    ShadowError
        If the schema or role is there and was not made here, two tables would have one name, or the server
        refuses something: nothing is made then.
    """
    import psycopg

    try:
        with closing(_admin(admin_dsn, room.database)) as session, session.transaction():
            session.execute("SET LOCAL search_path = pg_catalog")
            return _Building(session, room, role).build(password, connection_limit)
    except Unproven as error:
        raise ShadowError(f"the shadow tables cannot be made: {error}") from error
    except psycopg.Error as error:
        said = str(error).strip().splitlines()[0]
        raise ShadowError(f"the shadow tables of {room.database!r} cannot be made: {said}") from error


def drop_tables(admin_dsn: str, room: Room, role: str) -> tuple[str, ...]:
    """Drop what `prepare_tables` made in a room, and its login; return what was dropped.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on the server.
    room, role
        What `prepare_tables` was given. What is not there, or was not made here, is passed over.

    Raises
    ------
    ShadowError
        If something of others depends on it: nothing is dropped then.
    """
    import psycopg
    from psycopg import sql

    try:
        with closing(_admin(admin_dsn, room.database)) as session, session.transaction():
            done = [name for kind in ("TABLE", "SEQUENCE") for name in _drop_all(session, room, kind)]
            if room.mode == "schema" and _comment(session, "pg_namespace", "nspname", room.within) == _NOTE:
                session.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(room.within)))
                done.append(f"schema {room.within}")
            if _comment(session, "pg_authid", "rolname", role) == _NOTE:
                session.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
                session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
                done.append(f"role {role}")
    except psycopg.Error as error:
        said = str(error).strip().splitlines()[0]
        raise ShadowError(f"the shadow tables of {room.database!r} cannot be dropped: {said}") from error
    return tuple(done)


class _Building:
    """Making them, in one transaction."""

    def __init__(self, session: psycopg.Connection[Any], room: Room, role: str) -> None:
        self._session, self._room, self._role = session, room, role
        self._made = PreparedTables()
        self._shadows: dict[int, str] = {}

    def build(self, password: str, connection_limit: int) -> PreparedTables:
        self._make_role(password, connection_limit)
        self._make_schema()
        taken: dict[str, str] = {}
        new: list[tuple[int, str]] = []
        for oid, schema, name, is_partition in self._session.execute(_TABLES, {"note": _NOTE}).fetchall():
            if is_partition:
                self._made.left_out.append(f"{schema}.{name}: its rows are in the table it is a partition of")
                continue
            shadow = shadowsequences.shadow_name(self._room, schema, name)
            if shadow in taken:
                raise ShadowError(f"{schema}.{name} and {taken[shadow]} would both become {shadow}")
            taken[shadow] = f"{schema}.{name}"
            self._shadows[oid] = shadow
            if not self._is_there(shadow):
                new.append((oid, shadow))
        self._made.sequences = shadowsequences.make_sequences(self._session, self._room, _NOTE)
        for oid, shadow in new:
            self._make_table(oid, shadow)
        self._point_keys({oid for oid, _ in new})
        self._made.tables = sorted(self._shadows.values())
        self._made.left_out += shadowcode.left_out(self._session)
        self._grant()
        return self._made

    def _do(self, statement: str) -> None:
        self._session.execute(statement.encode())  # names are quoted by who wrote it

    def _make_role(self, password: str, connection_limit: int) -> None:
        from psycopg import sql

        session, name = self._session, sql.Identifier(self._role)
        comment = _comment(session, "pg_authid", "rolname", self._role)
        if comment is None:
            session.execute(sql.SQL("CREATE ROLE {}").format(name))
            session.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(name, sql.Literal(_NOTE)))
        elif comment != _NOTE:
            raise ShadowError(
                f"a role {self._role!r} exists and was not made for shadow tables; choose another name"
            )
        verifier = session.pgconn.encrypt_password(password.encode(), self._role.encode(), b"scram-sha-256")
        session.execute(
            sql.SQL(
                "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
                " CONNECTION LIMIT {} PASSWORD {}"
            ).format(name, sql.Literal(connection_limit), sql.Literal(verifier.decode()))
        )

    def _make_schema(self) -> None:
        if self._room.mode != "schema":
            return
        comment = _comment(self._session, "pg_namespace", "nspname", self._room.within)
        schema = self._room.quoted(self._room.within)
        if comment is None:
            self._do(f"CREATE SCHEMA {schema}")
            self._do(f"COMMENT ON SCHEMA {schema} IS '{_NOTE}'")
        elif comment != _NOTE:
            raise ShadowError(
                f"a schema {self._room.within!r} exists and was not made by perflab; choose another name"
            )

    def _is_there(self, shadow: str) -> bool:
        row = self._session.execute(
            "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s)",
            (shadow,),
        ).fetchone()
        if row is not None and row[0] != _NOTE:
            raise ShadowError(f"a table {shadow} exists and was not made by perflab")
        return row is not None

    def _make_table(self, oid: int, shadow: str) -> None:
        row = self._session.execute("SELECT %s::oid::regclass::text", (oid,)).fetchone()
        assert row is not None
        self._do(f"CREATE TABLE {shadow} (LIKE {row[0]} INCLUDING ALL EXCLUDING IDENTITY)")
        self._do(f"COMMENT ON TABLE {shadow} IS '{_NOTE}'")
        self._made.left_out += shadowcode.mend(self._session, shadow, lambda text: rewrite(text, self._room))
        shadowsequences.own_identities(self._session, self._room, oid, shadow)

    def _point_keys(self, new: set[int]) -> None:
        for name, of, to, deferrable, deferred, update, delete, match, columns, keys in self._session.execute(
            _KEYS
        ).fetchall():
            if of not in new:
                continue
            if to not in self._shadows:
                self._made.left_out.append(f"foreign key {name}: it leads to no shadow table")
                continue
            quoted = [", ".join(map(self._room.quoted, names)) for names in (columns, keys)]
            self._do(
                f"ALTER TABLE {self._shadows[of]} ADD CONSTRAINT {self._room.quoted(name)}"
                f" FOREIGN KEY ({quoted[0]}) REFERENCES {self._shadows[to]} ({quoted[1]})"
                f"{' MATCH FULL' if match == 'f' else ''}"
                f" ON UPDATE {_ACTIONS[update]} ON DELETE {_ACTIONS[delete]}"
                f"{' DEFERRABLE' if deferrable else ''}{' INITIALLY DEFERRED' if deferred else ''}"
            )

    def _grant(self) -> None:
        """Let the login use shadow tables, and say what else it may use."""
        room, role = self._room, self._room.quoted(self._role)
        self._do(f"GRANT CONNECT ON DATABASE {room.quoted(room.database)} TO {role}")
        for table in self._made.tables:
            self._do(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {table} TO {role}")
        for sequence in self._made.sequences:
            self._do(f"GRANT ALL ON SEQUENCE {sequence} TO {role}")
        if room.mode == "schema":
            schema = room.quoted(room.within)
            self._do(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            self._do(f"ALTER ROLE {role} IN DATABASE {room.quoted(room.database)} SET search_path = {schema}")
        else:
            for schema in sorted({table.rpartition('."')[0] for table in self._made.tables}):
                self._do(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        own = [
            self._session.execute("SELECT %s::regclass::oid", (name,)).fetchone()[0]  # type: ignore[index]  # one row
            for name in (*self._made.tables, *self._made.sequences)
        ]
        rows = self._session.execute(_REACHED, {"own": own, "role": self._role}).fetchall()
        self._made.reachable = [name for (name,) in rows]


def _drop_all(session: psycopg.Connection[Any], room: Room, kind: str) -> list[str]:
    rows = session.execute(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE obj_description(c.oid, 'pg_class') = %s AND (c.relkind = 'S') = %s"
        " AND CASE WHEN %s THEN n.nspname = %s ELSE starts_with(c.relname, %s) END",
        (_NOTE, kind == "SEQUENCE", room.mode == "schema", room.within, room.within),
    ).fetchall()
    if rows:
        session.execute(f"DROP {kind} {', '.join(name for (name,) in rows)}".encode())
    return [f"{kind.lower()} {name}" for (name,) in rows]


def _comment(session: psycopg.Connection[Any], catalog: str, column: str, name: str) -> str | None:
    """Return the comment of a role or schema, ``""`` without one, None when there is none of that name."""
    description = "shobj_description" if catalog == "pg_authid" else "obj_description"
    row = session.execute(
        f"SELECT coalesce({description}(oid, '{catalog}'), '') FROM {catalog} WHERE {column} = %s".encode(),
        (name,),
    ).fetchone()
    return None if row is None else str(row[0])


def _admin(admin_dsn: str, database: str) -> psycopg.Connection[Any]:
    import psycopg

    return psycopg.connect(
        admin_dsn, dbname=database, autocommit=True, connect_timeout=5, application_name="perflab prepare"
    )
