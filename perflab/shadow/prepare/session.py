"""A superuser's session, and what is written on a shadow database so that it is known again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .databaseaccess import MARK

if TYPE_CHECKING:
    import psycopg

BUILDING = "building"
"""The state of a shadow that was begun and not finished: it is built anew."""


def open_session(dsn: str, database: str = "") -> psycopg.Connection[Any]:
    """Open a session in autocommit; on another database of the server when one is named."""
    import psycopg

    where = {"dbname": database} if database else {}
    return psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=5,
        application_name="perflab prepare",
        **where,  # type: ignore[arg-type]  # mypy takes the words for psycopg's own parameters
    )


def said(error: BaseException) -> str:
    """Return the first line of what a server said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def database_comment(session: psycopg.Connection[Any], database: str) -> str | None:
    """Return a database's comment, "" without one, None when there is no such database."""
    row = session.execute(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = %s",
        (database,),
    ).fetchone()
    return None if row is None else str(row[0])


def read_notes(session: psycopg.Connection[Any], database: str) -> dict[str, Any] | None:
    """Return what was noted on a shadow database; None when it is not there or not ours."""
    comment = database_comment(session, database)
    if comment is None or not comment.startswith(MARK):
        return None
    text = comment.removeprefix(MARK).strip()
    try:
        notes = json.loads(text)
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}


def write_notes(session: psycopg.Connection[Any], database: str, notes: dict[str, Any]) -> None:
    """Note on a shadow database what it is.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's or its owner's.
    database : str
        The shadow.
    notes : dict
        ``of`` (production's name), ``how`` it was made, ``schema`` (production's fingerprint then),
        ``rows`` copied per table, ``stripped``, ``at`` (when, UTC).
    """
    from psycopg import sql

    text = f"{MARK} {json.dumps(notes, ensure_ascii=False)}"
    session.execute(
        sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(text))
    )


def server_identity(session: psycopg.Connection[Any]) -> str:
    """Return what tells two servers apart whatever their addresses; a replica has its primary's."""
    row = session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    return str(row[0]) if row else ""
