"""Make a MariaDB shadow: a database with production's schema, and a login that can enter no other.

The schema is read from production's catalogue, without locks and without a client program, while production
is in use. The login has rights on its database only; what the server gives to everybody (anonymous rights,
``GRANT ... TO PUBLIC``) is not taken away but found out: at the end the login tries every database and must
be refused. Until then it is locked.

What is made carries a mark: a table ``_perflab`` in the shadow. Only what carries it is changed or dropped,
and a login only if it has no right beyond its shadow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perflab.errors import ShadowError
from perflab.shadow.prepare.mariadb_rows import copy_rows, move_counters
from perflab.shadow.prepare.mariadb_schema import copy_schema, named
from perflab.shadow.refusal import try_mariadb
from perflab.shadow.stores import Place, place

if TYPE_CHECKING:
    import pymysql

COUNTER_OFFSET = 1_000_000_000
MARK = "made by perflab: shadow of "
MARKER = "_perflab"
_EVERYBODY_S = ("information_schema",)
_MAY_NOT = (1044, 1045, 1142, 1227, 1370, 1410, 1419)


@dataclass(frozen=True, slots=True)
class PreparedMariadb:
    """A MariaDB shadow that was proven to be cut off.

    Parameters
    ----------
    shadow, user : str
        The database and its login.
    created : bool
        Whether the database was made just now; else it kept its tables and rows.
    refused : dict of str to str
        Database -> what the server said when the login tried to enter.
    stripped : tuple of str
        What was left out of the copy, and why.
    shared : tuple of str
        What all databases of the server share and a login cannot be kept from: functions of libraries, and
        servers known by name.
    counters : int
        How many AUTO_INCREMENT columns and sequences were set ahead of production's.
    rows : dict of str to int
        Table -> rows copied.
    """

    shadow: str
    user: str
    created: bool
    refused: dict[str, str]
    stripped: tuple[str, ...]
    shared: tuple[str, ...]
    counters: int
    rows: dict[str, int]


def prepare_mariadb(
    admin_url: str,
    production: str,
    shadow: str,
    user: str,
    password: str,
    connection_limit: int = 50,
    *,
    host: str = "%",
    rows: int = 0,
    masks: Mapping[str, str] | None = None,
    shadow_admin_url: str = "",
) -> PreparedMariadb:
    """Make, or bring up to date, a shadow database and the login that is confined to it.

    Repeatable: a shadow database that is there keeps its tables and rows; login, rights and refusals are made
    again. To copy anew, drop first.

    Parameters
    ----------
    admin_url : str
        ``mariadb://user:password@host:3306/``: a login with all rights on production's server.
    production, shadow : str
        Names of the database and of its copy.
    user, password : str
        The shadow login.
    connection_limit : int
        Most sessions of the shadow login, so that twin pools cannot use up ``max_connections``.
    host : str
        Where the shadow login comes from, as MariaDB writes it.
    rows : int
        How many rows of each table to copy; of rows that refer to others, those whose others were copied.
    masks : mapping of str to str, optional
        ``table.column`` -> ``null``, ``hash`` or ``fixed:VALUE``: what is copied instead of a value.
    shadow_admin_url : str
        The same of the shadow's own server, where it has one.

    Returns
    -------
    PreparedMariadb

    Raises
    ------
    ShadowError
        If a database or user of that name exists and was not made here, the login has rights beyond its
        shadow, a mask names nothing, or some database let the login in (it is then locked).
    """
    import pymysql

    target = shadow_admin_url or admin_url
    if shadow == production and target == admin_url:
        raise ShadowError(f"the shadow of database {production!r} needs a name of its own")
    try:
        with closing(_admin(admin_url)) as reader, closing(_admin(target)) as writer:
            _require_production(reader, production)
            there = _require_ours(writer, shadow, user)
            created = not (there and _is_complete(writer, shadow))
            if created:
                _run(
                    writer, f"DROP DATABASE IF EXISTS {named(shadow)}"
                )  # half made, by an attempt that failed
                _make_database(reader, writer, production, shadow, (user, host))
            host = _make_user(writer, shadow, user, password, connection_limit)
            stripped: list[str] = []
            copied: dict[str, int] = {}
            counters = 0
            if created:
                one_server = place(target).same_server(place(admin_url))
                definer = f"{named(user)}@{named(host)}"
                sides = (reader, writer, production, shadow)
                steps = copy_schema(*sides, definer, one_server=one_server)
                stripped = next(steps)  # tables stand; triggers do not yet
                copied = copy_rows(*sides, rows, masks or {})
                counters = move_counters(*sides, COUNTER_OFFSET)
                stripped += next(steps)
                _run(writer, f"UPDATE {named(shadow)}.{MARKER} SET complete = true")
            refused = _prove(writer, target, shadow, (user, host), password)
            refused |= _prove_apart(admin_url, target, production, user, password)
            shared = _shared(writer)
    except pymysql.MySQLError as error:
        raise _plain(error, f"the shadow of database {production!r} cannot be made") from error
    return PreparedMariadb(shadow, user, created, refused, tuple(stripped), shared, counters, copied)


def drop_mariadb(admin_url: str, shadow: str, user: str) -> tuple[str, ...]:
    """Drop a shadow database and its login.

    Parameters
    ----------
    admin_url : str
        A login with all rights on the shadow's server.
    shadow, user : str
        What `prepare_mariadb` was given. What is not there is passed over.

    Returns
    -------
    tuple of str
        What was dropped.

    Raises
    ------
    ShadowError
        If either was not made by `prepare_mariadb`: nothing is dropped then.
    """
    import pymysql

    done: list[str] = []
    try:
        with closing(_admin(admin_url)) as session:
            there = _require_ours(session, shadow, user)
            for host in _hosts(session, user):
                _run(session, f"ALTER USER {_account(session, user, host)} ACCOUNT LOCK")
                _run(session, f"KILL CONNECTION USER {_account(session, user, host)}")
                _run(session, f"DROP USER {_account(session, user, host)}")
                done.append(f"user {user}@{host}")
            if there:
                _run(session, f"DROP DATABASE {named(shadow)}")
                done.insert(0, f"database {shadow}")
    except pymysql.MySQLError as error:
        raise _plain(error, f"shadow database {shadow!r} cannot be dropped") from error
    return tuple(done)


def _require_production(session: pymysql.Connection[Any], production: str) -> None:
    """Refuse to copy what is not there, or is a shadow itself."""
    if not _exists(session, production):
        raise ShadowError(f"there is no database {production!r} to make a shadow of")
    if _marker(session, production) is not None:
        raise ShadowError(f"database {production!r} is a shadow itself")


def _require_ours(session: pymysql.Connection[Any], shadow: str, user: str) -> bool:
    """Refuse to touch a database or user that was not made here; return whether the database is there."""
    there = _exists(session, shadow)
    marker = _marker(session, shadow) if there else None
    if there and marker is None:
        raise ShadowError(
            f"a database {shadow!r} exists and was not made by perflab; choose another name for the shadow"
        )
    hosts = _hosts(session, user)
    if marker is not None and marker[0] != user:
        raise ShadowError(f"the login of shadow database {shadow!r} is {marker[0]!r}, not {user!r}")
    if hosts and (marker is None or hosts != [marker[1]]):
        raise ShadowError(
            f"a user {user!r} exists and was not made by perflab; choose another name for the shadow login"
        )
    for host in hosts:
        granted = _run(session, f"SHOW GRANTS FOR {_account(session, user, host)}")
        beyond = [str(line) for (line,) in granted if not _is_own(str(line), shadow)]
        if beyond:
            told = re.sub(r" IDENTIFIED .*", "", "; ".join(beyond))
            raise ShadowError(
                f"the shadow login {user!r} has rights beyond {shadow!r} ({told}); revoke them, or choose"
                " another name for the shadow login"
            )
    return there


def _is_own(grant: str, shadow: str) -> bool:
    return grant.startswith(("GRANT USAGE ON *.*", f"GRANT ALL PRIVILEGES ON {_escaped(shadow)}.* TO "))


def _make_database(
    reader: pymysql.Connection[Any],
    writer: pymysql.Connection[Any],
    production: str,
    shadow: str,
    account: tuple[str, str],
) -> None:
    """Create the database with production's character set, and the marker in it."""
    ((charset, collation),) = _run(
        reader,
        "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata"
        " WHERE schema_name = %s",
        production,
    )
    _run(writer, f"CREATE DATABASE {named(shadow)} CHARACTER SET {charset} COLLATE {collation}")
    _run(
        writer,
        f"CREATE TABLE {named(shadow)}.{MARKER} (user varchar(128), host varchar(255), complete bool)"
        " COMMENT %s",
        MARK + production,
    )
    _run(writer, f"INSERT INTO {named(shadow)}.{MARKER} VALUES (%s, %s, false)", *account)


def _make_user(
    session: pymysql.Connection[Any], shadow: str, user: str, password: str, connection_limit: int
) -> str:
    """Create or reset the login, locked for the time being; return where it comes from."""
    marker = _marker(session, shadow)
    host = marker[1] if marker else "%"
    account = _account(session, user, host)
    limit = f"WITH MAX_USER_CONNECTIONS {int(connection_limit)}"
    _run(session, f"CREATE USER IF NOT EXISTS {account} ACCOUNT LOCK")
    secret = session.escape(password)
    _run(session, f"ALTER USER {account} IDENTIFIED BY {secret} {limit} ACCOUNT LOCK")
    _run(session, f"GRANT ALL PRIVILEGES ON {_escaped(shadow)}.* TO {account}")
    return host


def _prove(
    session: pymysql.Connection[Any], url: str, shadow: str, account: tuple[str, str], password: str
) -> dict[str, str]:
    """Unlock the login and let it try every database; locked again if any but its own lets it in."""
    user = account[0]
    name = _account(session, *account)
    _run(session, f"ALTER USER {name} ACCOUNT UNLOCK")
    refused: dict[str, str] = {}
    trouble: list[str] = []
    for (database,) in _run(session, "SHOW DATABASES"):
        if database in _EVERYBODY_S:
            continue
        answer = try_mariadb(_url(place(url), str(database), user, password))
        if database == shadow and answer.how != "let in":
            trouble.append(f"its own database {shadow} refused it: {answer.how or answer.unclear}")
        elif database != shadow and not answer.kept_out:
            everybody = _everybody_s(session, str(database))
            trouble.append(f"{database}: {answer.unclear or answer.how}{everybody}")
        elif database != shadow:
            refused[str(database)] = answer.how
    if trouble:
        _run(session, f"ALTER USER {name} ACCOUNT LOCK")
        raise ShadowError(
            f"the shadow login {user!r} is not confined to {shadow!r} and was locked: {'; '.join(trouble)}"
        )
    return refused


def _prove_apart(admin_url: str, target: str, production: str, user: str, password: str) -> dict[str, str]:
    """Let the login of a shadow on a server of its own try production, too."""
    if place(admin_url).same_server(place(target)):
        return {}
    answer = try_mariadb(_url(place(admin_url), production, user, password))
    if not answer.kept_out:
        raise ShadowError(
            f"the shadow login {user!r} is not kept out of production: {answer.unclear or answer.how}"
        )
    return {production: answer.how}


def _everybody_s(session: pymysql.Connection[Any], database: str) -> str:
    """Say whose rights let the login in, where it was everybody's."""
    rows = _run(session, "SELECT user FROM mysql.db WHERE %s LIKE db AND user IN ('', 'PUBLIC')", database)
    found = {"anonymous users" if not user else str(user) for (user,) in rows}
    return f" (by a right that {' and '.join(sorted(found))} have in mysql.db)" if found else ""


def _shared(session: pymysql.Connection[Any]) -> tuple[str, ...]:
    functions = _run(session, "SELECT name FROM mysql.func ORDER BY 1")
    servers = _run(session, "SELECT Server_name FROM mysql.servers ORDER BY 1")
    return tuple(
        [f"function {name} of a library" for (name,) in functions] + [f"server {name}" for (name,) in servers]
    )


def _exists(session: pymysql.Connection[Any], database: str) -> bool:
    query = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
    return bool(_run(session, query, database))


def _marker(session: pymysql.Connection[Any], database: str) -> tuple[str, str] | None:
    """Return the login that a database's mark names; None without a mark."""
    rows = _run(
        session,
        "SELECT table_comment FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
        database,
        MARKER,
    )
    if not rows or not str(rows[0][0]).startswith(MARK):
        return None
    logins = _run(session, f"SELECT user, host FROM {named(database)}.{MARKER}")
    return (str(logins[0][0]), str(logins[0][1])) if len(logins) == 1 else ("", "")


def _is_complete(session: pymysql.Connection[Any], shadow: str) -> bool:
    return _run(session, f"SELECT complete FROM {named(shadow)}.{MARKER}") == [(1,)]


def _hosts(session: pymysql.Connection[Any], user: str) -> list[str]:
    return [str(host) for (host,) in _run(session, "SELECT host FROM mysql.user WHERE user = %s", user)]


def _account(session: pymysql.Connection[Any], user: str, host: str) -> str:
    return f"{session.escape(user)}@{session.escape(host)}"


def _escaped(database: str) -> str:
    """Write a database for GRANT, where ``_`` and ``%`` would mean any character."""
    return re.sub(r"([_%])", r"\\\1", named(database))


def _url(there: Place, database: str, user: str, password: str) -> str:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    if there.host.startswith("/"):
        return f"mariadb://{login}@/{quote(database, safe='')}?unix_socket={quote(there.host, safe='')}"
    return f"mariadb://{login}@{there.host}:{there.port}/{quote(database, safe='')}"


def _run(session: pymysql.Connection[Any], statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with session.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _admin(url: str) -> pymysql.Connection[Any]:
    """Open an administrator's session, which waits for nobody long."""
    import pymysql

    there = place(url)
    path = there.host if there.host.startswith("/") else None
    return pymysql.connect(
        host=None if path else there.host,
        port=there.port,
        unix_socket=path,
        user=there.user,
        password=there.password.encode(),
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=5,
        program_name="perflab prepare",
        init_command="SET SESSION lock_wait_timeout = 20, innodb_lock_wait_timeout = 20,"
        " sql_quote_show_create = 1",
    )


def _plain(error: pymysql.MySQLError, what: str) -> ShadowError:
    code, said = (error.args[0], error.args[-1]) if error.args else (0, error)
    if code in _MAY_NOT:
        return ShadowError(f"the admin login may not prepare a shadow: {said}; use one with all rights")
    return ShadowError(f"{what}: {said}")
