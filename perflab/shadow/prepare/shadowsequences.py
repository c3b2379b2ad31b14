"""Sequences of the shadow's own, beside production's: ``LIKE`` shares them, and that is a leak.

Each starts far ahead of production's, so that ids of shadow rows differ from real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perflab.shadow.sql.rewrite_room import Room

if TYPE_CHECKING:
    import psycopg

AHEAD = 1_000_000_000
_SEQUENCES = """
SELECT n.nspname, c.relname, s.seqtypid::regtype::text, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
       s.seqcycle, coalesce(pg_sequence_last_value(c.oid), s.seqstart)
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND c.relpersistence <> 't'
   AND coalesce(obj_description(n.oid, 'pg_namespace'), '') NOT LIKE %(note)s || '%%'
   AND coalesce(obj_description(c.oid, 'pg_class'), '') NOT LIKE %(note)s || '%%'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = ANY (%(but)s))
 ORDER BY 1, 2
"""
_IDENTITIES = """
SELECT a.attname, a.attidentity::text, n.nspname, c.relname
  FROM pg_attribute a
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
       AND d.refobjsubid = a.attnum AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
  JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE a.attrelid = %s AND a.attidentity <> ''
"""


def shadow_name(room: Room, schema: str, name: str) -> str:
    """Return the quoted name of a table's or sequence's shadow.

    Parameters
    ----------
    room : Room
        Where it is.
    schema, name : str
        Production's.
    """
    if room.mode == "schema":
        return f"{room.quoted(room.within)}.{room.quoted(name)}"
    return f"{room.quoted(schema)}.{room.quoted(room.within + name)}"


def make_sequences(session: psycopg.Connection[Any], room: Room, note: str) -> list[str]:
    """Make a sequence for each of production's that is no identity's; return the names of all.

    Parameters
    ----------
    session : psycopg.Connection
        An administrator's, in a transaction.
    room : Room
        Where they are.
    note : str
        The comment that says who made them.
    """
    names = []
    for schema, name, *shape in session.execute(_SEQUENCES, {"note": note, "but": ["i", "e"]}).fetchall():
        shadow = shadow_name(room, schema, name)
        names.append(shadow)
        there = session.execute("SELECT to_regclass(%s)", (shadow,)).fetchone()
        if there == (None,):
            session.execute(f"CREATE SEQUENCE {shadow} AS {shape[0]} {_shape(shape)}".encode())
            session.execute(f"COMMENT ON SEQUENCE {shadow} IS '{note}'".encode())
    return names


def own_identities(session: psycopg.Connection[Any], room: Room, oid: int, shadow: str) -> None:
    """Give the identity columns of a shadow table sequences of their own, named as production's.

    Parameters
    ----------
    session : psycopg.Connection
        An administrator's, in a transaction.
    room : Room
        Where they are.
    oid : int
        Production's table.
    shadow : str
        Its shadow, quoted.
    """
    shapes = {
        (schema, name): shape
        for schema, name, *shape in session.execute(_SEQUENCES, {"note": "-", "but": ["e"]}).fetchall()
    }
    for column, how, schema, name in session.execute(_IDENTITIES, (oid,)).fetchall():
        session.execute(
            f"ALTER TABLE {shadow} ALTER {room.quoted(column)} ADD GENERATED"
            f" {'ALWAYS' if how == 'a' else 'BY DEFAULT'} AS IDENTITY"
            f" (SEQUENCE NAME {shadow_name(room, schema, name)} {_shape(shapes[schema, name])})".encode()
        )


def _shape(shape: list[Any]) -> str:
    _, increment, least, most, cache, cycle, last = shape
    step = min(AHEAD, abs((most if increment > 0 else least) - last) // 2)
    start = last + (step if increment > 0 else -step)
    return (
        f"INCREMENT BY {increment} MINVALUE {least} MAXVALUE {most} START WITH {start} CACHE {cache}"
        f" {'CYCLE' if cycle else 'NO CYCLE'}"
    )
