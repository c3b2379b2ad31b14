"""Statements that are no queries: which pass as they are, which have a table or a query inside, which never.

Each form is written out here; what fits none is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perflab.shadow.sql import rewrite_names as names
from perflab.shadow.sql.rewrite_lexer import Token, Unproven
from perflab.shadow.sql.rewrite_room import Edit, Room

Inner = Callable[[Sequence[Token]], list[Edit]]
_NONE = Token("sign", "", -1, -1)
_ENDINGS = frozenset(["begin", "start", "commit", "end", "abort", "rollback"])
_OF_SESSION = frozenset(
    ["savepoint", "release", "fetch", "move", "close", "deallocate", "discard", "unlisten"]
)
_OF_TRANSACTION = frozenset(
    [
        "begin",
        "start",
        "commit",
        "end",
        "abort",
        "rollback",
        "work",
        "transaction",
        "isolation",
        "level",
        "read",
        "write",
        "only",
        "committed",
        "uncommitted",
        "repeatable",
        "serializable",
        "not",
        "deferrable",
        "with",
        "consistent",
        "snapshot",
        "and",
        "no",
        "chain",
        "release",
    ]
)
_WHY = {
    "listen": "LISTEN would hear production's notifications",
    "notify": "NOTIFY reaches production's listeners",
    "call": "a procedure may do anything",
    "do": "a block of code may do anything",
    "handler": "HANDLER is not covered",
    "load": "LOAD DATA is not covered",
    "use": "another database is not the shadow's",
    "import": "tables of other servers are not covered",
    "grant": "rights are production's",
    "revoke": "rights are production's",
}
_MAKES = frozenset(
    [
        "create",
        "alter",
        "drop",
        "rename",
        "comment",
        "reindex",
        "cluster",
        "vacuum",
        "analyze",
        "refresh",
        "reassign",
        "security",
    ]
)


def read_command(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit] | None:
    """Return the edits of a statement that is no query; None for one that is.

    Parameters
    ----------
    tokens : sequence of Token
        Of one statement, not empty.
    room : Room
        Where shadow tables are.
    inner : callable
        Returns the edits of a query inside.

    Raises
    ------
    Unproven
        If it cannot be proven to stay apart.
    """
    first = tokens[0].word
    if first in _ENDINGS:
        return _ended(tokens)
    if first in _OF_SESSION:
        return _kept(tokens, room)
    if first in _WHY:
        raise Unproven(_WHY[first])
    if first in _MAKES:
        raise Unproven(f"{first.upper()} changes more than rows")
    form = _FORMS[room.kind].get(first)
    return None if form is None else form(tokens, room, inner)


def _ended(tokens: Sequence[Token]) -> list[Edit]:
    """Let transactions begin and end; two-phase ones may be another session's, and blocks hold statements."""
    words = [token.word or token.text for token in tokens]
    if words[0] == "rollback" and "to" in words[-3:-1]:
        tokens[-1].named("postgresql")
        words = words[: words.index("to")]
    if not _OF_TRANSACTION.issuperset(set(words) - {","}) or (
        words[0] == "start" and words[1:2] != ["transaction"]
    ):
        raise Unproven(f"this {words[0].upper()} is not one of a plain transaction")
    return []


def _kept(tokens: Sequence[Token], room: Room) -> list[Edit]:
    """Let savepoints, cursors and prepared statements of this session be."""
    cursors = tokens[0].word not in ("savepoint", "release")
    if cursors and room.kind != "postgresql":
        raise Unproven(f"{tokens[0].text} is not covered")
    for token in tokens:
        if token.kind not in ("word", "name") and not (
            cursors and (token.kind == "number" or token.text in "*-")
        ):
            raise Unproven(f"{token.text[:40]} in {tokens[0].text} is not covered")
    return []


def _set(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    words = [token.word for token in tokens[1:]]
    for token in tokens[1:]:
        if token.text in ("(", ")", ".") or token.kind == "variable" or token.word == "global":
            raise Unproven("SET with anything but plain values for this session is not covered")
    if room.kind == "mariadb" and "names" in words[:1] and all(token.text not in ",=" for token in tokens):
        if "utf8" not in tokens[min(2, len(tokens) - 1)].text:
            raise Unproven("an encoding other than UTF-8 is not covered")
        return []
    plain = all(token.text != "=" for token in tokens)
    if plain and (
        words[:1] == ["transaction"] or words[:2] in (["session", "transaction"], ["local", "transaction"])
    ):
        return []
    if (
        plain
        and room.kind == "postgresql"
        and (words[:3] == ["session", "characteristics", "as"] or words[:2] == ["constraints", "all"])
    ):
        return []
    for part in _parts(tokens[1:], room):
        if part and part[0].word in ("session", "local"):
            part = part[1:]
        name = part[0].word if part else ""
        if room.kind == "postgresql" and name == "time" and len(part) > 1 and part[1].word == "zone":
            continue
        if name not in names.SETTINGS[room.kind]:
            raise Unproven(f"SET {name or '...'} may change what names mean, or is not known to be harmless")
    return []


def _reset(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    if len(tokens) == 2 and tokens[1].word in (*names.SETTINGS[room.kind], "all"):
        return []
    raise Unproven("RESET of that is not covered")


def _show(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    allowed = all(token.word or token.text in (".", "*") for token in tokens)
    if room.kind == "mariadb":
        asked = [token.word for token in tokens[1:]]
        allowed = bool(asked) and asked[0] in names.SHOWN and not {"from", "in"} & set(asked)
        allowed = allowed and all(token.text not in ("(", ".") for token in tokens)
    if not allowed:
        raise Unproven("SHOW of that is not covered")
    return []


def _explain(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    at = 1
    if _at(tokens, at).text == "(" and _at(tokens, at + 1).word not in ("select", "with", "values", "table"):
        at = _closing(tokens, at) + 1
    while _at(tokens, at).word in ("analyze", "verbose", "extended", "partitions"):
        at += 1
    return inner(tokens[at:])


def _declare(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    for at, token in enumerate(tokens):
        if token.word == "for":
            return inner(tokens[at + 1 :])
        if token.kind not in ("word", "name"):
            break
    raise Unproven("this DECLARE is not covered")


def _prepare(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    at = 2
    if _at(tokens, at).text == "(":
        at = _closing(tokens, at) + 1
    if _at(tokens, at).word != "as" or tokens[1].word == "transaction":
        raise Unproven("this PREPARE is not covered")
    return inner(tokens[at + 1 :])


def _execute(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    for token in tokens[2:]:
        if token.kind in ("word", "name") and token.word not in ("null", "true", "false"):
            raise Unproven("EXECUTE with anything but plain values is not covered")
    return []


def _truncate(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    at = 2 if _at(tokens, 1).word == "table" else 1
    edits, at = _tables(tokens, at, room)
    rest = [token.word for token in tokens[at:]]
    if rest not in ([], ["restrict"], ["restart", "identity"], ["continue", "identity"]):
        raise Unproven("TRUNCATE ... CASCADE, and what else may follow, is not covered")
    return edits


def _lock(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    edits, at = _tables(tokens, 2 if _at(tokens, 1).word == "table" else 1, room)
    if not all(token.word for token in tokens[at:]):
        raise Unproven("this LOCK is not covered")
    return edits


def _unlock(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:  # noqa: ARG001 - a form takes all three
    if [token.word for token in tokens] != ["unlock", "tables"]:
        raise Unproven("this UNLOCK is not covered")
    return []


def _copy(tokens: Sequence[Token], room: Room, inner: Inner) -> list[Edit]:
    if _at(tokens, 1).text == "(":
        end = _closing(tokens, 1)
        edits, at = inner(tokens[2:end]), end + 1
    else:
        edits, at = _tables(tokens, 1, room, several=False)
        if _at(tokens, at).text == "(":
            at = _closing(tokens, at) + 1
    way = (_at(tokens, at).word, _at(tokens, at + 1).word)
    if way not in (("from", "stdin"), ("to", "stdout")) or (way[0] == "from" and tokens[1].text == "("):
        raise Unproven("COPY with a file or a program reaches the server's machine")
    if any(token.word == "where" or token.text == "." for token in tokens[at:]):
        raise Unproven("COPY ... WHERE is not covered")
    return edits


def _tables(tokens: Sequence[Token], at: int, room: Room, *, several: bool = True) -> tuple[list[Edit], int]:
    """Read names of tables from a place on; return their edits and where they end."""
    edits: list[Edit] = []
    while True:
        at += _at(tokens, at).word == "only"
        schema, name = None, _at(tokens, at)
        if _at(tokens, at + 1).text == ".":
            schema, name, at = name, _at(tokens, at + 2), at + 2
        name.named(room.kind)
        if room.is_catalog(schema, name) or _at(tokens, at + 1).text == ".":
            raise Unproven(f"{name.text} is no table with a shadow")
        edits += room.table(schema, name)
        at += 2 if several and _at(tokens, at + 1).text == "*" else 1
        if not several or _at(tokens, at).text != ",":
            return edits, at
        at += 1


def _parts(tokens: Sequence[Token], room: Room) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.text == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    # PostgreSQL sets one thing at a time: what follows a comma there is a value, as in SET datestyle = a, b
    return parts if room.kind == "mariadb" else parts[:1]


def _closing(tokens: Sequence[Token], at: int) -> int:
    """Return where the parenthesis that opens at a place closes."""
    depth = 0
    for end in range(at, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[end].text, 0)
        if not depth:
            return end
    raise Unproven("a parenthesis does not close")


def _at(tokens: Sequence[Token], at: int) -> Token:
    return tokens[at] if 0 <= at < len(tokens) else _NONE


_BOTH: dict[str, Callable[[Sequence[Token], Room, Inner], list[Edit]]] = {
    "set": _set,
    "show": _show,
    "explain": _explain,
    "truncate": _truncate,
}
_FORMS = {
    "postgresql": {
        **_BOTH,
        "reset": _reset,
        "declare": _declare,
        "prepare": _prepare,
        "execute": _execute,
        "lock": _lock,
        "copy": _copy,
    },
    "mariadb": {**_BOTH, "unlock": _unlock},
}
