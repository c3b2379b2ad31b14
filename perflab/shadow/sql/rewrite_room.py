"""Where shadow tables are, and how their names are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perflab.shadow.sql.rewrite_lexer import Token, Unproven
from perflab.shadow.sql.rewrite_names import CATALOGS

_SCHEMAS = {"postgresql": ("pg_catalog", "information_schema"), "mariadb": ("information_schema",)}
_LONGEST = {"postgresql": 63, "mariadb": 64}
_WRITTEN = re.compile(
    r"'(?:([a-z_][a-z0-9_]*|\"[^\"'\\]+\")\.)?([a-z_][a-z0-9_]*|\"[^\"'\\]+\")'", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of the text and what stands there instead."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Room:
    """Where shadow tables are.

    Parameters
    ----------
    kind : {'postgresql', 'mariadb'}
        Of the store.
    mode : {'schema', 'table'}
        Whether they are in a schema of their own, or beside production's with other names.
    within : str
        The schema, or what the names begin with.
    database : str
        The only one they are in.
    """

    kind: str
    mode: str
    within: str
    database: str

    def quoted(self, name: str) -> str:
        """Write a name in quotes.

        Raises
        ------
        Unproven
            If the server would cut it off: the rest may be another table's name.
        """
        if len(name.encode()) > _LONGEST[self.kind]:
            raise Unproven(f"the name {name!r} is too long: the server would cut it off")
        quote = '"' if self.kind == "postgresql" else "`"
        return quote + name.replace(quote, quote * 2) + quote

    def is_catalog(self, schema: Token | None, name: Token) -> bool:
        """Tell whether a name is one of the server's own tables that may be read."""
        if schema is None:
            return self.kind == "postgresql" and name.named(self.kind) in CATALOGS
        said = schema.named(self.kind)
        if said.lower() not in _SCHEMAS[self.kind] or (self.kind == "postgresql" and said != said.lower()):
            return False
        if said == "pg_catalog" and name.named(self.kind) not in CATALOGS:
            raise Unproven(f"the catalogue {name.text} is not one that is known to be harmless")
        return True

    def table(self, schema: Token | None, name: Token, alias: str = "") -> list[Edit]:
        """Return the edits that turn a table's name into that of its shadow.

        Parameters
        ----------
        schema, name : Token
            As they stand.
        alias : str
            What is added, to keep the name it has in the statement.

        Raises
        ------
        Unproven
            If there is no such name.
        """
        own = name.named(self.kind)
        if self.mode == "schema":
            self.quoted(own)
            at = schema or name
            end = schema.end if schema else name.start
            return [Edit(at.start, end, self.quoted(self.within) + ("" if schema else "."))]
        if schema is not None and self.kind == "mariadb" and schema.named("mariadb") != self.database:
            raise Unproven(f"{schema.text}.{name.text} is of another database")
        return [Edit(name.start, name.end, self.quoted(self.within + own) + alias)]

    def column(self, schema: Token, table: Token) -> list[Edit]:
        """Return the edits for a column named with schema and table."""
        if self.mode == "schema":
            return [Edit(schema.start, schema.end, self.quoted(self.within))]
        return [Edit(schema.start, table.start, "")]

    def literal(self, token: Token) -> Edit:
        """Return the edit of a string that names a table or sequence.

        Raises
        ------
        Unproven
            If it is not one plain name.
        """
        found = _WRITTEN.fullmatch(token.text)
        if found is None:
            raise Unproven(f"the name of a table or sequence is not written out plainly: {token.text[:60]}")
        schema, name = (_unquoted(part) if part else "" for part in found.groups())
        if self.mode == "schema":
            written = f"{self.quoted(self.within)}.{self.quoted(name)}"
        else:
            written = (f"{self.quoted(schema)}." if schema else "") + self.quoted(self.within + name)
        return Edit(token.start, token.end, "'" + written.replace("'", "''") + "'")

    def is_shadow(self, schema: Token | None, name: Token) -> bool:
        """Tell whether a name is that of a shadow table, or of the server's own."""
        if self.mode == "schema":
            ours = schema is not None and schema.text == self.quoted(self.within)
        else:
            ours = name.kind == "name" and name.named(self.kind).startswith(self.within)
        return ours or (schema is not None and self.is_catalog(schema, name))


def _unquoted(part: str) -> str:
    return part[1:-1] if part.startswith('"') else part.lower()
