"""What production's PostgreSQL catalogue says about its tables, as far as the audit must know it.

Which tables have a replica identity (a publication of updates breaks the others), which are never in
the log, which partition belongs to which table, and which change rows an agent cannot count: behind
triggers, rules, cascading foreign keys, views.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .attribution import Claim
from .pgoutput import fingerprint

if TYPE_CHECKING:
    import psycopg

OPAQUE = "opaque"
"""Fingerprint of a claim of an agent that could not tell what it wrote."""

# An identity made of generated columns is none to a publication that leaves those out (PostgreSQL 18).
_TABLES = """
SELECT n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
       coalesce(root.relname, c.relname),
       CASE c.relreplident
         WHEN 'f' THEN NOT EXISTS (
           SELECT FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
         ELSE EXISTS (
           SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident
                  ELSE false END
              AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                                 AND a.attnum = ANY (i.indkey) AND a.attgenerated <> ''))
       END,
       c.relkind IN ('v', 'p')
       OR EXISTS (SELECT FROM pg_trigger t
                  WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D')
       OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1')
       OR EXISTS (SELECT FROM pg_constraint k WHERE k.confrelid = c.oid AND k.contype = 'f'
                     AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')))
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
 WHERE c.relkind IN ('r', 'p', 'v') AND c.relpersistence <> 't' AND c.oid >= 16384
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""


@dataclass(slots=True)
class Tables:
    """Tables of one database by what a change stream can tell of them.

    ``with_identity``, ``without_identity`` and ``unlogged`` hold (schema, table); the others lower-case
    names without a schema: ``root_of`` leads from a partition to its table, ``indirect`` are those where
    one statement changes rows that the client is not told of.
    """

    with_identity: set[tuple[str, str]] = field(default_factory=set)
    without_identity: set[tuple[str, str]] = field(default_factory=set)
    unlogged: set[tuple[str, str]] = field(default_factory=set)
    root_of: dict[str, str] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)
    indirect: set[str] = field(default_factory=set)

    def not_seen(self) -> list[str]:
        """Say in plain words whose changes cannot be decoded."""
        said: list[str] = []
        if self.without_identity:
            said.append(
                f"updates and deletes of {_listed(self.without_identity)}: no primary key and no other"
                " replica identity, so that decoding them would make production's own updates fail"
            )
        if self.unlogged:
            said.append(
                f"changes of {_listed(self.unlogged)}: unlogged tables are not in the write-ahead log"
            )
        return said

    def identities_unlike(self, earlier: Tables) -> list[str]:
        """Name the tables that are new, or have or lack a replica identity unlike before."""
        mine = {(names, True) for names in self.with_identity} | {
            (names, False) for names in self.without_identity
        }
        theirs = {(names, True) for names in earlier.with_identity} | {
            (names, False) for names in earlier.without_identity
        }
        return sorted({".".join(names) for names, _ in mine - theirs})

    def claim(self, row: dict[str, Any]) -> Claim | None:
        """Read an agent's claim as this database's stream would show it.

        Parameters
        ----------
        row : dict
            ``fingerprint`` (JSON list of [table, operation, rows], as text or not, or `OPAQUE`),
            ``begin_ns``, ``end_ns``, and ``background`` where it was done outside of every request.

        Returns
        -------
        Claim or None
            None when the stream cannot show any of it (temporary tables, nothing changed). What the
            client was not told in full becomes opaque as well.
        """
        begin_ns, end_ns, background = int(row["begin_ns"]), int(row["end_ns"]), "background" in row
        entries = read_entries(row["fingerprint"])
        if entries is None:
            return Claim("", begin_ns, end_ns, opaque=True, background=background)
        blind, seeing = self._roots(self.without_identity), self._roots(self.with_identity)
        kept, indirect = [], False
        for table, operation, rows in entries:
            name = str(table).rpartition(".")[2].lower()
            name = self.root_of.get(name, name)
            unsure = name in blind and name in seeing
            indirect |= name in self.indirect or operation == "truncate" or unsure
            if name not in self.logged or (
                name in blind and not unsure and operation in ("update", "delete")
            ):
                continue
            kept.append((name, operation, rows))
        written = fingerprint(kept)
        if written == "[]" and not indirect:
            return None
        return Claim(written, begin_ns, end_ns, opaque=indirect, background=background)

    def _roots(self, names: set[tuple[str, str]]) -> set[str]:
        return {self.root_of.get(table.lower(), table.lower()) for _, table in names}


def read_tables(session: psycopg.Connection[Any]) -> Tables:
    """Read the catalogue of the session's database; four system tables, no lock on any user's table."""
    tables = Tables()
    for schema, name, kind, persistence, root, has_identity, indirect in session.execute(_TABLES):
        lower = name.lower()
        if indirect:
            tables.indirect.add(lower)
        if root != name:
            tables.root_of[lower] = root.lower()
        if kind == "v":
            continue
        if persistence == "u":
            tables.unlogged.add((schema, name))
            continue
        tables.logged.add(lower)
        if kind == "r":
            (tables.with_identity if has_identity else tables.without_identity).add((schema, name))
    return tables


def read_entries(written: Any) -> list[list[Any]] | None:
    """Parse a fingerprint; None when it is opaque or not one."""
    if written == OPAQUE:
        return None
    try:
        entries = json.loads(written) if isinstance(written, str) else written
        return [[str(table), str(operation), int(rows)] for table, operation, rows in entries]
    except (ValueError, TypeError):
        return [["", "malformed", 1]]


def _listed(names: set[tuple[str, str]], most: int = 8) -> str:
    """Write table names for a sentence."""
    first = sorted(".".join(pair) for pair in names)
    return ", ".join(first[:most]) + (f" and {len(first) - most} more" if len(first) > most else "")
