"""Make shadows: a database and a Redis user that marked work may use, and that cannot reach production.

PostgreSQL: a database with production's schema, without what reaches outside, and a login role that owns
everything in it and may enter no other database. A fresh role enters every database through PUBLIC, so it is
kept out by a server apart, by rules of ``pg_hba.conf``, or by taking CONNECT and TEMPORARY from PUBLIC after
every login role there is was granted what it had through PUBLIC: nobody but the shadow role loses anything.
Roles made *later* need an explicit GRANT CONNECT then. At the end the login knocks at every database and must
be refused.

Redis: see `perflab.shadow.prepare.redisaccess`.

What is made carries a mark (a comment), and only what carries it is ever changed or dropped. Two things
behave otherwise than in production: the shadow role owns the tables, so that row-level security does not
bind it unless forced; and a ``"$user"`` in ``search_path`` means the shadow role.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .postgresql import drop_postgresql, plan_postgresql, prepare
from .redisaccess import PreparedRedis, drop_redis, prepare_redis
from .wish import KeepOut, Plan, Prepared, Wish

__all__ = [
    "Plan",
    "Prepared",
    "PreparedRedis",
    "Wish",
    "drop_postgresql",
    "drop_redis",
    "plan_postgresql",
    "prepare",
    "prepare_postgresql",
    "prepare_redis",
]


def prepare_postgresql(
    admin_dsn: str,
    production: str,
    shadow: str,
    role: str,
    password: str,
    connection_limit: int | None = None,
    *,
    how: Literal["schema", "copy"] = "copy",
    keep_out: KeepOut = "revoke",
    app_roles: Sequence[str] = (),
) -> Prepared:
    """Make, or bring up to date, a shadow of a database on the same server, with all its rows.

    `prepare` does more: it builds shadows of a production in use, on other servers, with masked samples.

    Parameters
    ----------
    admin_dsn : str
        A superuser's login on production's server, on any database.
    production, shadow : str
        Names of the database and of its shadow.
    role, password : str
        The shadow login.
    connection_limit : int, optional
        Most sessions of the shadow login; a quarter of the server's when left out.
    how : {'schema', 'copy'}
        ``copy`` takes all rows as they are, while nobody is connected to production.
    keep_out : {'revoke', 'hba'}
        By what the login is kept out of production.
    app_roles : sequence of str
        Further roles (groups without login) that keep CONNECT on production.

    Returns
    -------
    Prepared
    """
    return prepare(
        Wish(
            admin_dsn=admin_dsn,
            production=production,
            shadow=shadow,
            role=role,
            password=password,
            limit=connection_limit,
            how=how,
            keep_out=keep_out,
            app_roles=app_roles,
        )
    )
