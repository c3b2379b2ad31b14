"""Ordinary work that finds a shadow connection: it takes it over, or it loses it.

A service may open one connection lazily and keep it for all its requests, outside any pool. If a marked
request comes first, that connection is a shadow. Ordinary work that finds it takes it over: the same object
goes on with a fresh connection to what the service had asked for, and is production's for life. What marked
work had not committed is gone.

That is only done where nobody can tell the difference. A statement that sets something for the server's
session, or makes what lives as long as it does, is remembered, and then the connection is closed instead, as
if it was lost: a real user has felt it, and the run ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perflab.shadow.ledger import LOST as LOST_MARK
from perflab.shadow.scope import process
from perflab.shadow.sql.statement import without_words, words
from perflab.shadow.sql.statement_mariadb import USER_LOCKS, without_values

if TYPE_CHECKING:
    from perflab.shadow.sql.session import Session

KEPT = "ordinary work found a connection of shadow work, which the service had kept outside a known pool"
"""Why a run ends in which a real user lost such a connection."""
TAKEN_OVER = "sql: ordinary work took over a connection that shadow work had opened"
"""What is counted when it was done."""
_LONGEST = 1_000_000
_LEAVE_NOTHING = words(
    "SELECT VALUES TABLE WITH INSERT UPDATE DELETE REPLACE MERGE COPY TRUNCATE EXPLAIN SHOW DESCRIBE DESC "
    "BEGIN START COMMIT END ROLLBACK ABORT SAVEPOINT RELEASE FETCH MOVE NOTIFY CREATE ALTER DROP COMMENT "
    "KILL GRANT REVOKE ANALYZE VACUUM REINDEX CLUSTER REFRESH"
)
_LASTS = re.compile(
    r"\bset_config\s*\(|\bpg_(?:try_)?advisory_lock|\bpg_temp\b|\binto\s+(?:local\s+)?temp(?:orary)?\b"
    r"|^create\s+(?:or\s+replace\s+)?(?:(?:global|local)\s+)?temp(?:orary)?\b",
    re.IGNORECASE,
)
_MARIADB_LASTS = re.compile(rf"{USER_LOCKS}|(?<!@)@(?!@)|@@\w+\s*:=", re.IGNORECASE)
_FOR_ONE_TRANSACTION = {
    "postgresql": re.compile(r"set\s+(?:local|transaction|constraints)\b|lock\b", re.IGNORECASE),
    "mariadb": re.compile(r"set\s+transaction\b", re.IGNORECASE),
}


def give_over(
    session: Session,
    close: Callable[[], BaseException | None],
    take_over: Callable[[Callable[..., Any]], bool] | None,
) -> None:
    """Give ordinary work a shadow connection it found, as production's, or else have it lost.

    Parameters
    ----------
    session : Session
        Of the connection.
    close, take_over : callable
        As `perflab.shadow.sql.session.admit` is given them.

    Raises
    ------
    BaseException
        What ``close`` returned. What the driver raised: there was no connecting to production.
    """
    with session.lock:
        if not session.shadow:  # another thread was here first
            return
        if session.instead is not None and take_over is not None and take_over(session.instead):
            process.ledger.step_aside(TAKEN_OVER)
            return
        lost = close()
    if lost is not None:
        process.ledger.step_aside("sql: ordinary work found a shadow connection; it was closed")
        process.ledger.refuse(LOST_MARK, KEPT, session.trace_id)
        raise lost


def leaves_state(kind: str, text: str) -> bool:
    """Tell whether a session may be another after a statement; in doubt it is.

    Parameters
    ----------
    kind : str
        Of the store.
    text : str
        The statement, or several.

    Examples
    --------
    >>> leaves_state("postgresql", "UPDATE stock SET amount = 1")
    False
    >>> leaves_state("postgresql", "SET search_path = shop")
    True
    """
    if len(text) > _LONGEST:
        return True
    bare = without_values(text) if kind == "mariadb" else without_words(text)
    return any(_lasts(kind, part.strip().lstrip("( \n\t")) for part in bare.split(";"))


def _lasts(kind: str, statement: str) -> bool:
    if not statement:
        return False
    first = re.split(r"[\s(]", statement, maxsplit=1)[0].upper()
    passing = _FOR_ONE_TRANSACTION.get(kind)
    if first not in _LEAVE_NOTHING and (passing is None or passing.match(statement) is None):
        return True
    if kind == "mariadb" and _MARIADB_LASTS.search(statement):
        return True
    return _LASTS.search(statement) is not None
