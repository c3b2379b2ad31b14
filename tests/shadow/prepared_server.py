"""A server to prepare shadows on: a database with everything that has an owner, and two ordinary logins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from perflab.demo.stores import PostgresServer

PASSWORD = "a pass:word@/?"
SCHEMA = """
CREATE SCHEMA audit;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN amount AS numeric CHECK (VALUE >= 0);
CREATE TABLE orders (id bigserial PRIMARY KEY, total amount, mood mood);
CREATE TABLE small (id smallserial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY (INCREMENT BY -1));
CREATE TABLE audit.log (line text);
CREATE TABLE parts (id int, k int) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE SEQUENCE free_numbers;
CREATE VIEW totals AS SELECT sum(total) FROM orders;
CREATE MATERIALIZED VIEW frozen AS SELECT count(*) FROM orders;
CREATE FUNCTION add_order(total numeric) RETURNS void LANGUAGE sql SECURITY DEFINER
    AS 'INSERT INTO public.orders (total) VALUES (total)';
CREATE PROCEDURE tidy() LANGUAGE sql AS 'DELETE FROM audit.log';
CREATE AGGREGATE product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION watch();
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER other FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE remote (id int) SERVER other;
INSERT INTO orders (total) VALUES (1), (2);
INSERT INTO small DEFAULT VALUES;
SELECT lo_create(4242);
"""


@contextmanager
def server_with_a_shop(directory: Path) -> Iterator[PostgresServer]:
    """Start it."""
    with PostgresServer(directory) as server:
        with psycopg.connect(server.admin_dsn, autocommit=True) as session:
            session.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
            session.execute("CREATE ROLE reporting LOGIN PASSWORD 'reporting'")
            session.execute("CREATE DATABASE shop OWNER app")
            session.execute('ALTER DATABASE shop SET search_path = "$user", public, audit')
            session.execute("ALTER DATABASE shop SET statement_timeout = '7s'")
            session.execute("GRANT CONNECT ON DATABASE shop TO reporting")
        with psycopg.connect(url_of(server, "shop")) as session:
            session.execute(SCHEMA)
        yield server


def url_of(server: PostgresServer, database: str) -> str:
    return server.admin_dsn.rpartition("/")[0] + f"/{database}"


def enter(server: PostgresServer, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=server.host, port=server.port, dbname=database, user="shop_shadow", password=PASSWORD
    )


def rights(server: PostgresServer) -> object:
    """Everybody's rights on every database, and all roles and databases with their comments."""
    with psycopg.connect(server.admin_dsn) as session:
        queries = (
            """SELECT datname, a.grantee, a.privilege_type
                 FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
                ORDER BY 1, 2, 3""",
            "SELECT rolname, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles ORDER BY 1",
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1",
        )
        return [session.execute(query).fetchall() for query in queries]
