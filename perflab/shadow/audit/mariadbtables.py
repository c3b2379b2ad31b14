"""What production's MariaDB catalogue says about its tables, as far as the audit must know it.

Which are there, which change rows an agent cannot count (behind triggers, views, system versioning),
and which are not in the binlog as what they are: sequences, tables that live on another server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.mariadb_login import rows

from .tables import Tables

if TYPE_CHECKING:
    import pymysql

_TABLES = """
SELECT TABLE_NAME, TABLE_TYPE, COALESCE(UPPER(ENGINE), '') FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = %s
"""
_TRIGGERS = (
    "SELECT DISTINCT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = %s"
)
_CASCADES = """
SELECT DISTINCT REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
 WHERE CONSTRAINT_SCHEMA = %s AND (DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION')
    OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION'))
"""
_UNSEARCHABLE = """
SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = %s AND (CHARACTER_SET_NAME IN ('utf16', 'utf16le', 'ucs2', 'utf32')
    OR COLUMN_TYPE LIKE '%%COMPRESSED%%')
"""
_ELSEWHERE = ("FEDERATED", "SPIDER", "CONNECT", "BLACKHOLE")


@dataclass(slots=True)
class Catalogue:
    """One schema's tables.

    Names are in lower case and without the schema: ``sequences``, which are logged like tables whenever a
    value is taken; ``cascading``, whose changes cascade along foreign keys unlogged; ``elsewhere``, whose
    engine keeps the data on another server; ``unsearchable``, columns whose text a canary cannot be found in.
    """

    tables: Tables = field(default_factory=Tables)
    sequences: set[str] = field(default_factory=set)
    cascading: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    unsearchable: list[str] = field(default_factory=list)


def read_catalogue(session: pymysql.Connection[Any], schema: str) -> Catalogue:
    """Read one schema's catalogue; four system tables, no lock on any user's table.

    Parameters
    ----------
    session : pymysql.Connection
        One that may see the schema's tables and triggers.
    schema : str
        Production's schema.

    Raises
    ------
    ShadowError
        If no table can be seen: the login lacks rights, and no claim could be compared with anything.
    """
    found = Catalogue()
    tables = found.tables
    for name, kind, engine in rows(session, _TABLES, schema):
        lower = str(name).lower()
        if kind == "SEQUENCE":
            found.sequences.add(lower)
            continue
        tables.logged.add(lower)
        if kind in ("VIEW", "SYSTEM VERSIONED"):
            tables.indirect.add(lower)
        if kind != "VIEW":
            tables.with_identity.add((schema, str(name)))
        if engine in _ELSEWHERE:
            found.elsewhere.append(lower)
    if not tables.logged:
        raise ShadowError(
            f"the audit login sees no table of {schema!r}; GRANT SELECT, SHOW VIEW, TRIGGER ON"
            f" {schema}.* to it"
        )
    tables.indirect |= {str(name).lower() for (name,) in rows(session, _TRIGGERS, schema)}
    found.unsearchable = sorted(
        f"{table}.{column}"
        for table, column in rows(session, _UNSEARCHABLE, schema)
        if (schema, str(table)) in tables.with_identity  # a view's are its tables'
    )
    found.cascading = sorted(str(name).lower() for (name,) in rows(session, _CASCADES, schema))
    return found
