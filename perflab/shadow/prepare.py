"""Make shadows: a database and a Redis user that marked work may use, and that cannot reach production.

PostgreSQL: a copy of the production database, and a login role that owns everything in the copy and may
enter no other database. A fresh role enters every database through PUBLIC, so CONNECT and TEMPORARY are
taken from PUBLIC, after every login role there is was granted what it had through PUBLIC: nobody but the
shadow role loses anything. Roles made *later* need an explicit GRANT CONNECT. At the end the login
tries every database and must be refused.

Redis: see `perflab.shadow.redisaccess`.

What is made carries a mark (a comment), and only what carries it is ever changed or dropped. Two things
behave otherwise than in production: the shadow role owns the tables, so that row-level security does not
bind it unless forced; and a ``"$user"`` in ``search_path`` means the shadow role.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError

from .databaseaccess import (
    MARK,
    Closed,
    close_databases,
    marked_roles,
    read_mark,
    reopen_databases,
    write_mark,
)
from .redisaccess import PreparedRedis, drop_redis, prepare_redis
from .refusal import try_postgresql
from .shadowdatabase import copy_settings, offset_sequences, own_everything, strip

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "Prepared",
    "PreparedRedis",
    "drop_postgresql",
    "drop_redis",
    "prepare_postgresql",
    "prepare_redis",
]

SEQUENCE_OFFSET = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A PostgreSQL shadow that was proven to be cut off.

    Parameters
    ----------
    shadow, role : str
        The database and its login role.
    created : bool
        Whether the database was copied (or taken over from a dump) just now; else it kept its rows.
    refused : dict of str to str
        Database -> what the server said when the role tried to enter.
    closed : tuple of str
        Databases PUBLIC may not enter any more.
    stripped : tuple of str
        What was removed from the copy because it reaches outside.
    sequences : int
        How many sequences were set ahead of production's.
    """

    shadow: str
    role: str
    created: bool
    refused: dict[str, str]
    closed: tuple[str, ...]
    stripped: tuple[str, ...]
    sequences: int


def prepare_postgresql(
    admin_dsn: str,
    production: str,
    shadow: str,
    role: str,
    password: str,
    connection_limit: int = 50,
    *,
    app_roles: Sequence[str] = (),
) -> Prepared:
    """Make, or bring up to date, a shadow database and the login that is confined to it.

    Repeatable: a shadow database that is there keeps its rows; login, ownership and refusals are made
    again. To copy anew, drop first.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on production's server, on any database.
    production, shadow : str
        Names of the database and of its copy.
    role, password : str
        The shadow login.
    connection_limit : int
        Most sessions of the shadow login, so that twin pools cannot use up ``max_connections``.
    app_roles : sequence of str
        Further roles (groups without login) that keep CONNECT on production.

    Returns
    -------
    Prepared

    Raises
    ------
    ShadowError
        If a database or role of that name exists and was not made here, production is in use while it
        is to be copied, or some database let the shadow login in (it is then switched off).
    """
    import psycopg
    from psycopg import sql

    if shadow == production:
        raise ShadowError(f"the shadow of database {production!r} needs a name of its own")
    try:
        with closing(_admin(admin_dsn, "postgres")) as session:
            _require_ours(session, shadow, role)
            record = _make_role(session, role, shadow, password, connection_limit)
            created = _copy_database(session, production, shadow, role)
            record = close_databases(session, shadow, role, record, {production: tuple(app_roles)})
            with closing(_admin(admin_dsn, shadow)) as inside:
                stripped = strip(inside)
                own_everything(inside, role)
                sequences = offset_sequences(inside, SEQUENCE_OFFSET) if created else 0
            copy_settings(session, production, shadow)
            session.execute(
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(
                    sql.Identifier(shadow), sql.Literal(f"{MARK} of {json.dumps(production)}")
                )
            )
            refused = _prove(session, admin_dsn, shadow, role, password)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ShadowError(
            f"the admin login may not prepare a shadow: {_said(error)}; use a superuser"
        ) from error
    except psycopg.Error as error:
        raise ShadowError(f"the shadow of database {production!r} cannot be made: {_said(error)}") from error
    return Prepared(shadow, role, created, refused, tuple(sorted(record)), tuple(stripped), sequences)


def drop_postgresql(admin_dsn: str, shadow: str, role: str) -> tuple[str, ...]:
    """Drop a shadow database and its login, and give PUBLIC back what was taken from it.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on the server.
    shadow, role : str
        What `prepare_postgresql` was given. What is not there is passed over.

    Returns
    -------
    tuple of str
        What was dropped and reopened. While another shadow role exists, databases stay closed; the
        last one to go reopens them.

    Raises
    ------
    ShadowError
        If either was not made by `prepare_postgresql`: nothing is dropped then.
    """
    import psycopg
    from psycopg import sql

    done: list[str] = []
    try:
        with closing(_admin(admin_dsn, "postgres")) as session:
            _require_ours(session, shadow, role)
            if _database_comment(session, shadow) is not None:
                session.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(shadow))
                )
                done.append(f"database {shadow}")
            mark = read_mark(session, role)
            if mark is not None:
                done += reopen_databases(session, role, mark)
                session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
                done.append(f"role {role}")
    except psycopg.Error as error:
        raise ShadowError(f"shadow database {shadow!r} cannot be dropped: {_said(error)}") from error
    return tuple(done)


def _require_ours(session: psycopg.Connection[Any], shadow: str, role: str) -> None:
    """Refuse to touch a database or role that does not carry our mark."""
    comment = _database_comment(session, shadow)
    owner = session.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (shadow,)
    ).fetchone()
    ours = marked_roles(session)
    if comment is not None and not comment.startswith(MARK) and (owner is None or owner[0] not in ours):
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


def _make_role(
    session: psycopg.Connection[Any], role: str, shadow: str, password: str, connection_limit: int
) -> Closed:
    """Create or reset the role, for the time being without login; return what was closed for it earlier."""
    from psycopg import sql

    mark = read_mark(session, role)
    name = sql.Identifier(role)
    verifier = session.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    with session.transaction():
        if mark is None:
            session.execute(sql.SQL("CREATE ROLE {}").format(name))
        session.execute(
            sql.SQL(
                "ALTER ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                " CONNECTION LIMIT {} PASSWORD {}"
            ).format(name, sql.Literal(connection_limit), sql.Literal(verifier.decode()))
        )
        groups = session.execute(
            "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
            " JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s",
            (role,),
        ).fetchall()
        for (group,) in groups:
            session.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), name))
        closed: Closed = {} if mark is None else mark["closed"]
        write_mark(session, role, shadow, closed)
    return closed


def _copy_database(session: psycopg.Connection[Any], production: str, shadow: str, role: str) -> bool:
    """Copy production unless the shadow is there; return whether its rows are new to us."""
    import psycopg
    from psycopg import sql

    comment = _database_comment(session, shadow)
    if comment is None:
        try:
            session.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    sql.Identifier(shadow), sql.Identifier(production), sql.Identifier(role)
                )
            )
        except psycopg.errors.ObjectInUse as error:
            raise ShadowError(
                f"database {production!r} is in use, and PostgreSQL copies a database only while nobody is"
                " connected to it; prepare the shadow while the services are stopped, or restore a dump into"
                f" a database {shadow!r} owned by {role!r} and prepare again"
            ) from error
    return not (comment or "").startswith(MARK)


def _prove(
    session: psycopg.Connection[Any], admin_dsn: str, shadow: str, role: str, password: str
) -> dict[str, str]:
    """Switch the login on and let it try every database; off again if any but its own lets it in."""
    from psycopg import conninfo, sql

    name = sql.Identifier(role)
    session.execute(sql.SQL("ALTER ROLE {} LOGIN").format(name))
    rows = session.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").fetchall()
    refused: dict[str, str] = {}
    trouble: list[str] = []
    for (database,) in rows:
        login = conninfo.make_conninfo(admin_dsn, dbname=database, user=role, password=password)
        with closing(_admin(admin_dsn, database)) as witness:
            answer = try_postgresql(login, witness)
        if database == shadow and (answer.refused or answer.unclear):
            trouble.append(f"its own database {shadow} refused it: {answer.how or answer.unclear}")
        elif database != shadow and not answer.kept_out:
            trouble.append(f"{database}: {answer.unclear or 'let it in'}")
        elif database != shadow:
            refused[database] = answer.how
    if trouble:
        session.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
        raise ShadowError(
            f"the shadow login {role!r} is not confined to {shadow!r} and was switched off:"
            f" {'; '.join(trouble)}"
        )
    return refused


def _database_comment(session: psycopg.Connection[Any], database: str) -> str | None:
    """Return a database's comment, "" without one, None when there is no such database."""
    row = session.execute(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = %s",
        (database,),
    ).fetchone()
    return None if row is None else str(row[0])


def _admin(admin_dsn: str, database: str) -> psycopg.Connection[Any]:
    import psycopg

    return psycopg.connect(
        admin_dsn, dbname=database, autocommit=True, connect_timeout=5, application_name="perflab prepare"
    )


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
