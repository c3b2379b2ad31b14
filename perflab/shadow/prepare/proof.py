"""Prove a shadow login by knocking: its own database lets it in, every other one refuses it.

That it "has no rights there" is never taken from a catalogue. A login that is let in is switched off.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from perflab.errors import ShadowError
from perflab.shadow.refusal import Refusal, try_postgresql

from .session import open_session

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True)
class Knocks:
    """What came of a login's attempts.

    ``refused`` maps a place to the server's words, ``trouble`` says what is not as it must be.
    """

    refused: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


def knock_here(
    session: psycopg.Connection[Any], admin_dsn: str, shadow: str, role: str, password: str
) -> Knocks:
    """Try every database of the shadow's server; witnesses of the admin's tell a refusal from a fault.

    Parameters
    ----------
    session : psycopg.Connection
        The admin's.
    admin_dsn : str
        Its login.
    shadow, role, password : str
        The only database that may let the login in, and the login.

    Returns
    -------
    Knocks
    """
    knocks = Knocks()
    for database in databases(session):
        with ExitStack() as stack:
            witness = stack.enter_context(closing(open_session(admin_dsn, database)))
            answer = try_postgresql(login_url(admin_dsn, database, role, password), witness)
        if database != shadow:
            _judge(knocks, database, answer)
        elif answer.refused or answer.unclear:
            knocks.trouble.append(f"its own database {shadow} refused it: {answer.how or answer.unclear}")
    return knocks


def knock_own(admin_dsn: str, shadow: str, role: str, password: str) -> Knocks:
    """Try only the shadow, which must let the login in: what a server apart from production's is asked.

    Parameters
    ----------
    admin_dsn : str
        An admin's login there.
    shadow, role, password : str
        The database, and the login.

    Returns
    -------
    Knocks
    """
    answer = try_postgresql(login_url(admin_dsn, shadow, role, password))
    trouble = (
        [f"its own database {shadow} refused it: {answer.how or answer.unclear}"]
        if answer.refused or answer.unclear
        else []
    )
    return Knocks({}, trouble)


def knock_there(
    source: psycopg.Connection[Any], production_url: str, production: str, role: str, password: str
) -> Knocks:
    """Try every database of production's server, where the login should not even exist.

    Parameters
    ----------
    source : psycopg.Connection
        A session on production's server or a replica of it, on the production database.
    production_url : str
        Where production is; its login is replaced.
    production : str
        The database.
    role, password : str
        The shadow login.

    Returns
    -------
    Knocks
        The places are ``host:port/database``.
    """
    knocks = Knocks()
    host = urlsplit(production_url).netloc.rpartition("@")[2] or "production"
    exists = source.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None
    for database in dict.fromkeys([production, *databases(source)]):
        witness = source if database == production or not exists else None
        answer = try_postgresql(login_url(production_url, database, role, password), witness)
        _judge(knocks, f"{host}/{database}", answer)
    return knocks


def switch_login(session: psycopg.Connection[Any], role: str, *, on: bool) -> None:
    """Let the role log in, or not.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's.
    role : str
        Whom.
    on : bool
        Whether it may.
    """
    from psycopg import sql

    session.execute(
        sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(role), sql.SQL("LOGIN" if on else "NOLOGIN"))
    )


def require_confined(session: psycopg.Connection[Any], shadow: str, role: str, knocks: Knocks) -> None:
    """Switch a login off that is not confined.

    Parameters
    ----------
    session : psycopg.Connection
        The admin's, on the shadow's server.
    shadow, role : str
        The database and its login.
    knocks : Knocks
        What came of the attempts.

    Raises
    ------
    ShadowError
        If there is any trouble; the login is off then.
    """
    if knocks.trouble:
        switch_login(session, role, on=False)
        raise ShadowError(
            f"the shadow login {role!r} is not confined to {shadow!r} and was switched off:"
            f" {'; '.join(knocks.trouble)}"
        )


def databases(session: psycopg.Connection[Any]) -> list[str]:
    """Return the databases of a server that take connections."""
    rows = session.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").fetchall()
    return [str(name) for (name,) in rows]


def login_url(dsn: str, database: str, role: str, password: str) -> str:
    """Return a place with another database and login, as an URL: witnesses read the user there.

    Parameters
    ----------
    dsn : str
        The place; its own login is dropped.
    database, role, password : str
        What stands there instead.
    """
    from psycopg import conninfo

    place = conninfo.conninfo_to_dict(dsn)
    rest = {
        name: str(value)
        for name, value in place.items()
        if name not in ("user", "password", "dbname", "passfile", "connect_timeout", "application_name")
    }
    login = f"{quote(role, safe='')}:{quote(password, safe='')}"
    return f"postgresql://{login}@/{quote(database, safe='')}?{urlencode(rest, quote_via=quote)}"


def _judge(knocks: Knocks, place: str, answer: Refusal) -> None:
    if answer.kept_out:
        knocks.refused[place] = answer.how
    else:
        knocks.trouble.append(f"{place}: {answer.unclear or 'let it in'}")
