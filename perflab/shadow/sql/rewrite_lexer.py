"""SQL text cut into tokens, as the server will cut it; where that is not certain, it is refused.

The parser (sqlglot) never sees what could be read in two ways: it gets the text with comments blanked and
strings, odd names and placeholders replaced by plain ones of the same length, so that every position it
tells is a position in the original text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = r"[ \t\n\r\f]+"
_NUMBER = r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
_WORD = r"(?P<word>[A-Za-z_][A-Za-z0-9_$]*)"
_NAMED_MARK = r"%\([A-Za-z0-9_]+\)[sbt](?![\w$])|%[sbt](?![\w$])"
_PATTERNS = {
    "postgresql": re.compile(
        rf"(?P<space>{_SPACE}|--[^\n\r]*)|(?P<comment>/\*(?!\+))"
        r"|(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|[bBxXnN]?'(?:[^']|'')*'"
        r"|\$(?P<tag>(?:[A-Za-z_][A-Za-z_0-9]*)?)\$.*?\$(?P=tag)\$)"
        r'|(?P<name>"(?:[^"\0]|"")+")'
        rf"|(?P<mark>{_NAMED_MARK}|\$\d+(?![\w$]))"
        rf"|{_WORD}|{_NUMBER}|(?P<sign>%%|::|/(?!\*)|[][(),;.:+\-*<>=~!@\#%^&|?])",
        re.DOTALL,
    ),
    "mariadb": re.compile(
        rf"(?P<space>{_SPACE}|--(?=[ \t\n\r]|\Z)[^\n]*|\#[^\n]*)|(?P<comment>/\*(?!M?!|\+).*?\*/)"
        r"|(?P<string>(?:_[A-Za-z0-9]+|[nNxXbB])?'(?:[^'\\]|\\.|'')*'"
        r'|"(?:[^"\\]|"")*")'
        r"|(?P<name>`(?:[^`\0]|``)+`)"
        rf"|(?P<mark>{_NAMED_MARK}|\?)|(?P<variable>@@(?:session\.|global\.)?[A-Za-z_]\w*)"
        rf"|{_WORD}|{_NUMBER}|(?P<sign>%%|--(?![ \t\n\r]|\Z)|/(?!\*)|[(),;.+\-*<>=~!%^&|])",
        re.DOTALL | re.ASCII,
    ),
}
_VALUES = ("string", "number", "mark", "variable")
_PLAIN = re.compile(r"[A-Za-z0-9_]+")
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Unproven(Exception):  # noqa: N818 - an answer, not a fault: why a statement is not sent
    """It cannot be proven that a statement reaches shadow tables only; the text says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement.

    Parameters
    ----------
    kind : {'word', 'name', 'string', 'number', 'mark', 'variable', 'sign'}
        ``name`` is a quoted one, ``mark`` a placeholder.
    text : str
        As it stands.
    start, end : int
        Where.
    """

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The word in lower case; ``""`` for everything else, quoted names included."""
        return self.text.translate(_LOWER) if self.kind == "word" else ""

    def named(self, kind: str) -> str:
        """Return what it names: PostgreSQL folds what is not quoted.

        Raises
        ------
        Unproven
            If it is no name.
        """
        if self.kind == "name":
            quote = self.text[0]
            return self.text[1:-1].replace(quote * 2, quote)
        if self.kind == "word":
            return self.word if kind == "postgresql" else self.text
        raise Unproven(f"{self.text[:40]!r} stands where a name should be")


def cut(text: str, kind: str) -> list[Token]:
    """Cut a text into tokens, comments and white space left out.

    Parameters
    ----------
    text : str
        One or several statements.
    kind : {'postgresql', 'mariadb'}
        Whose rules hold. Of MariaDB's, those without ``ANSI_QUOTES`` and ``NO_BACKSLASH_ESCAPES``.

    Raises
    ------
    Unproven
        If another reading is possible: a conditional comment, a string whose end depends on a setting.

    Examples
    --------
    >>> [token.text for token in cut("SELECT 'a' /* b */ FROM t", "postgresql")]
    ['SELECT', "'a'", 'FROM', 't']
    """
    pattern, at = _PATTERNS[kind], 0
    tokens: list[Token] = []
    while at < len(text):
        found = pattern.match(text, at)
        if found is None:
            raise Unproven(_unreadable(text, at))
        what = "string" if found.lastgroup == "tag" else str(found.lastgroup)
        end = found.end()
        if what == "comment" and kind == "postgresql":
            end = _end_of_comment(text, at)
        elif what not in ("space", "comment"):
            token = Token(what, found[0], at, end)
            _check(token, tokens[-1] if tokens else None, kind)
            tokens.append(token)
        at = end
    return tokens


def masked(text: str, tokens: list[Token], kind: str) -> str:
    """Return a text of the same length that says the same to a parser, and nothing that needs care.

    Parameters
    ----------
    text : str
        One or several statements.
    tokens : list of Token
        What `cut` made of it.
    kind : {'postgresql', 'mariadb'}
        Whose SQL it is.
    """
    pieces, at = [], 0
    for token in tokens:
        pieces.append(" " * (token.start - at))
        pieces.append(_plain(token, kind))
        at = token.end
    pieces.append(" " * (len(text) - at))
    return "".join(pieces)


def _plain(token: Token, kind: str) -> str:
    room = token.end - token.start
    if token.kind == "string":
        return f"'{'x' * (room - 2)}'"
    if token.kind in ("mark", "variable"):
        return ("$1" if kind == "postgresql" else "?").ljust(room)
    if token.kind == "name" and not _PLAIN.fullmatch(token.text[1:-1]):
        return f"{token.text[0]}{'q' * (room - 2)}{token.text[0]}"
    if token.text in ("%%", "--"):
        return "% " if token.text == "%%" else "- "
    return token.text


def _check(token: Token, before: Token | None, kind: str) -> None:
    """Refuse what two lexers, or one under two settings, may cut differently."""
    if token.kind == "string" and kind == "postgresql" and token.text[0] not in "eE$" and "\\'" in token.text:
        raise Unproven(
            "the end of a string with a backslash before a quote depends on a setting: write E'...'"
        )
    if token.text == "--":
        raise Unproven("'--' without a space after it is no comment in MariaDB and one elsewhere")
    if before is None:
        return
    if before.kind == "string" and token.kind == "string":
        raise Unproven("two strings in a row are one: write one")
    if before.text == "&" and token.kind in ("name", "string") and before.end == token.start:
        raise Unproven("names and strings with U& escapes are not covered")
    if before.end == token.start and "sign" not in (before.kind, token.kind):
        raise Unproven(f"{before.text[-20:]!r} runs into {token.text[:20]!r}")
    if before.kind == "mark" and token.text in ("(", "."):
        raise Unproven("a placeholder stands where a name should be")


def _end_of_comment(text: str, at: int) -> int:
    """PostgreSQL's comments nest."""
    depth = 0
    for sign in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if sign[0] == "/*" else -1
        if not depth:
            return sign.end()
    raise Unproven("a comment does not end")


def _unreadable(text: str, at: int) -> str:
    if text.startswith("/*+", at):
        return "a hint may set what names mean"
    if text.startswith(("/*!", "/*M!"), at):
        return "a conditional comment: what the server makes of it depends on its version"
    if text[at] in "'\"`$":
        return f"a string or quoted name is not clear at {text[at : at + 20]!r}"
    if not text[at].isascii():
        return f"a name with {text[at]!r} must be quoted"
    return f"{text[at : at + 20]!r} cannot be read for certain"
