"""What stands before a parenthesis, and what follows FROM: read from the tokens, whatever a parser says.

A second opinion on every statement, with one way to be wrong less: it needs no grammar. PostgreSQL's
functions are called by their full names afterwards, so that none of the same name is found on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perflab.shadow.sql import rewrite_names as names
from perflab.shadow.sql.rewrite_lexer import Token, Unproven
from perflab.shadow.sql.rewrite_room import Edit, Room

_SOURCE_WORDS = frozenset(["from", "join", "into", "update", "table", "only"])
_INTO_AFTER = frozenset(["insert", "merge", "ignore", "replace"])
_UPDATE_AFTER = frozenset(["do", "for", "key", "then", "on"])
_FROM_INSIDE = frozenset(["extract", "substring", "trim", "overlay"])
_CALL_OR_FORM = frozenset(["substring", "overlay"])
_NO_REG = frozenset(["regproc", "regprocedure", "regoper", "regoperator", "regdictionary", "regcollation"])
_NONE = Token("sign", "", -1, -1)


def read_calls(tokens: Sequence[Token], named: set[int], tables: set[int], room: Room) -> list[Edit]:
    """Return the edits of a statement's function calls and of names of tables in its strings.

    Parameters
    ----------
    tokens : sequence of Token
        Of the statement.
    named : set of int
        Where names stand that a list of columns may follow.
    tables : set of int
        Where the names of tables begin, as the parser found them.
    room : Room
        Where shadow tables are.

    Raises
    ------
    Unproven
        If a call is not known to be harmless, or a table's name stands where the parser saw none.
    """
    edits: dict[int, Edit] = {}
    openers: list[str] = []
    for at, token in enumerate(tokens):
        before = tokens[at - 1] if at else _NONE
        if token.text == "(":
            openers.append(before.word)
            if before.kind != "sign" and before.start not in named:
                outside = openers[-2] if len(openers) > 1 else ""
                if not _is_unnest_of_several(tokens, at - 1, outside, room):
                    for edit in _call(tokens, at - 1, room):
                        edits[edit.start] = edit
        elif token.text == ")" and openers:
            openers.pop()
        elif token.word in _SOURCE_WORDS:
            _source(tokens, at, tables, openers[-1] if openers else "")
        elif token.word == "regclass" or token.word in _NO_REG:
            for edit in _cast_to_table(tokens, at, room):
                edits[edit.start] = edit
    return list(edits.values())


def _at(tokens: Sequence[Token], at: int) -> Token:
    return tokens[at] if 0 <= at < len(tokens) else _NONE


def _call(tokens: Sequence[Token], at: int, room: Room) -> Iterator[Edit]:
    """Check what stands before a parenthesis."""
    token, before = tokens[at], _at(tokens, at - 1)
    word = token.word
    if not word:
        raise Unproven(f"{token.text[:40]} before a parenthesis is no function that is known")
    if before.text != ".":
        if word in names.BEFORE_PARENTHESIS[room.kind]:
            return
        if word in names.AFTER_VALUE and _ends_value(before, room.kind):
            return
        if (before.word or before.text) in names.IN_CONTEXT.get(word, ()):
            return
        if room.kind == "postgresql" and word in names.GRAMMAR and not _is_plain_call(tokens, at):
            return
    known = word in names.FUNCTIONS[room.kind] or (room.kind == "postgresql" and word in _CALL_OR_FORM)
    if not known:
        raise Unproven(why_not(word))
    if before.text == ".":
        schema = _at(tokens, at - 2)
        if room.kind != "postgresql" or schema.word != "pg_catalog" or _at(tokens, at - 3).text == ".":
            raise Unproven(f"the function {schema.text}.{token.text} may do anything")
    elif room.kind == "postgresql":
        yield Edit(token.start, token.start, "pg_catalog.")
    if room.kind == "mariadb" and tokens[at + 1].start != token.end:
        raise Unproven(f"{token.text} with a space before its parenthesis may be a function of the database")
    if word == "set_config" and not _sets_the_harmless(_at(tokens, at + 2), _at(tokens, at + 3)):
        raise Unproven("set_config may change what names mean")
    if word in names.OF_TABLES:
        yield from _first_argument(tokens, at, room)


def _is_unnest_of_several(tokens: Sequence[Token], at: int, outside: str, room: Room) -> bool:
    """Tell ``FROM unnest(a, b)``, a form of PostgreSQL's grammar that has no full name, from a call."""
    before, depth = _at(tokens, at - 1).word, 0
    if room.kind != "postgresql" or tokens[at].word != "unnest" or before not in ("from", "join"):
        return False
    if before == "from" and (outside in _FROM_INSIDE or _at(tokens, at - 2).word == "distinct"):
        return False
    for token in tokens[at + 1 :]:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0)
        if not depth:
            return False
        if depth == 1 and token.text == ",":
            return True
    return False


def _ends_value(token: Token, kind: str) -> bool:
    if token.word:
        return token.word == "not" or token.word not in names.BEFORE_PARENTHESIS[kind]
    return token.kind in ("name", "string", "number", "mark") or token.text in (")", "]")


def _is_plain_call(tokens: Sequence[Token], at: int) -> bool:
    """Tell whether ``substring(a, 1)`` is meant, a call by name, and not ``substring(a FROM 1)``."""
    if tokens[at].word not in _CALL_OR_FORM:
        return False
    depth = 0
    for token in tokens[at + 1 :]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if not depth:
            return True
        if depth == 1 and token.word in ("from", "for", "similar", "placing"):
            return False
    return True


def _sets_the_harmless(name: Token, then: Token) -> bool:
    return (
        then.text == "," and name.text[1:-1].lower() in names.SETTINGS["postgresql"] and name.text[0] == "'"
    )


def _first_argument(tokens: Sequence[Token], at: int, room: Room) -> Iterator[Edit]:
    """Name the table or sequence by a string, or let ``pg_get_serial_sequence`` find it."""
    given, then = _at(tokens, at + 2), _at(tokens, at + 3)
    if given.kind == "string":
        if then.text == "::" and _at(tokens, at + 4).word in ("regclass", "text"):
            then = _at(tokens, at + 5)
        if then.text in (",", ")"):
            yield room.literal(given)
            return
    inner = at + 2 if given.word != "pg_catalog" else at + 4
    if _at(tokens, inner).word == "pg_get_serial_sequence" and tokens[at].word != "pg_get_serial_sequence":
        depth = 0
        for end in range(inner + 1, len(tokens)):
            depth += {"(": 1, ")": -1}.get(tokens[end].text, 0)
            if not depth:
                if _at(tokens, end + 1).text in (",", ")"):
                    return
                break
    raise Unproven(f"{tokens[at].text} is told by other means than a name which table or sequence is meant")


def _cast_to_table(tokens: Sequence[Token], at: int, room: Room) -> Iterator[Edit]:
    token, given = tokens[at], _at(tokens, at - 2)
    if _at(tokens, at - 1).text != "::" or token.word != "regclass":
        raise Unproven(f"{token.word}: which object is meant is only known of '...'::regclass")
    if given.kind == "string":
        yield room.literal(given)
    elif given.kind not in ("word", "name"):
        raise Unproven("which table a value names is not known")


def _source(tokens: Sequence[Token], at: int, tables: set[int], inside: str) -> None:
    """Check that what follows FROM, JOIN, INTO, UPDATE, TABLE and ONLY is something the parser saw, too."""
    word, before, after = tokens[at].word, _at(tokens, at - 1), _at(tokens, at + 1)
    if before.text == "." or after.start in tables:
        if word == "into" and before.word not in _INTO_AFTER:
            raise Unproven("INTO after a query makes a table, a file or a variable")
        return
    if word == "into":
        raise Unproven("INTO leads to something that is no table of the statement")
    if word == "from" and (inside in _FROM_INSIDE or before.word == "distinct"):
        return
    if word == "update" and before.word in _UPDATE_AFTER:
        return
    if word == "table" or (word == "update" and after.word != "only"):
        raise Unproven(f"{word.upper()} leads to something that is no table of the statement")
    if after.text == "(" or after.word in ("only", "lateral", "rows"):
        return
    function = at + 3 if (after.word, _at(tokens, at + 2).text) == ("pg_catalog", ".") else at + 1
    if _at(tokens, function).word and _at(tokens, function + 1).text == "(":
        return
    raise Unproven(f"{word.upper()} {after.text[:40]} leads to something that is no table of the statement")


def why_not(word: str) -> str:
    """Say why a function may not be called."""
    if "advisory" in word or word in ("get_lock", "release_lock"):
        return f"{word}: advisory locks are shared with production"
    if word.startswith(("lo_", "loread", "lowrite")):
        return f"{word}: large objects are shared with production"
    if word == "pg_notify":
        return "pg_notify reaches production's listeners"
    return f"the function {word} may do anything"
