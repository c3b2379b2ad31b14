"""Statements of shadow work rewritten to reach shadow tables: for stores without a shadow database.

Weaker than a database of its own, and made to be sound alone: what cannot be proven to reach shadow tables
only is refused. Three readings must agree: our own tokens (`rewrite_lexer`, `rewrite_calls`), the parser's
tree (`rewrite_query`), and the same again of the edited text, in which every table must be a shadow's.

What it cannot see is listed in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from perflab.shadow import scope
from perflab.shadow.sql.rewrite_commands import read_command
from perflab.shadow.sql.rewrite_lexer import Token, Unproven, cut, masked
from perflab.shadow.sql.rewrite_query import prove, read_query
from perflab.shadow.sql.rewrite_room import Edit, Room

if TYPE_CHECKING:
    from perflab.shadow.sql.session import Session

LIMITS = (
    "weaker: statements are rewritten, and the login enters production's database",
    "what tables and types carry themselves is not seen: triggers, rules, defaults, checks, operators, casts",
    "alias.name where no such column is but a function of that name on the row",
    "MariaDB with ANSI_QUOTES or NO_BACKSLASH_ESCAPES",
)
"""What rewriting does not prove, for reports."""

_QUERIES = frozenset(["select", "insert", "update", "delete", "merge", "with", "values", "table", "replace"])
_CACHED = 20_000


def rewritten(session: Session, text: str) -> str:
    """Return the statement to send instead of ``text``.

    Raises
    ------
    ShadowError
        If it cannot be proven to reach shadow tables only.
    """
    room = Room(session.kind, session.mode, session.within, session.database)
    if not session.within:
        scope.refuse(
            session.store, f"where shadow tables are in mode {session.mode!r} is not known ('within')"
        )
    answer = _rewrite_again(text, room) if len(text) <= _CACHED else _answer(text, room)
    if isinstance(answer, Unproven):
        head = " ".join(text.split())[:80]
        scope.refuse(session.store, f"it cannot be proven that this stays apart ({answer}): {head}")
    return answer


def rewrite(text: str, room: Room) -> str:
    """Return the statement to send instead of ``text``.

    Parameters
    ----------
    text : str
        One or several statements.
    room : Room
        Where shadow tables are.

    Raises
    ------
    Unproven
        If it cannot be proven to reach shadow tables only.

    Examples
    --------
    >>> rewrite("SELECT id FROM item", Room("postgresql", "schema", "shadow", "shop"))
    'SELECT id FROM "shadow".item'
    """
    tokens = cut(text, room.kind)
    plain = masked(text, tokens, room.kind)
    edits: list[Edit] = []
    for statement in _statements(tokens):
        edits += _edits(plain, statement, room)
    pieces, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < at:
            raise Unproven("one place would be changed twice")
        pieces += [text[at : edit.start], edit.text]
        at = edit.end
    edited = "".join((*pieces, text[at:]))
    _prove(edited, room)
    return edited


def _answer(text: str, room: Room) -> str | Unproven:
    try:
        return rewrite(text, room)
    except Unproven as why:
        return why
    except RecursionError:
        return Unproven("it is nested too deeply")
    except Exception as error:  # whatever the parser could not do, nothing is proven
        return Unproven(f"reading it failed: {type(error).__name__}: {error}")


_rewrite_again = lru_cache(maxsize=4096)(_answer)


def _statements(tokens: Sequence[Token]) -> list[list[Token]]:
    found: list[list[Token]] = [[]]
    for token in tokens:
        if token.text == ";":
            found.append([])
        else:
            found[-1].append(token)
    return [statement for statement in found if statement]


def _edits(plain: str, tokens: Sequence[Token], room: Room) -> list[Edit]:
    def inner(part: Sequence[Token]) -> list[Edit]:
        if not _is_query(part):
            raise Unproven("there is no query inside that could be proven")
        return read_query(plain, part, room)

    found = read_command(tokens, room, inner)
    if found is not None:
        return found
    if not _is_query(tokens):
        raise Unproven(f"{tokens[0].text[:40]} is not a statement that is covered")
    return read_query(plain, tokens, room)


def _is_query(tokens: Sequence[Token]) -> bool:
    return bool(tokens) and (tokens[0].word in _QUERIES or tokens[0].text == "(")


def _prove(edited: str, room: Room) -> None:
    """Read the edited text again; every table of a query in it must be a shadow's."""
    tokens = cut(edited, room.kind)
    plain = masked(edited, tokens, room.kind)

    def inner(part: Sequence[Token]) -> list[Edit]:
        prove(plain, part, room)
        return []

    for statement in _statements(tokens):
        if _is_query(statement):
            prove(plain, statement, room)
        elif read_command(statement, room, inner) is None:
            raise Unproven("after rewriting it is another statement")
