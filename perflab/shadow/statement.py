"""What one SQL statement does, in a few words: for span names and for the audit's claims.

This is no parser and decides nothing about safety: routing is by connection, never by text. It names a
statement (``SELECT stock``) and says whether it writes, where that can be told at a glance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NOISE = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_NAME = r'((?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))*)'
_FROM = re.compile(rf"\bfrom\s+(?:only\s+)?{_NAME}(?!\s*\()", re.IGNORECASE)
_TARGET = {
    "INSERT": re.compile(rf"\binsert\s+into\s+{_NAME}", re.IGNORECASE),
    "UPDATE": re.compile(rf"\bupdate\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "DELETE": re.compile(rf"\bdelete\s+from\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "MERGE": re.compile(rf"\bmerge\s+into\s+(?:only\s+)?{_NAME}", re.IGNORECASE),
    "TRUNCATE": re.compile(rf"\btruncate\s+(?:table\s+)?(?:only\s+)?{_NAME}", re.IGNORECASE),
    "COPY": re.compile(rf"\bcopy\s+{_NAME}", re.IGNORECASE),
}
_WRITE_WORD = re.compile(r"\b(insert\s+into|update\s+\S+\s+set|delete\s+from|merge\s+into)\b", re.IGNORECASE)
_READS = frozenset(
    {
        "SELECT",
        "SHOW",
        "SET",
        "EXPLAIN",
        "BEGIN",
        "START",
        "SAVEPOINT",
        "RELEASE",
        "DECLARE",
        "FETCH",
        "CLOSE",
        "VALUES",
        "TABLE",
        "LISTEN",
        "UNLISTEN",
        "DISCARD",
        "RESET",
        "DEALLOCATE",
    }
)
_ENDS = {"COMMIT": "commit", "END": "commit", "ROLLBACK": "rollback", "ABORT": "rollback"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement does.

    Parameters
    ----------
    operation : str
        Its leading keyword, upper case; for ``WITH``, that of the statement it introduces.
    table : str
        Unqualified lower-case name of its first table, ``""`` when there is none.
    writes : {'no', 'rows', 'opaque'}
        ``rows``: its row count is the rows it changed in ``table``; ``opaque``: it may change anything.
    ends : {'', 'commit', 'rollback'}
        What it does to the transaction.
    """

    operation: str
    table: str
    writes: str
    ends: str = ""

    @property
    def summary(self) -> str:
        """The span name: operation and table."""
        return f"{self.operation} {self.table}" if self.table else self.operation


@lru_cache(maxsize=2048)
def read_statement(text: str) -> Statement:
    """Read what a statement does.

    Parameters
    ----------
    text : str
        One SQL statement (of several, joined by ``;``, the first names it and all make it opaque).

    Returns
    -------
    Statement

    Examples
    --------
    >>> read_statement("select sum(x) from public.stock_movement where id = 1").summary
    'SELECT stock_movement'
    >>> read_statement("INSERT INTO orders (note) VALUES ('from here')")
    Statement(operation='INSERT', table='orders', writes='rows', ends='')
    """
    bare = _STRING.sub("''", _NOISE.sub(" ", text)).strip().rstrip("; \n\t")
    if not bare:
        return Statement("EMPTY", "", "no")
    first = bare.split(None, 1)[0].upper().strip("(;")
    writing = _WRITE_WORD.findall(bare)
    operation = _introduced(writing) if first == "WITH" else first
    target = _TARGET.get(operation, _FROM).search(bare)
    table = _unqualified(target[1]) if target else ""
    if ";" in bare or (first == "WITH" and writing) or len(writing) > 1:
        return Statement(operation, table, "opaque")
    if operation in _ENDS:
        partial = operation == "ROLLBACK" and re.search(r"\bto\b", bare, re.IGNORECASE) is not None
        return Statement(operation, "", "opaque" if partial else "no", "" if partial else _ENDS[operation])
    if operation in ("INSERT", "UPDATE", "DELETE"):
        return Statement(operation, table, "opaque" if "do update" in bare.lower() else "rows")
    return Statement(operation, table, "no" if operation in _READS else "opaque")


def _introduced(writing: list[str]) -> str:
    words = [word.split()[0].upper() for word in writing]
    return words[-1] if words else "SELECT"


def _unqualified(name: str) -> str:
    return name.split(".")[-1].strip().strip('"').lower()
