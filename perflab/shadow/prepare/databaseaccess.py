"""Close a server's databases to a shadow role without taking anything from anybody else, and open them again.

What was closed, and for whom it was kept open, is written down in the role's comment: so that it can be
undone exactly, by anybody, later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Required, TypedDict

if TYPE_CHECKING:
    import psycopg

MARK = "perflab shadow"
"""What the comment of everything made here begins with."""

_PRIVILEGES = ("CONNECT", "TEMPORARY")


class Change(TypedDict):
    """What was done to one database: taken from PUBLIC, granted to roles."""

    public: list[str]
    granted: dict[str, list[str]]


class Mark(TypedDict, total=False):
    """A shadow role's comment; ``kept_out`` says by what it is kept out of production."""

    shadow: Required[str]
    closed: Required[dict[str, Change]]
    kept_out: str


Closed = dict[str, Change]


def read_mark(session: psycopg.Connection[Any], role: str) -> Mark | None:
    """Return what a shadow role's comment says; None when there is no such role, or it is not ours."""
    return _marks(session).get(role)


def marked_roles(session: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the shadow roles of the server and the database each belongs to."""
    return {role: mark["shadow"] for role, mark in _marks(session).items()}


def write_mark(session: psycopg.Connection[Any], role: str, mark: Mark) -> None:
    """Write a shadow role's comment.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's.
    role : str
        Who it is about.
    mark : Mark
        The database it belongs to, and what is closed for it.
    """
    from psycopg import sql

    text = f"{MARK} {json.dumps(mark)}"
    session.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role), sql.Literal(text)))


def plan_closing(
    session: psycopg.Connection[Any], shadow: str, role: str, keep: Mapping[str, tuple[str, ...]]
) -> Closed:
    """Tell what `close_databases` would change; databases that are closed already are left out.

    Parameters
    ----------
    session : psycopg.Connection
        Anybody's.
    shadow, role : str
        The shadow database and its owner, which need not be there yet.
    keep : mapping of database to roles
        Roles that get an explicit CONNECT whatever they had.

    Returns
    -------
    dict
    """
    names = session.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").fetchall()
    shadows = set(marked_roles(session)) | {role}
    logins = session.execute(
        "SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper ORDER BY rolname"
    ).fetchall()
    inhabitants = [name for (name,) in logins if name not in shadows]
    planned: Closed = {}
    for (database,) in names:
        change = (
            _plan_one(session, database, [], ())
            if database == shadow
            else _plan_one(session, database, inhabitants, keep.get(database, ()))
        )
        if change["public"] or change["granted"]:
            planned[database] = change
    return planned


def as_statements(session: psycopg.Connection[Any], closed: Closed) -> list[str]:
    """Write out the statements that close databases: explicit grants first, then what PUBLIC loses."""
    from psycopg import sql

    statements: list[str] = []
    for database, change in closed.items():
        where = sql.Identifier(database)
        for name, privileges in change["granted"].items():
            statements.append(
                sql.SQL("GRANT {} ON DATABASE {} TO {}")
                .format(sql.SQL(", ".join(privileges)), where, sql.Identifier(name))
                .as_string(session)
            )
        if change["public"]:
            statements.append(
                sql.SQL("REVOKE {} ON DATABASE {} FROM PUBLIC")
                .format(sql.SQL(", ".join(change["public"])), where)
                .as_string(session)
            )
    return statements


def close_databases(
    session: psycopg.Connection[Any],
    shadow: str,
    role: str,
    closed: Closed,
    keep: Mapping[str, tuple[str, ...]],
) -> Closed:
    """Take CONNECT and TEMPORARY on every database from PUBLIC, in one transaction.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's, in autocommit.
    shadow, role : str
        The shadow database, which PUBLIC may not enter either, and its owner.
    closed : dict
        What was closed for this role before.
    keep : mapping of database to roles
        Roles that get an explicit CONNECT whatever they had.

    Returns
    -------
    dict
        What is closed now; also in the role's comment.
    """
    from psycopg import sql

    closed = dict(closed)
    with session.transaction():
        planned = plan_closing(session, shadow, role, keep)
        for statement in as_statements(session, planned):
            session.execute(sql.SQL(statement))
        for database, change in planned.items():
            if database != shadow:
                _merge(closed.setdefault(database, {"public": [], "granted": {}}), change)
        write_mark(session, role, {"shadow": shadow, "closed": closed, "kept_out": "revoke"})
    return closed


def reopen_databases(
    session: psycopg.Connection[Any], role: str, mark: Mark, *, only_look: bool = False
) -> list[str]:
    """Undo `close_databases`, or leave it to another shadow role that needs it still.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's, in autocommit.
    role : str
        The shadow role that goes.
    mark : Mark
        What its comment says.
    only_look : bool
        Tell what would be opened, and change nothing.

    Returns
    -------
    list of str
        What was opened, in plain words.
    """
    from psycopg import sql

    others = {name: other for name, other in _marks(session).items() if name != role}
    exist = {name for (name,) in session.execute("SELECT datname FROM pg_database").fetchall()}
    roles = {name for (name,) in session.execute("SELECT rolname FROM pg_roles").fetchall()}
    opened = [] if others else [f"PUBLIC may enter {name} again" for name in mark["closed"] if name in exist]
    if only_look:
        return opened
    with session.transaction():
        if others:
            heir, inherited = next(iter(sorted(others.items())))
            for database, change in mark["closed"].items():
                _merge(inherited["closed"].setdefault(database, {"public": [], "granted": {}}), change)
            write_mark(session, heir, inherited)
            return []
        for database, change in mark["closed"].items():
            if database not in exist:
                continue
            name = sql.Identifier(database)
            for privilege in change["public"]:
                session.execute(sql.SQL("GRANT {} ON DATABASE {} TO PUBLIC").format(sql.SQL(privilege), name))
            for grantee, privileges in change["granted"].items():
                for privilege in privileges if grantee in roles else ():
                    session.execute(
                        sql.SQL("REVOKE {} ON DATABASE {} FROM {}").format(
                            sql.SQL(privilege), name, sql.Identifier(grantee)
                        )
                    )
    return opened


def _plan_one(
    session: psycopg.Connection[Any], database: str, inhabitants: Sequence[str], keep: Sequence[str]
) -> Change:
    """Plan to grant ``inhabitants`` what they have through PUBLIC, and to take it from PUBLIC."""
    direct: dict[str, set[str]] = {}
    for grantee, privilege in session.execute(
        "SELECT CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type"
        " FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.datname = %s",
        (database,),
    ):
        direct.setdefault(grantee, set()).add(privilege)
    public = [privilege for privilege in _PRIVILEGES if privilege in direct.get("", set())]
    wanted = {name: list(public) for name in inhabitants}
    for name in keep:
        wanted.setdefault(name, [])
        wanted[name] += [] if "CONNECT" in wanted[name] else ["CONNECT"]
    granted = {
        name: missing
        for name, privileges in wanted.items()
        if (missing := [privilege for privilege in privileges if privilege not in direct.get(name, set())])
    }
    return {"public": public, "granted": granted}


def _merge(into: Change, change: Change) -> None:
    into["public"] = sorted({*into["public"], *change["public"]})
    for name, privileges in change["granted"].items():
        into["granted"][name] = sorted({*into["granted"].get(name, []), *privileges})


def _marks(session: psycopg.Connection[Any]) -> dict[str, Mark]:
    rows = session.execute(
        "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles"
        " WHERE starts_with(shobj_description(oid, 'pg_authid'), %s)",
        (f"{MARK} {{",),
    ).fetchall()
    return {role: json.loads(comment.removeprefix(f"{MARK} ")) for role, comment in rows}
