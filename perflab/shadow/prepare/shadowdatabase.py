"""What is done inside a shadow database: cut what reaches outside, change the owner, set ids apart.

Statements are written out from the catalogue one object at a time. ``REASSIGN OWNED`` would be shorter,
and would hand the production database itself to the shadow role: it covers shared objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

REACHING_OUT = (
    "amqp",
    "aws_lambda",
    "aws_s3",
    "azure_storage",
    "bdr",
    "dblink",
    "file_fdw",
    "http",
    "mongo_fdw",
    "multicorn",
    "mysql_fdw",
    "oracle_fdw",
    "pg_background",
    "pg_cron",
    "pg_net",
    "pg_timetable",
    "pgagent",
    "pglogical",
    "plproxy",
    "plsh",
    "postgres_fdw",
    "redis_fdw",
    "spock",
    "sqlite_fdw",
    "tds_fdw",
)
"""Extensions that open connections, run programs, or run jobs of their own."""

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

    Event triggers, subscriptions, publications, extensions that open connections or run jobs, foreign servers
    with their user mappings and tables. Functions in untrusted languages are not: see `untrusted_routines`.
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
    for (name,) in session.execute("SELECT pubname FROM pg_publication").fetchall():
        session.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name)))
        done.append(f"publication {name}")
    for (name,) in session.execute("SELECT srvname FROM pg_foreign_server").fetchall():
        session.execute(sql.SQL("DROP SERVER {} CASCADE").format(sql.Identifier(name)))
        done.append(f"foreign server {name}")
    for (name,) in session.execute(
        "SELECT extname FROM pg_extension WHERE extname = ANY (%s)", (list(REACHING_OUT),)
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


def untrusted_routines(session: psycopg.Connection[Any]) -> list[str]:
    """Return the routines in languages that may do anything on the server's machine, such as plpython3u or C.

    They are kept, since applications call them, and what they do cannot be told.
    """
    rows = session.execute(
        "SELECT o.oid::regprocedure::text || ' (' || l.lanname || ')'"
        " FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace"
        " JOIN pg_language l ON l.oid = o.prolang"
        f" WHERE NOT l.lanpltrusted AND l.lanname <> 'internal' AND {_OF_USERS} AND {_OF_NO_EXTENSION}"
        " ORDER BY 1"
    ).fetchall()
    return [str(name) for (name,) in rows]


def offset_sequences(
    session: psycopg.Connection[Any], offset: int, source: psycopg.Connection[Any] | None = None
) -> int:
    """Set every sequence ahead by ``offset``, or half way to its end where that is nearer.

    So the ids of shadow rows differ from those of production in logs, caches and at third parties.

    Parameters
    ----------
    session : psycopg.Connection
        In the shadow.
    offset : int
        How far.
    source : psycopg.Connection, optional
        Where the positions are read, when the shadow is no copy that has them.

    Returns
    -------
    int
        How many were set.
    """
    ahead = sequence_positions(session if source is None else source)
    done = 0
    for name, (increment, last, end) in ahead.items():
        step = min(offset, abs(end - last) // 2)
        step -= step % abs(increment)
        if session.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,):
            value = last + (step if increment > 0 else -step)
            session.execute("SELECT setval(%s::regclass, %s)", (name, value))
            done += 1
    return done


def pass_rows(session: psycopg.Connection[Any]) -> list[str]:
    """Set sequences that rows of their own column have passed, as masked ids may, beyond them; name them."""
    from psycopg import sql

    positions = sequence_positions(session)
    moved: list[str] = []
    for name, schema, table, column in session.execute(
        "SELECT quote_ident(sn.nspname) || '.' || quote_ident(s.relname), n.nspname, c.relname, a.attname"
        " FROM pg_class s JOIN pg_namespace sn ON sn.oid = s.relnamespace"
        " JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid"
        "   AND d.deptype IN ('a', 'i')"
        " JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid WHERE s.relkind = 'S'"
    ).fetchall():
        increment, last, end = positions[name]
        row = session.execute(
            sql.SQL("SELECT {}({}) FROM {}").format(
                sql.SQL("max" if increment > 0 else "min"),
                sql.Identifier(column),
                sql.Identifier(schema, table),
            )
        ).fetchone()
        if row and row[0] is not None and (row[0] - last) * increment > 0:
            value = min(row[0], end) if increment > 0 else max(row[0], end)
            session.execute("SELECT setval(%s::regclass, %s)", (name, value))
            moved.append(str(name))
    return moved


def refresh_views(session: psycopg.Connection[Any]) -> list[str]:
    """Fill materialized views, which a restored schema leaves unreadable; return those that cannot be."""
    import psycopg
    from psycopg import sql

    waiting = session.execute(
        "SELECT n.nspname, o.relname FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace"
        " WHERE o.relkind = 'm' AND NOT o.relispopulated ORDER BY o.oid"
    ).fetchall()
    while waiting:
        failed = []
        for schema, name in waiting:
            try:
                session.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, name)))
            except psycopg.Error:  # it may read another one that comes later
                failed.append((schema, name))
        if len(failed) == len(waiting):
            break
        waiting = failed
    return [f"materialized view {schema}.{name}" for schema, name in waiting]


def copy_settings(
    session: psycopg.Connection[Any],
    production: str,
    shadow: str,
    source: psycopg.Connection[Any] | None = None,
) -> list[str]:
    """Give the shadow the settings of ``ALTER DATABASE production SET ...``, which a copy lacks.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's, in autocommit, on any database of the shadow's server.
    production, shadow : str
        Names of the databases.
    source : psycopg.Connection, optional
        A session on production's server where that is another one.

    Returns
    -------
    list of str
        Settings this server does not take.
    """
    import psycopg
    from psycopg import sql

    rows = (
        (session if source is None else source)
        .execute(
            "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
            " WHERE setrole = 0 AND d.datname = %s",
            (production,),
        )
        .fetchall()
    )
    refused: list[str] = []
    for (setting,) in rows:
        name, _, value = str(setting).partition("=")
        try:
            with session.transaction():
                session.execute("SELECT set_config(%s, %s, true)", (name, value))
                session.execute(
                    sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(
                        sql.Identifier(shadow), sql.SQL(".").join(map(sql.Identifier, name.split(".")))
                    )
                )
        except psycopg.Error:
            refused.append(f"setting {name} = {value}")
    return refused


def sequence_positions(session: psycopg.Connection[Any]) -> dict[str, tuple[int, int, int]]:
    """Return each sequence's increment, last value and end."""
    rows = session.execute(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename), increment_by,"
        " coalesce(last_value, start_value), CASE WHEN increment_by > 0 THEN max_value ELSE min_value END"
        " FROM pg_sequences"
    ).fetchall()
    return {str(name): (int(increment), int(last), int(end)) for name, increment, last, end in rows}
