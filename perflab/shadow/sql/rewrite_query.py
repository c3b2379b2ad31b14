"""Queries and changes of rows: every table they name becomes the shadow's, or they are refused.

sqlglot parses the text; the edits are made in the text itself, at the positions of names, so that the rest
stays as it is, byte for byte. What is not on a list of known things is refused. Names of ``WITH`` queries
are changed too: should one be taken for such a name that the server takes for a table, there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perflab.shadow.sql import rewrite_names as names
from perflab.shadow.sql.rewrite_calls import read_calls, why_not
from perflab.shadow.sql.rewrite_lexer import Token, Unproven
from perflab.shadow.sql.rewrite_room import Edit, Room

if TYPE_CHECKING:
    from sqlglot import exp

_OURS = "perflab:"
_STATEMENTS = ("Select", "Insert", "Update", "Delete", "Merge")


def read_query(plain: str, tokens: Sequence[Token], room: Room) -> list[Edit]:
    """Return the edits that lead one query or change of rows into the shadow.

    Parameters
    ----------
    plain : str
        The masked text all tokens are positions in.
    tokens : sequence of Token
        Of this statement.
    room : Room
        Where shadow tables are.

    Raises
    ------
    Unproven
        If it cannot be proven to reach shadow tables only.
    """
    query = _Query(parse(plain, tokens, room.kind), tokens, room)
    query.read()
    return query.edits


def parse(plain: str, tokens: Sequence[Token], kind: str) -> exp.Expression:
    """Parse one statement whose every node is of a known kind.

    Parameters
    ----------
    plain, tokens
        As for `read_query`.
    kind : {'postgresql', 'mariadb'}
        Whose SQL it is.

    Raises
    ------
    Unproven
        If it cannot be parsed, or says something that is not known to be safe.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ErrorLevel, SqlglotError

    text = " " * tokens[0].start + plain[tokens[0].start : tokens[-1].end]
    if tokens[0].word == "replace":  # to a parser the same, and known to it
        text = text.replace(tokens[0].text, "INSERT ", 1)
    dialect = "postgres" if kind == "postgresql" else "mysql"
    try:
        found = sqlglot.parse(text, read=dialect, error_level=ErrorLevel.IMMEDIATE)
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise Unproven(f"it cannot be parsed: {said}") from error
    if len(found) != 1 or found[0] is None:
        raise Unproven("it is not one statement")
    tree: Any = found[0]
    operators = (exp.Binary, exp.Unary, exp.Func)
    for node in tree.walk():
        name = type(node).__name__
        if name not in names.NODES and not (isinstance(node, operators) and name != "NextValueFor"):
            raise Unproven(f"{name} is not known to stay apart")
        if isinstance(node, exp.Anonymous) and str(node.this).lower() not in names.FUNCTIONS[kind]:
            raise Unproven(why_not(str(node.this).lower()))
        if isinstance(node, exp.Dot) and not _is_harmless_dot(node):
            raise Unproven("a field of a value may be a function in disguise")
    return tree  # type: ignore[no-any-return]  # sqlglot's types are looser than ours


def _is_harmless_dot(node: Any) -> bool:
    """Tell a function or type of a schema, or all fields, from ``(value).name``, which may be a call."""
    from sqlglot import exp

    called = node.expression
    if isinstance(node.parent, exp.DataType) or isinstance(called, exp.Star):
        return True
    while isinstance(called, (exp.Window, exp.Filter, exp.WithinGroup, exp.IgnoreNulls, exp.RespectNulls)):
        called = called.this
    return isinstance(node.this, exp.Identifier) and isinstance(called, exp.Func)


@dataclass
class _Query:
    """One statement under way."""

    tree: Any
    tokens: Sequence[Token]
    room: Room
    edits: list[Edit] = field(default_factory=list)
    tables: set[int] = field(default_factory=set)
    unnamed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at = {token.start: token for token in self.tokens}

    def read(self) -> None:
        from sqlglot import exp

        named = set()
        for node in self.tree.find_all(exp.Table, exp.TableAlias, exp.Column):
            if isinstance(node, exp.Table):
                self._table(node)
            elif isinstance(node, exp.TableAlias):
                named |= {node.this.meta.get("start", -1)} if node.this is not None else set()
                self._with(node)
        for node in self.tree.find_all(exp.Column):
            self._column(node)
        self.edits += read_calls(self.tokens, named | self.names, self.tables, self.room)

    @property
    def names(self) -> set[int]:
        """Where the last part of a table's name is."""
        from sqlglot import exp

        found = self.tree.find_all(exp.Table)
        return {self._token(node.this).start for node in found if isinstance(node.this, exp.Identifier)}

    def _token(self, identifier: Any) -> Token:
        """Return the token of a name; one the parser made up has none."""
        token = self.at.get(identifier.meta.get("start", -1))
        if token is None or token.kind not in ("word", "name"):
            raise Unproven(f"where the name {identifier.name!r} stands cannot be told")
        return token

    def _table(self, node: Any) -> None:
        from sqlglot import exp

        if not isinstance(node.this, exp.Identifier):
            if not (isinstance(node.this, exp.Func) or (node.this is None and node.args.get("rows_from"))):
                raise Unproven("a source of rows is neither a table nor a known function")
            if node.args.get("db") or node.args.get("catalog"):
                raise Unproven("a function of a schema may do anything")
            return
        name = self._token(node.this)
        schema = self._token(node.args["db"]) if node.args.get("db") else None
        if node.args.get("catalog"):
            raise Unproven(f"{name.text} is named with a database")
        if isinstance(node.parent, exp.Lock) or node.arg_key == "tables":
            if schema is not None:
                raise Unproven("here the name of a source of rows has no schema")
            return  # it names a source of this statement
        self.tables.add((schema or name).start)
        if self.room.is_catalog(schema, name):
            self._read_only(node, name)
            if schema is None:
                self.edits.append(Edit(name.start, name.start, "pg_catalog."))
            return
        own = name.named(self.room.kind)
        if schema is None and self._is_with(node, own):
            self.edits.append(
                Edit(name.start, name.end, self.room.quoted(_OURS + own) + self._alias(node, name))
            )
            return
        self.edits += self.room.table(schema, name, self._alias(node, name))

    def _alias(self, node: Any, name: Token) -> str:
        """Return what keeps the name a table has in this statement, where its own is another one now."""
        from sqlglot import exp

        alias = node.args.get("alias")
        if alias is not None:
            if alias.this is None:
                raise Unproven("columns are renamed and the table is not")
            return ""
        if self.room.mode == "schema" and not self._is_with(node, name.named(self.room.kind)):
            return ""
        if self.room.kind == "mariadb" and self._takes_no_alias(node):
            self.unnamed.append(node)
            return ""
        first = self._token(node.args["db"]) if node.args.get("db") else name
        if self.tokens[max(self.tokens.index(first) - 1, 0)].word == "table":
            return ""  # TABLE name takes none
        if isinstance(node.parent, exp.Schema) and not isinstance(node.parent.parent, exp.Insert):
            raise Unproven("columns stand where none are known to")
        return f" AS {name.text}"

    @staticmethod
    def _takes_no_alias(node: Any) -> bool:
        from sqlglot import exp

        owner = node.parent.parent if isinstance(node.parent, exp.Schema) else node.parent
        if not isinstance(owner, (exp.Insert, exp.Delete)) or (node.arg_key != "this"):
            return False
        return isinstance(owner, exp.Insert) or not (owner.args.get("tables") or node.args.get("joins"))

    def _is_with(self, node: Any, own: str) -> bool:
        """Tell whether a name is that of a ``WITH`` query in whose reach it stands."""
        from sqlglot import exp

        if node.arg_key == "this" and isinstance(node.parent, (exp.Schema, *self._changes())):
            return False
        below, above, inside = node, node.parent, None
        while above is not None:
            if isinstance(above, exp.CTE):
                inside = above
            clause = above.args.get("with_")
            if clause is not None and clause is not below:
                if any(self._with_name(query) == own for query in clause.expressions):
                    return True
            elif clause is not None:
                for query in clause.expressions:
                    if query is inside and not clause.args.get("recursive"):
                        break
                    if self._with_name(query) == own:
                        return True
            below, above = above, above.parent
        return False

    @staticmethod
    def _changes() -> tuple[Any, ...]:
        from sqlglot import exp

        return (exp.Insert, exp.Update, exp.Delete, exp.Merge)

    def _with_name(self, query: Any) -> str:
        return self._token(query.args["alias"].this).named(self.room.kind)

    def _with(self, alias: Any) -> None:
        from sqlglot import exp

        if isinstance(alias.parent, exp.CTE) and alias.arg_key == "alias":
            token = self._token(alias.this)
            self.edits.append(
                Edit(token.start, token.end, self.room.quoted(_OURS + token.named(self.room.kind)))
            )

    def _read_only(self, node: Any, name: Token) -> None:
        """Let a catalogue be read by a SELECT that locks nothing."""
        owner = node.parent
        while owner is not None and type(owner).__name__ not in _STATEMENTS:
            owner = owner.parent
        if owner is None or type(owner).__name__ != "Select" or owner.args.get("locks"):
            raise Unproven(f"the catalogue {name.text} may only be read")

    def _column(self, node: Any) -> None:
        """Leave a column's table named as before; a schema before it is the shadow's, or goes."""
        if node.args.get("catalog"):
            raise Unproven("a column is named with a database")
        table = self._token(node.args["table"]) if node.args.get("table") else None
        schema = self._token(node.args["db"]) if node.args.get("db") else None
        if table is None:
            return
        if schema is not None and not self.room.is_catalog(schema, table):
            self.edits += self.room.column(schema, table)
        for target in self.unnamed:
            own = self._token(target.this)
            if table.text == own.text and not self._has_own(node, own):
                self.edits.append(
                    Edit(
                        table.start, table.end, self.room.quoted(self.room.within + own.named(self.room.kind))
                    )
                )

    def _has_own(self, node: Any, own: Token) -> bool:
        """Tell whether a column stands in a query that has a source of that name."""
        above = node.parent
        while above is not None:
            if type(above).__name__ == "Select":
                sources = [above.args.get("from_"), *(above.args.get("joins") or ())]
                if any(
                    source is not None and source.this.alias_or_name == own.named("mariadb")
                    for source in sources
                ):
                    return True
            above = above.parent
        return False


def prove(plain: str, tokens: Sequence[Token], room: Room) -> None:
    """Check an edited statement: every table in it is a shadow's, or one of the server's own.

    Parameters
    ----------
    plain, tokens, room
        As for `read_query`, of the edited text.

    Raises
    ------
    Unproven
        If one is not.
    """
    from sqlglot import exp

    at = {token.start: token for token in tokens}
    tree = parse(plain, tokens, room.kind)
    queries = {
        at[query.args["alias"].this.meta["start"]].named(room.kind) for query in tree.find_all(exp.CTE)
    }
    for node in tree.find_all(exp.Table):
        if isinstance(node.this, exp.Func) or node.this is None:
            continue
        if isinstance(node.parent, exp.Lock) or node.arg_key == "tables":
            continue
        name = at[node.this.meta["start"]]
        schema = at[node.args["db"].meta["start"]] if node.args.get("db") else None
        of_query = schema is None and name.named(room.kind).startswith(_OURS)
        if node.args.get("catalog") or not (
            (of_query and name.named(room.kind) in queries) or room.is_shadow(schema, name)
        ):
            raise Unproven(f"{name.text} is not a shadow's")
