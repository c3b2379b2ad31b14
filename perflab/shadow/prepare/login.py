"""The shadow login: a role that may do nothing but be itself, and that cannot use a server up.

Twin pools double the sessions of every attached process. So the role's CONNECTION LIMIT is at most a
quarter of what ``max_connections`` leaves to ordinary logins, unless another is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perflab.errors import ConfigError, ShadowError

from .databaseaccess import Mark, marked_roles, read_mark, write_mark
from .session import database_comment

if TYPE_CHECKING:
    import psycopg

SETTINGS = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
"""What may be set for the role, so that shadow work cannot hold resources forever."""

_SHARE = 4


def allowed_connections(session: psycopg.Connection[Any]) -> int:
    """Return a quarter of the connections that are not reserved, at least one."""
    row = session.execute(
        "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END)::int"
        " FROM pg_settings"
        " WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
    ).fetchone()
    return max(1, (int(row[0]) if row and row[0] else 0) // _SHARE)


def check_login(role: str, password: str, settings: Mapping[str, str]) -> None:
    """Refuse a login that cannot be one.

    Parameters
    ----------
    role, password : str
        The shadow URL's.
    settings : mapping
        Settings of the role.

    Raises
    ------
    ConfigError
        If either is empty, or a setting is not one of `SETTINGS`.
    """
    if not role:
        raise ConfigError(
            "the shadow URL names no login; write it as postgresql://user:password@host:port/db"
        )
    if not password:
        raise ConfigError(
            f"the shadow login {role!r} has no password: a server that trusts it would let anybody in as it;"
            " write one into the shadow URL"
        )
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise ConfigError(f"no setting {unknown[0]!r} for the shadow login; there are: {', '.join(SETTINGS)}")


def require_ours(session: psycopg.Connection[Any], shadow: str, role: str) -> None:
    """Refuse to touch a database or role that does not carry our mark.

    Parameters
    ----------
    session : psycopg.Connection
        On the shadow's server.
    shadow, role : str
        Their names; neither need be there.

    Raises
    ------
    ShadowError
        If one is there and is somebody else's.
    """
    comment = database_comment(session, shadow)
    owner = session.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (shadow,)
    ).fetchone()
    ours = marked_roles(session)
    marked = comment is not None and comment.startswith("perflab shadow")
    if comment is not None and not marked and (owner is None or owner[0] not in ours):
        raise ShadowError(
            f"a database {shadow!r} exists and was not made by perflab; choose another name for the shadow"
        )
    exists = session.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None
    if exists and role not in ours:
        raise ShadowError(
            f"a role {role!r} exists and was not made by perflab; choose another name for the shadow login"
        )
    if exists and ours[role] != shadow:
        raise ShadowError(
            f"role {role!r} is the login of shadow database {ours[role]!r}; each shadow has its own login"
        )


def make_role(
    session: psycopg.Connection[Any],
    role: str,
    shadow: str,
    password: str,
    limit: int,
    settings: Mapping[str, str],
) -> Mark:
    """Create or reset the role, for the time being without login.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's.
    role, shadow, password : str
        The login, the database it belongs to, and its password, which is sent as a verifier.
    limit : int
        Most sessions of it.
    settings : mapping
        Settings of the role; those of `SETTINGS` that are not in it are reset.

    Returns
    -------
    Mark
        What the role's comment says, for example what was closed for it earlier.
    """
    from psycopg import sql

    before = read_mark(session, role)
    name = sql.Identifier(role)
    verifier = session.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    with session.transaction():
        if before is None:
            session.execute(sql.SQL("CREATE ROLE {}").format(name))
        session.execute(
            sql.SQL(
                "ALTER ROLE {} NOLOGIN NOSUPERUSER NOINHERIT NOCREATEDB NOCREATEROLE NOREPLICATION"
                " NOBYPASSRLS CONNECTION LIMIT {} PASSWORD {}"
            ).format(name, sql.Literal(limit), sql.Literal(verifier.decode()))
        )
        _leave_groups(session, role)
        for setting in SETTINGS:
            change = (
                sql.SQL("ALTER ROLE {} SET {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(settings[setting])
                )
                if setting in settings
                else sql.SQL("ALTER ROLE {} RESET {}").format(name, sql.Identifier(setting))
            )
            session.execute(change)
        mark: Mark = {"shadow": shadow, "closed": {}} if before is None else before
        write_mark(session, role, mark)
    return mark


def take_settings(
    session: psycopg.Connection[Any],
    source: psycopg.Connection[Any],
    wanted: tuple[str, str],
    ours: tuple[str, str],
) -> list[str]:
    """Give the shadow login, in its database, what ``ALTER ROLE ... SET`` says of an application's login.

    A ``search_path`` that is set for the role is the usual case: without it statements find no tables.

    Parameters
    ----------
    session, source : psycopg.Connection
        A superuser's on the shadow's server, and one on production's.
    wanted : (str, str)
        The application's login and production's database; with no login what was given before is taken back.
    ours : (str, str)
        The shadow's.

    Returns
    -------
    list of str
        Settings this server does not take.

    Raises
    ------
    ConfigError
        If there is no login of that name.
    """
    import psycopg
    from psycopg import sql

    role, database = map(sql.Identifier, ours)
    session.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, database))
    if not wanted[0]:
        return []
    if source.execute("SELECT FROM pg_roles WHERE rolname = %s", wanted[:1]).fetchone() is None:
        raise ConfigError(f"production's server has no login {wanted[0]!r} to take settings from")
    rows = source.execute(
        "SELECT unnest(s.setconfig) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole"
        " LEFT JOIN pg_database d ON d.oid = s.setdatabase"
        " WHERE r.rolname = %s AND (s.setdatabase = 0 OR d.datname = %s) ORDER BY s.setdatabase",
        wanted,
    ).fetchall()
    refused: list[str] = []
    for (setting,) in rows:
        name, _, value = str(setting).partition("=")
        dotted = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
        try:
            with session.transaction():
                session.execute("SELECT set_config(%s, %s, true)", (name, value))
                session.execute(
                    sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} FROM CURRENT").format(role, database, dotted)
                )
        except psycopg.Error:
            refused.append(f"setting {name} = {value}")
    return refused


def groups_of(session: psycopg.Connection[Any], role: str) -> list[str]:
    """Return the roles a role is a member of."""
    rows = session.execute(
        "SELECT DISTINCT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s ORDER BY 1",
        (role,),
    ).fetchall()
    return [str(name) for (name,) in rows]


def _leave_groups(session: psycopg.Connection[Any], role: str) -> None:
    """Take every membership from the role, whoever granted it."""
    from psycopg import sql

    rows = session.execute(
        "SELECT g.rolname, by.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " JOIN pg_roles r ON r.oid = m.member LEFT JOIN pg_roles by ON by.oid = m.grantor"
        " WHERE r.rolname = %s",
        (role,),
    ).fetchall()
    for group, grantor in rows:
        statement = sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), sql.Identifier(role))
        if grantor is not None and session.info.server_version >= 160_000:
            statement += sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor))
        session.execute(statement)
