"""Code that a table made by ``LIKE`` carries: defaults, checks, generated columns, expressions of indexes.

Each is judged as a statement of shadow work would be; what may do anything is taken off the shadow table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perflab.shadow.sql.rewrite_lexer import Unproven

if TYPE_CHECKING:
    import psycopg

_HARMLESS = [
    "uuid-ossp",
    "pgcrypto",
    "citext",
    "pg_trgm",
    "hstore",
    "ltree",
    "unaccent",
    "intarray",
    "btree_gist",
    "btree_gin",
    "cube",
    "earthdistance",
    "fuzzystrmatch",
    "isn",
    "postgis",
]
# what, how it is taken off, its expression; of the table %(table)s
_CODE = """
SELECT CASE WHEN a.attgenerated = '' THEN 'default' ELSE 'generated' END, a.attname::text,
       pg_get_expr(d.adbin, d.adrelid), d.oid, 'pg_attrdef'::regclass::oid
  FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
 WHERE d.adrelid = %(table)s::regclass
UNION ALL
SELECT 'check', conname::text, pg_get_expr(conbin, conrelid), oid, 'pg_constraint'::regclass::oid
  FROM pg_constraint WHERE conrelid = %(table)s::regclass AND contype = 'c'
UNION ALL
SELECT 'index', c.relname::text,
       concat_ws(', ', pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)), c.oid,
       'pg_class'::regclass::oid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(table)s::regclass AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
"""
_OF_EXTENSIONS = """
SELECT f.oid::regproc::text FROM pg_depend d JOIN pg_proc f ON f.oid = d.refobjid
  JOIN pg_depend e ON e.classid = 'pg_proc'::regclass AND e.objid = f.oid AND e.deptype = 'e'
  JOIN pg_extension x ON x.oid = e.refobjid
 WHERE d.classid = %s AND d.objid = %s AND d.refclassid = 'pg_proc'::regclass AND x.extname = ANY (%s)
"""
_OTHERS = """
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END
       || ' ' || c.oid::regclass::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
UNION ALL
SELECT 'trigger ' || quote_ident(tgname) || ' of ' || tgrelid::regclass::text
  FROM pg_trigger WHERE NOT tgisinternal
 ORDER BY 1
"""


def mend(session: psycopg.Connection[Any], table: str, rewrite: Callable[[str], str]) -> list[str]:
    """Take off a new shadow table what may do anything; say what it was.

    Parameters
    ----------
    session : psycopg.Connection
        An administrator's, whose search path has only ``pg_catalog``: all names are written in full.
    table : str
        The shadow table, quoted; empty, and not yet seen by others.
    rewrite : callable
        Returns a statement led to the shadow; raises `Unproven`.
    """
    from psycopg import sql

    said: list[str] = []
    for what, name, text, oid, catalog in session.execute(_CODE, {"table": table}).fetchall():
        proven = text
        for (function,) in session.execute(_OF_EXTENSIONS, (catalog, oid, _HARMLESS)).fetchall():
            proven = re.sub(rf"(?<![\w.\"]){re.escape(function)}\(", "pg_catalog.num_nulls(", proven)
        try:
            led = rewrite(f"SELECT {proven}").removeprefix("SELECT ")
        except Unproven as why:
            said.append(f"{what} {name} of {table}: {why}")
            session.execute(_off(what, table, name))
            continue
        if what == "default" and proven == text and led != text:
            session.execute(
                sql.SQL("ALTER TABLE {} ALTER {} SET DEFAULT {}").format(
                    sql.SQL(table),
                    sql.Identifier(name),
                    sql.SQL(led),
                )
            )
    return said


def left_out(session: psycopg.Connection[Any]) -> list[str]:
    """Return what shadow tables never have: views, foreign tables, triggers."""
    return [f"{name}: not copied" for (name,) in session.execute(_OTHERS).fetchall()]


def _off(what: str, table: str, name: str) -> Any:
    from psycopg import sql

    if what == "index":
        return sql.SQL("DROP INDEX {}").format(sql.SQL(f"{table.rpartition('.')[0]}.") + sql.Identifier(name))
    how = {
        "default": "ALTER TABLE {} ALTER {} DROP DEFAULT",
        "generated": "ALTER TABLE {} ALTER {} DROP EXPRESSION",
        "check": "ALTER TABLE {} DROP CONSTRAINT {}",
    }[what]
    return sql.SQL(how).format(sql.SQL(table), sql.Identifier(name))
