"""Set up the shop's database: ``python -m perflab.demo.shop.database``.

The tables and their first rows are made by the shop's own login, which owns them. Making the
database and that login, and the login for Redis, is the work of an administrator.
"""

from __future__ import annotations

import secrets
from importlib import resources
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from .settings import required, switched_on

PRODUCTS = 500
MOVEMENTS = 200_000
PAST_ORDERS = 200
_CATEGORIES = ("kitchen", "garden", "books", "music", "sport", "tools", "toys", "light", "office", "travel")


def create_database(admin_dsn: str, name: str = "shop", user: str = "shop") -> str:
    """Make a database and the ordinary login that owns it; return that login's URL.

    Others have no right to enter the database.
    """
    password = secrets.token_urlsafe(18)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(user), sql.Literal(password))
        )
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(user))
        )
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    where = conninfo_to_dict(admin_dsn)
    return f"postgresql://{user}:{password}@{where['host']}:{where['port']}/{name}"


def create_redis_login(admin_url: str, user: str = "shop") -> str:
    """Make the ordinary Redis login of the services; return its URL."""
    password = secrets.token_urlsafe(18)
    with redis.Redis.from_url(admin_url) as client:
        rights = [
            "~*",
            "&*",
            "+@all",
            "-@admin",
            "-@dangerous",
            "+client|setname",
            "+client|setinfo",
            "+info",
        ]
        client.execute_command("ACL", "SETUSER", user, "reset", "on", f">{password}", *rights)
    where = urlsplit(admin_url)
    return f"redis://{user}:{password}@{where.hostname}:{where.port}{where.path}"


def set_up(dsn: str, mended: bool = False) -> None:
    """Create the tables and the first rows.

    Parameters
    ----------
    dsn
        URL of the login that shall own the tables.
    mended
        Whether the stock history gets the index its availability check needs.
    """
    with psycopg.connect(dsn) as connection:
        schema = resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
        connection.execute(schema.encode())
        seed(connection)
        if mended:
            connection.execute(
                "CREATE INDEX stock_movement_product "
                "ON stock_movement (product_id, moved_at) INCLUDE (quantity)"
            )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")


def seed(connection: psycopg.Connection) -> None:
    """Fill the tables: products, plenty of stock, its history, and some old orders, paid and shipped."""
    connection.execute(
        """
        INSERT INTO product
        SELECT n, initcap(category) || ' item ' || n, category, 100 + (n * 37) %% 9900,
               'The ' || category || ' item number ' || n || ', as good as the others.'
        FROM (SELECT n, (%s::text[])[1 + n %% %s] AS category FROM generate_series(1, %s) AS n) AS numbered
        """,
        [list(_CATEGORIES), len(_CATEGORIES), PRODUCTS],
    )
    connection.execute("INSERT INTO stock SELECT product_id, 100000000 FROM product")
    connection.execute(
        """
        INSERT INTO stock_movement (product_id, quantity, moved_at, reference)
        SELECT 1 + (n * 7919) %% %s, 1 + n %% 3, now() - (n %% 90) * interval '1 day', 'history'
        FROM generate_series(1, %s) AS n
        """,
        [PRODUCTS, MOVEMENTS],
    )
    connection.execute(
        """
        WITH old AS (
            INSERT INTO orders (user_name, status, total_cents, created_at)
            SELECT 'customer-' || n, 'shipped', 1000 + n, now() - interval '10 days'
            FROM generate_series(1, %s) AS n
            RETURNING order_id
        ), lines AS (
            INSERT INTO order_line SELECT order_id, 1, 1 + order_id %% %s, 1, 1000 + order_id FROM old
        ), paid AS (
            INSERT INTO payment (order_id, amount_cents, reference, bank_reference)
            SELECT order_id, 1000 + order_id, 'history', 'bank-0' FROM old
        )
        INSERT INTO shipment (order_id, note) SELECT order_id, 'history' FROM old
        """,
        [PAST_ORDERS, PRODUCTS],
    )


if __name__ == "__main__":
    set_up(required("SHOP_DATABASE_URL"), mended=switched_on("SHOP_MENDED"))
