"""Tell whether two databases have one schema: every object as the server itself writes it down.

Owners, privileges, rows and the positions of sequences do not count; neither do the members of extensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_OWN = (
    "NOT EXISTS (SELECT FROM pg_depend d"
    " WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')"
)
_TABLES = f"o.relkind IN ('r', 'p', 'v', 'm', 'c') AND {_USERS} AND {_OWN}"
# each gives what an object is called and how it is defined
_QUERIES = (
    f"""
    SELECT 'schema ' || o.nspname, '' FROM pg_namespace o
     WHERE o.nspname !~ '^pg_' AND o.nspname <> 'information_schema' AND {_OWN}
    """,
    f"""
    SELECT 'table ' || o.oid::regclass, concat_ws(' ', o.relkind, o.relpersistence, o.relrowsecurity,
           o.relforcerowsecurity, pg_get_partkeydef(o.oid), pg_get_expr(o.relpartbound, o.oid),
           (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno)
              FROM pg_inherits i WHERE i.inhrelid = o.oid))
      FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace WHERE {_TABLES}
    """,
    f"""
    SELECT 'column ' || o.oid::regclass || '.' || a.attname, concat_ws(' ',
           format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
           pg_get_expr(v.adbin, v.adrelid), nullif(a.attcollation, 0)::regcollation)
      FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
      JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef v ON v.adrelid = o.oid AND v.adnum = a.attnum
     WHERE {_TABLES}
    """,
    f"""
    SELECT 'constraint ' || coalesce(nullif(c.conrelid, 0)::regclass::text, '') || '.' || c.conname,
           pg_get_constraintdef(c.oid)
      FROM pg_constraint c JOIN pg_class o ON o.oid = c.conrelid JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE {_TABLES}
    """,
    f"""
    SELECT 'index ' || i.indexrelid::regclass, pg_get_indexdef(i.indexrelid)
      FROM pg_index i JOIN pg_class o ON o.oid = i.indrelid JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE {_TABLES}
    """,
    f"""
    SELECT 'view ' || o.oid::regclass, pg_get_viewdef(o.oid)
      FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE o.relkind IN ('v', 'm') AND {_USERS} AND {_OWN}
    """,
    f"""
    SELECT 'routine ' || o.oid::regprocedure, CASE WHEN o.prokind = 'a' THEN 'aggregate'
           ELSE pg_get_functiondef(o.oid) END
      FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace WHERE {_USERS} AND {_OWN}
    """,
    f"""
    SELECT 'trigger ' || t.tgrelid::regclass || '.' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid),
           t.tgenabled)
      FROM pg_trigger t JOIN pg_class o ON o.oid = t.tgrelid JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE NOT t.tgisinternal AND {_TABLES}
    """,
    f"""
    SELECT 'rule ' || r.ev_class::regclass || '.' || r.rulename, pg_get_ruledef(r.oid)
      FROM pg_rewrite r JOIN pg_class o ON o.oid = r.ev_class JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE r.rulename <> '_RETURN' AND {_TABLES}
    """,
    f"""
    SELECT 'policy ' || p.polrelid::regclass || '.' || p.polname, concat_ws(' ', p.polcmd, p.polpermissive,
           pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
      FROM pg_policy p JOIN pg_class o ON o.oid = p.polrelid JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE {_TABLES}
    """,
    f"""
    SELECT 'type ' || o.oid::regtype, concat_ws(' ', o.typtype, nullif(o.typbasetype, 0)::regtype,
           o.typnotnull, o.typdefault,
           (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e
             WHERE e.enumtypid = o.oid),
           (SELECT string_agg(pg_get_constraintdef(c.oid), ',' ORDER BY c.conname) FROM pg_constraint c
             WHERE c.contypid = o.oid))
      FROM pg_type o JOIN pg_namespace n ON n.oid = o.typnamespace
     WHERE o.typtype IN ('e', 'd', 'r') AND {_USERS} AND {_OWN}
    """,
    f"""
    SELECT 'sequence ' || o.oid::regclass, concat_ws(' ', s.seqtypid::regtype, s.seqincrement, s.seqmin,
           s.seqmax, s.seqcycle)
      FROM pg_sequence s JOIN pg_class o ON o.oid = s.seqrelid JOIN pg_namespace n ON n.oid = o.relnamespace
     WHERE {_USERS} AND {_OWN}
    """,
    "SELECT 'extension ' || extname, '' FROM pg_extension",
)


def read_schema(session: psycopg.Connection[Any]) -> dict[str, str]:
    """Return every object of a database: its name -> a digest of its definition."""
    found: dict[str, str] = {}
    with session.transaction():
        # names are written with their schema, times and numbers in one form
        session.execute("SET LOCAL search_path = pg_catalog")
        session.execute("SET LOCAL statement_timeout = '60s'")
        for query in _QUERIES:
            for name, definition in session.execute(query).fetchall():
                found[str(name)] = hashlib.sha256(str(definition).encode()).hexdigest()[:16]
    return found


def fingerprint(schema: Mapping[str, str]) -> str:
    """Return one digest of a schema."""
    return hashlib.sha256(json.dumps(sorted(schema.items())).encode()).hexdigest()[:32]


def differences(production: Mapping[str, str], shadow: Mapping[str, str]) -> list[str]:
    """Name what production has otherwise than its shadow, in plain words, in order."""
    found = []
    for name in sorted(production.keys() | shadow.keys()):
        if name not in shadow:
            found.append(f"{name} is new in production")
        elif name not in production:
            found.append(f"{name} is only in the shadow")
        elif production[name] != shadow[name]:
            found.append(f"{name} has changed")
    return found
