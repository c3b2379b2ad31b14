"""What a MariaDB or MySQL server must allow so that its changes can be read, asked in plain words."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.mariadb_login import rows, variable

if TYPE_CHECKING:
    import pymysql

HOW_TO_GRANT = (
    "the audit login needs REPLICATION SLAVE, BINLOG MONITOR (on MySQL: REPLICATION CLIENT) and, on"
    " production's"
    " schema, SELECT, SHOW VIEW and TRIGGER"
)
_NO_SUCH_STATEMENT = 1064


def check_server(session: pymysql.Connection[Any], schema: str) -> list[str]:
    """Check the settings that decide what is in the binlog.

    Parameters
    ----------
    session : pymysql.Connection
        The audit's.
    schema : str
        Production's schema.

    Returns
    -------
    list of str
        What is left out of the binlog, in plain words.

    Raises
    ------
    ShadowError
        If rows are not in it at all.
    """
    if variable(session, "log_bin") != "ON":
        raise ShadowError(
            "production's changes cannot be read: log_bin is off (a setting that needs a restart)"
        )
    file_format = variable(session, "binlog_format")
    if file_format == "STATEMENT":
        raise ShadowError(
            "production's changes cannot be read: binlog_format is 'STATEMENT', and must be 'ROW'"
        )
    missing = []
    if file_format == "MIXED":
        missing.append(
            "rows changed by statements that the server logs as such: binlog_format is 'MIXED', and"
            " must be 'ROW'"
        )
    image = variable(session, "binlog_row_image")
    if image not in ("FULL", "FULL_NODUP", ""):
        missing.append(
            f"columns that a change did not touch: binlog_row_image is {image!r}, and must be 'FULL'"
        )
    do, ignore = (set(filter(None, str(text or "").split(","))) for text in _status(session)[2:4])
    if (do and schema not in do) or schema in ignore:
        raise ShadowError(
            f"production's changes cannot be read: {schema!r} is left out of the binlog (binlog_do_db,"
            f" binlog_ignore_db)"
        )
    if do or ignore:
        missing.append("schemas that binlog_do_db or binlog_ignore_db leave out of the binlog")
    return missing


def position(session: pymysql.Connection[Any]) -> tuple[str, int]:
    """Return the end of the log: its file and the offset in it."""
    status = _status(session)
    return str(status[0]), int(status[1])


def file_number(name: str) -> int:
    """Return the number a log file's name ends in: they are counted up.

    Examples
    --------
    >>> file_number("binlog.000009") < file_number("binlog.1000000")
    True
    """
    digits = name.rpartition(".")[2]
    return int(digits) if digits.isdigit() else 0


def free_server_id(session: pymysql.Connection[Any]) -> int:
    """Choose a replica's id at random that neither the server nor a registered replica has.

    A replica with the id of another would have the other's stream cut off. A login that may not list the
    replicas relies on chance: one in two billion for each.
    """
    import pymysql

    taken = {int(variable(session, "server_id") or 0)}
    for question in ("SHOW SLAVE HOSTS", "SHOW REPLICAS"):
        with contextlib.suppress(pymysql.err.OperationalError):  # it lacks the right to see them
            taken |= {int(row[0]) for row in _answer(session, question) or ()}
    while True:
        chosen = 1 << 31 | secrets.randbits(31)
        if chosen not in taken:
            return chosen


def clock_difference_ns(session: pymysql.Connection[Any]) -> int:
    """Return what must be added to the server's clock to get ours; the tightest of five round trips."""
    trips = []
    for _ in range(5):
        before = time.time_ns()
        told = rows(session, "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")[0][0]
        after = time.time_ns()
        trips.append((after - before, (before + after) // 2 - int(told) * 1000))
    length, difference = min(trips)
    # within half a round trip the clocks are the same for all we know
    return 0 if abs(difference) <= length else difference


def _status(session: pymysql.Connection[Any]) -> tuple[Any, ...]:
    for question in ("SHOW MASTER STATUS", "SHOW BINARY LOG STATUS"):
        found = _answer(session, question)
        if found:
            return found[0]
    raise ShadowError("production's changes cannot be read: the server shows no binlog")


def _answer(session: pymysql.Connection[Any], question: str) -> list[tuple[Any, ...]] | None:
    """Ask; None where this server does not know the question."""
    import pymysql

    try:
        return rows(session, question)
    except pymysql.err.ProgrammingError as error:
        if error.args and error.args[0] == _NO_SUCH_STATEMENT:
            return None
        raise
