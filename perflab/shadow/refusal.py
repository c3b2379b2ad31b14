"""Try a shadow login on production and see it refused: the first half of the proof of isolation.

"It has no rights there" is never assumed: a fresh PostgreSQL role enters every database through PUBLIC,
a Redis without users lets everybody write, MariaDB's anonymous rights are everybody's. So the login knocks.
What it tries changes nothing even where it is let in: a session that asks nothing, and the removal of a key
that does not exist.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from perflab.errors import ConfigError
from perflab.shadow.mariadb_login import arguments, said

if TYPE_CHECKING:
    import psycopg

CONNECT_TIMEOUT_S = 5

# What a PostgreSQL server says when it refuses a login for who it is, as opposed to being down or full.
# "pg_hba.conf" stands untranslated in every language.
_REFUSALS = (
    "permission denied for database",
    "password authentication failed",
    "authentication failed",
    "is not permitted to log in",
    "pg_hba.conf",
)
# MariaDB's and MySQL's error numbers for the same, in whatever language the server speaks: no such right in
# the database; wrong or unknown login, without and with a password; host not allowed; account locked; no
# way of logging in
_MARIA_NO_DATABASE = 1044
_MARIA_REFUSALS = (_MARIA_NO_DATABASE, 1045, 1698, 1130, 4151, 3118, 1251)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came of a login's attempts.

    ``tried`` and ``refused`` count attempts; a login is kept out when they are equal and not 0. ``how``
    quotes the server. ``unclear`` says why an attempt could not be judged (server down, too many
    connections): neither refused nor let in.
    """

    tried: int
    refused: int
    how: str
    unclear: str = ""

    @property
    def kept_out(self) -> bool:
        """Whether every attempt was refused, and there was one."""
        return 0 < self.tried == self.refused


def with_login(production: str, shadow: str) -> str:
    """Return production's URL with the shadow URL's login.

    Raises
    ------
    ConfigError
        If the shadow URL has no login of its own.
    """
    place, login = urlsplit(production), urlsplit(shadow)
    if login.username is None and login.password is None:
        raise ConfigError(
            "the shadow URL has no login of its own; write it as scheme://user:password@host:port/..."
        )
    user = quote(unquote(login.username or ""), safe="")
    password = f":{quote(unquote(login.password), safe='')}" if login.password is not None else ""
    host = place.netloc.rpartition("@")[2]
    return urlunsplit((place.scheme, f"{user}{password}@{host}", place.path, place.query, ""))


def try_postgresql(url: str, witness: psycopg.Connection[Any] | None = None) -> Refusal:
    """Try to open a session.

    Parameters
    ----------
    url : str
        Production's place with the shadow's login (`with_login`).
    witness : psycopg.Connection, optional
        A session of another login *on that database*; it tells a refusal from a fault where the server
        does not speak English.

    Returns
    -------
    Refusal
        ``unclear`` is set when the server could not be reached or was too busy to say.
    """
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, application_name="perflab refusal").close()
    except psycopg.Error as error:
        said = _first_line(error)
        if any(words in said for words in _REFUSALS) or _may_not_enter(witness, url):
            return Refusal(1, 1, said)
        return Refusal(1, 0, "", unclear=said)
    return Refusal(1, 0, "let in")


def try_redis(url: str) -> Refusal:
    """Try to remove a key that does not exist and to publish to a channel nobody hears, outside any prefix.

    Parameters
    ----------
    url : str
        Production's place with the shadow's login (`with_login`).

    Returns
    -------
    Refusal
        A login that production does not know is refused, too.
    """
    import redis

    name = f"perflab-refusal-{secrets.token_hex(8)}"
    client = redis.Redis.from_url(
        url, socket_timeout=CONNECT_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S
    )
    tried = refused = 0
    how: list[str] = []
    try:
        for command in (
            ("DEL", name),
            ("PUBLISH", name, ""),
            ("EVAL", "return redis.call('DEL', KEYS[1])", 1, name),
        ):
            tried += 1
            try:
                client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it so
            except (redis.exceptions.NoPermissionError, redis.AuthenticationError) as error:
                refused += 1
                how.append(f"{command[0]}: {_first_line(error)}")
            except redis.ResponseError as error:
                if "NOPERM" not in str(error) and "can't access" not in str(error):
                    return Refusal(tried, refused, "; ".join(how), unclear=_first_line(error))
                refused += 1
                how.append(f"{command[0]}: {_first_line(error)}")
            else:
                how.append(f"{command[0]}: let in")
    except (redis.RedisError, OSError) as error:
        return Refusal(tried, refused, "; ".join(how), unclear=_first_line(error))
    finally:
        client.close()
    return Refusal(tried, refused, "; ".join(how))


def try_mariadb(url: str) -> Refusal:
    """Try to enter a database of MariaDB, at the login and, where the server lets it in, by every role.

    Parameters
    ----------
    url : str
        Production's place with the shadow's login (`with_login`).

    Returns
    -------
    Refusal
        ``unclear`` is set when the server could not be reached or was too busy to say. A login that the
        server knows is let in by the server, which is no harm; it counts whether the database is entered.
    """
    import pymysql

    login = arguments(url)
    database = login.pop("database")
    tried, how = 1, ""
    try:
        pymysql.connect(**login, database=database).close()
        return Refusal(1, 0, "let in")
    except pymysql.MySQLError as error:
        if _maria_code(error) not in _MARIA_REFUSALS:
            return Refusal(1, 0, "", unclear=said(error))
        how = said(error)
        if _maria_code(error) != _MARIA_NO_DATABASE:
            return Refusal(1, 1, how)
    try:
        with pymysql.connect(**login) as session, session.cursor() as cursor:
            cursor.execute("SELECT role_name FROM information_schema.applicable_roles")
            for (role,) in cursor.fetchall():
                tried += 1
                cursor.execute("SET ROLE " + session.escape(role))
                try:
                    session.select_db(database)
                except pymysql.MySQLError as error:
                    if _maria_code(error) not in _MARIA_REFUSALS:
                        raise
                else:
                    return Refusal(tried, tried - 1, f"let in with role {role}")
    except pymysql.MySQLError as error:
        return Refusal(tried, tried - 1, how, unclear=said(error))
    return Refusal(tried, tried, how)


def _may_not_enter(witness: psycopg.Connection[Any] | None, url: str) -> bool:
    """Ask the catalogue whether that role is unknown here or lacks CONNECT."""
    import psycopg

    user = unquote(urlsplit(url).username or "")
    if witness is None or not user:
        return False
    try:
        row = witness.execute(
            "SELECT coalesce((SELECT NOT has_database_privilege(oid, current_database(), 'CONNECT')"
            " FROM pg_roles WHERE rolname = %s), true)",
            (user,),
        ).fetchone()
    except psycopg.Error:
        return False
    return bool(row and row[0])


def _first_line(error: BaseException) -> str:
    """Return what a server said, without the address and the reasons libpq wraps around it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition(" failed: ")[2][:300]


def _maria_code(error: BaseException) -> int:
    return int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
