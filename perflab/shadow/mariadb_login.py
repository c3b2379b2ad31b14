"""Log in to a MariaDB or MySQL server from a store's URL, for the controller's own questions.

Attached services never come here: their drivers are hooked as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from perflab.errors import ShadowError
from perflab.shadow.stores import place

if TYPE_CHECKING:
    import pymysql

CONNECT_TIMEOUT_S = 5


def arguments(url: str) -> dict[str, Any]:
    """Return PyMySQL's arguments for a URL.

    ``mariadb://user:password@host:3306/db``; a socket as ``?unix_socket=``; TLS with ``ssl_ca``, ``ssl_cert``
    and ``ssl_key``.

    Examples
    --------
    >>> found = arguments("mariadb://app:p%40w@10.0.0.5/shop")
    >>> found["host"], found["port"], found["user"], found["password"], found["database"]
    ('10.0.0.5', 3306, 'app', 'p@w', 'shop')
    """
    where = place(url)
    query = dict(parse_qsl(urlsplit(url).query))
    named: dict[str, Any] = {
        "user": where.user,
        "password": where.password.encode().decode("latin1"),  # which PyMySQL makes bytes of again
        "database": where.database or None,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "charset": "utf8mb4",
        **{name: query[name] for name in ("ssl_ca", "ssl_cert", "ssl_key") if name in query},
    }
    if where.host.startswith("/"):
        return {**named, "unix_socket": where.host}
    return {**named, "host": where.host, "port": where.port}


def connect(url: str, *, statement_timeout_s: float = 10.0) -> pymysql.Connection[Any]:
    """Open a session in autocommit whose statements and locks time out.

    Parameters
    ----------
    url : str
        The store's URL with a login.
    statement_timeout_s : float
        Longest statement.

    Raises
    ------
    ShadowError
        If the server cannot be reached or does not let the login in; the message quotes it.
    """
    import pymysql

    try:
        session = pymysql.connect(**arguments(url), autocommit=True, read_timeout=statement_timeout_s + 5)
    except pymysql.MySQLError as error:
        raise ShadowError(f"no session on MariaDB: {said(error)}") from error
    try:
        with session.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 2")
            cursor.execute("SELECT VERSION()")
            version = str((cursor.fetchone() or ("",))[0])
            if "MariaDB" in version:
                cursor.execute("SET SESSION max_statement_time = %s", (statement_timeout_s,))
            else:
                cursor.execute("SET SESSION max_execution_time = %s", (int(statement_timeout_s * 1000),))
    except pymysql.MySQLError as error:
        session.close()
        raise ShadowError(f"the session on MariaDB could not be set up: {said(error)}") from error
    return session


def rows(session: pymysql.Connection[Any], question: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask a question and return its rows."""
    with session.cursor() as cursor:
        cursor.execute(question, values or None)
        return list(cursor.fetchall())


def variable(session: pymysql.Connection[Any], name: str) -> str:
    """Return a server variable in upper case, "" where this server does not know it."""
    found = rows(session, "SHOW GLOBAL VARIABLES LIKE %s", name)
    return str(found[0][1]).upper() if found else ""


def said(error: BaseException) -> str:
    """Return what the server said: its number and its sentence, on one line."""
    if len(error.args) >= 2:
        return f"{error.args[1]} (error {error.args[0]})".replace("\n", " ")[:300]
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
