"""Keep a login out of all databases but one by rules of ``pg_hba.conf``, which an administrator writes.

We never write that file. We print the lines, read what the server makes of it (``pg_hba_file_rules`` shows
the file as it is now, before it is in force), and have it re-read when told to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_RELOAD_S = 10.0


@dataclass(frozen=True, slots=True)
class HostRules:
    """What the file says of a login.

    ``path`` is the file on the server's machine, ``lines`` what belongs into it, ``above`` the number of the
    line they go above, ``gap`` says by which line the login could enter another database; "" when by none.
    """

    path: str
    lines: tuple[str, ...]
    above: int
    gap: str


def read_host_rules(session: psycopg.Connection[Any], shadow: str, role: str) -> HostRules:
    """Read the file as it is, in force or not.

    Parameters
    ----------
    session : psycopg.Connection
        A superuser's.
    shadow, role : str
        The only database the login may enter, and the login.

    Returns
    -------
    HostRules
    """
    path = session.execute("SHOW hba_file").fetchone()
    rules = session.execute(
        "SELECT line_number, type, database, user_name, coalesce(address, 'all'), auth_method, error"
        " FROM pg_hba_file_rules ORDER BY line_number"
    ).fetchall()
    first = min((int(rule[0]) for rule in rules), default=1)
    # a line with an error that has a type all the same is one that cannot match, without SSL for example
    broken = [f"line {rule[0]}: {rule[6]}" for rule in rules if rule[6] and not rule[1]]
    gap = broken[0] if broken else _gap(rules, shadow, role)
    return HostRules(str(path[0]) if path else "pg_hba.conf", rule_lines(shadow, role), first, gap)


def rule_lines(shadow: str, role: str) -> tuple[str, ...]:
    """Return the lines: its own database by password, everything else refused.

    Examples
    --------
    >>> for line in rule_lines("shop_shadow", "shop_shadow"): print(line)
    local   "shop_shadow"  "shop_shadow"       scram-sha-256
    host    "shop_shadow"  "shop_shadow"  all  scram-sha-256
    local   all  "shop_shadow"       reject
    host    all  "shop_shadow"  all  reject
    """
    database, user = _quoted(shadow), _quoted(role)
    return (
        f"local   {database}  {user}       scram-sha-256",
        f"host    {database}  {user}  all  scram-sha-256",
        f"local   all  {user}       reject",
        f"host    all  {user}  all  reject",
    )


def put_in_force(session: psycopg.Connection[Any]) -> bool:
    """Have the server re-read its files, and wait until it has; False when it did not in time."""
    before = session.execute("SELECT pg_conf_load_time()").fetchone()
    session.execute("SELECT pg_reload_conf()")
    row = session.execute(
        # the server tells its processes one after another; a session of its own sees the new time
        "SELECT pg_conf_load_time()"
    ).fetchone()
    waited = 0.0
    while row == before and waited < _RELOAD_S:
        session.execute("SELECT pg_sleep(0.05)")
        waited += 0.05
        row = session.execute("SELECT pg_conf_load_time()").fetchone()
    return row != before


def _gap(rules: list[tuple[Any, ...]], shadow: str, role: str) -> str:
    """Return the first rule by which the login might enter another database, as the server would match it."""
    for way in ("local", "host"):
        for line, kind, databases, users, address, method, _ in rules:
            if not str(kind).startswith(way):
                continue
            if not any(_names(user, role) for user in users or ()):
                continue
            if not any(_other_than(database, shadow, role) for database in databases or ()):
                continue
            if method != "reject":
                return f"line {line} lets {role!r} into other databases ({kind}, {method})"
            if kind == way and "all" in databases and address in ("all", "0.0.0.0/0", "::/0"):
                break
    return ""


def _names(user: str, role: str) -> bool:
    """Tell whether a user field means the role; a group's does not, since it is in none."""
    if user.startswith("/"):
        return re.search(user[1:], role) is not None
    return user in ("all", role)


def _other_than(database: str, shadow: str, role: str) -> bool:
    """Tell whether a database field may mean a database that is not the shadow."""
    if database == "sameuser":
        return role != shadow
    return database not in (shadow, "replication", "samerole", "samegroup")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
