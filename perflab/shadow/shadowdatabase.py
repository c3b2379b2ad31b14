"""What is done inside a shadow database: cut what reaches outside, change the owner, set ids apart.

Statements are written out from the catalogue one object at a time. ``REASSIGN OWNED`` would be shorter,
and would hand the production database itself to the shadow role: it covers shared objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_REACHING_OUT = ("dblink", "postgres_fdw", "file_fdw", "pg_cron", "pg_net", "http", "plproxy")

_OF_NO_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend d"
    " WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')"
)
_OF_USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
# each lists objects as ALTER names them
_OBJECTS = (
    f"""
    SELECT 'SCHEMA ' || quote_ident(o.nspname) FROM pg_namespace o
     WHERE o.nspname !~ '^pg_' AND o.nspname <> 'information_schema' AND {_OF_NO_EXTENSION}
    """,
    f"""
    SELECT CASE o.relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' WHEN 'S' THEN 'SEQUENCE '
                ELSE 'TABLE ' END || quote_ident(n.nspname) || '.' || quote_ident(o.relname)
      FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE o.relkind IN ('r', 'p', 'v', 'm', 'S') AND {_OF_USERS} AND {_OF_NO_EXTENSION}
       AND NOT (o.relkind = 'S' AND EXISTS (
             SELECT FROM pg_depend s
              WHERE s.classid = o.tableoid AND s.objid = o.oid AND s.deptype IN ('a', 'i')))
    """,
    f"""
    SELECT 'ROUTINE ' || o.oid::regprocedure
      FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace WHERE {_OF_USERS} AND {_OF_NO_EXTENSION}
    """,
    f"""
    SELECT 'TYPE ' || quote_ident(n.nspname) || '.' || quote_ident(o.typname)
      FROM pg_type o JOIN pg_namespace n ON n.oid = o.typnamespace LEFT JOIN pg_class c ON c.oid = o.typrelid
     WHERE (o.typtype IN ('e', 'd', 'r') OR c.relkind = 'c') AND {_OF_USERS} AND {_OF_NO_EXTENSION}
    """,
    "SELECT 'LARGE OBJECT ' || o.oid FROM pg_largeobject_metadata o",
)


def strip(session: psycopg.Connection[Any]) -> list[str]:
    """Remove what acts outside the database or on its own: return what was removed, in plain words.

    Event triggers, subscriptions, extensions that open connections or run jobs, foreign servers with their
    user mappings and tables. Functions in untrusted languages are not: what they do cannot be told.
    """
    from psycopg import sql

    done: list[str] = []
    for (name,) in session.execute("SELECT evtname FROM pg_event_trigger").fetchall():
        session.execute(sql.SQL("DROP EVENT TRIGGER {}").format(sql.Identifier(name)))
        done.append(f"event trigger {name}")
    for (name,) in session.execute(
        "SELECT subname FROM pg_subscription JOIN pg_database ON pg_database.oid = subdbid"
        " WHERE datname = current_database()"
    ).fetchall():
        for change in ("ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)"):
            session.execute(sql.SQL(change).format(sql.Identifier(name)))
        session.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
        done.append(f"subscription {name}")
    for (name,) in session.execute("SELECT srvname FROM pg_foreign_server").fetchall():
        session.execute(sql.SQL("DROP SERVER {} CASCADE").format(sql.Identifier(name)))
        done.append(f"foreign server {name}")
    for (name,) in session.execute(
        "SELECT extname FROM pg_extension WHERE extname = ANY (%s)", (list(_REACHING_OUT),)
    ).fetchall():
        session.execute(sql.SQL("DROP EXTENSION {} CASCADE").format(sql.Identifier(name)))
        done.append(f"extension {name}")
    return done


def own_everything(session: psycopg.Connection[Any], role: str) -> None:
    """Make ``role`` the owner of all schemas, tables, views, sequences, routines, types and large objects.

    Members of extensions stay as they are. A SECURITY DEFINER function thereby runs as the shadow role.
    """
    from psycopg import sql

    with session.transaction():
        # everything written with its schema
        session.execute("SET LOCAL search_path = pg_catalog")
        for query in _OBJECTS:
            for (named,) in session.execute(query).fetchall():
                session.execute(sql.SQL("ALTER {} OWNER TO {}").format(sql.SQL(named), sql.Identifier(role)))


def offset_sequences(session: psycopg.Connection[Any], offset: int) -> int:
    """Set every sequence ahead by ``offset``, or half way to its end where that is nearer; return how many.

    So the ids of shadow rows differ from those of production in logs, caches and at third parties.
    """
    rows = session.execute(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename), increment_by,"
        " coalesce(last_value, start_value), CASE WHEN increment_by > 0 THEN max_value ELSE min_value END"
        " FROM pg_sequences"
    ).fetchall()
    for name, increment, last, end in rows:
        step = min(offset, abs(end - last) // 2)
        step -= step % abs(increment)
        session.execute("SELECT setval(%s::regclass, %s)", (name, last + (step if increment > 0 else -step)))
    return len(rows)


def copy_settings(session: psycopg.Connection[Any], production: str, shadow: str) -> None:
    """Give the shadow the settings of ``ALTER DATABASE production SET ...``, which a copy lacks.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's, in autocommit, on any database of the server.
    production, shadow : str
        Names of the databases.
    """
    from psycopg import sql

    rows = session.execute(
        "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
        " WHERE setrole = 0 AND d.datname = %s",
        (production,),
    ).fetchall()
    for (setting,) in rows:
        name, _, value = str(setting).partition("=")
        with session.transaction():
            session.execute("SELECT set_config(%s, %s, true)", (name, value))
            session.execute(
                sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(
                    sql.Identifier(shadow), sql.SQL(".").join(map(sql.Identifier, name.split(".")))
                )
            )
