"""Shadows on real servers: made, cut off, made again, dropped without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from perflab.demo.stores import PostgresServer, RedisServer
from perflab.errors import ShadowError
from perflab.shadow.prepare import drop_postgresql, drop_redis, prepare_postgresql, prepare_redis

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


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[PostgresServer]:
    """Start a server of its own, since databases are closed to PUBLIC in it."""
    with PostgresServer(server_directory / "prepared") as server:
        with psycopg.connect(server.admin_dsn, autocommit=True) as session:
            session.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
            session.execute("CREATE ROLE reporting LOGIN PASSWORD 'reporting'")
            session.execute("CREATE DATABASE shop OWNER app")
            session.execute('ALTER DATABASE shop SET search_path = "$user", public, audit')
            session.execute("ALTER DATABASE shop SET statement_timeout = '7s'")
            session.execute("GRANT CONNECT ON DATABASE shop TO reporting")
        with psycopg.connect(_url(server, "shop")) as session:
            session.execute(SCHEMA)
        yield server


@pytest.fixture
def prepared(server: PostgresServer) -> Iterator[PostgresServer]:
    """Prepare a shadow of ``shop``."""
    prepare_postgresql(server.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD, 5)
    yield server
    drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow")


def test_the_shadow_login_enters_its_database_and_no_other(prepared: PostgresServer) -> None:
    """Production, postgres and template1 refuse it; its own database does not."""
    # Then
    for database in ("shop", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            _enter(prepared, database)
    with _enter(prepared, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_the_shadow_login_may_do_in_the_copy_what_applications_do(prepared: PostgresServer) -> None:
    """Rows, DDL, functions, procedures, sequences, truncation, large objects, other schemas: all its own."""
    with _enter(prepared, "shop_shadow") as session:
        # When
        for statement in (
            "INSERT INTO orders (total, mood) VALUES (5, 'good')",
            "UPDATE audit.log SET line = ''",
            "SELECT add_order(3)",
            "CALL tidy()",
            "SELECT nextval('free_numbers')",
            "TRUNCATE parts",
            "ALTER TABLE orders ADD COLUMN note text",
            "ALTER TYPE mood ADD VALUE 'so so'",
            "REFRESH MATERIALIZED VIEW frozen",
            "DROP AGGREGATE product(numeric)",
            "SELECT lo_unlink(4242)",
            "CREATE TEMP TABLE scratch (id int)",
        ):
            session.execute(statement)

        # Then
        left = session.execute(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname IN ('public', 'audit') AND relkind <> 'i'"
            " AND pg_get_userbyid(relowner) <> 'shop_shadow'"
        ).fetchone()
        assert left == (0,)


def test_ids_of_the_shadow_are_set_apart(prepared: PostgresServer) -> None:
    """Sequences are a thousand million ahead, or half way to their end, in their own direction."""
    with _enter(prepared, "shop_shadow") as session:
        # When
        order = session.execute("INSERT INTO orders (total) VALUES (1) RETURNING id").fetchone()
        small = session.execute("INSERT INTO small DEFAULT VALUES RETURNING id, n").fetchone()

    # Then: smallint ends at 32767; the identity runs down from -1
    assert order == (1_000_000_003,)
    assert small == (1 + (32767 - 1) // 2 + 1, -1_000_000_002)


def test_what_reaches_outside_is_stripped(server: PostgresServer) -> None:
    """Event triggers and foreign servers are gone from the copy, and the result says so."""
    # When
    made = prepare_postgresql(server.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD, 5)

    # Then
    assert set(made.stripped) == {"event trigger watcher", "foreign server other"}
    assert set(made.refused) == {"shop", "postgres", "template1"}
    with psycopg.connect(_url(server, "shop_shadow")) as session:
        assert session.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
        assert session.execute("SELECT to_regclass('remote')").fetchone() == (None,)
    drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow")


def test_the_databases_settings_come_along(prepared: PostgresServer) -> None:
    """What ALTER DATABASE SET says of production holds in the shadow."""
    with _enter(prepared, "shop_shadow") as session:
        assert session.execute("SHOW search_path").fetchone() == ('"$user", public, audit',)
        assert session.execute("SHOW statement_timeout").fetchone() == ("7s",)


def test_roles_of_production_lose_nothing(prepared: PostgresServer) -> None:
    """Owner and other logins enter production and make temporary tables as before; not the shadow."""
    for role in ("app", "reporting"):
        with psycopg.connect(prepared.dsn("shop", role, role)) as session:
            session.execute("CREATE TEMP TABLE t (id int)")
        with psycopg.connect(prepared.dsn("postgres", role, role)) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(prepared.dsn("shop_shadow", role, role))


def test_the_shadow_login_cannot_use_up_the_connections(prepared: PostgresServer) -> None:
    """The sixth session of a login limited to five is refused."""
    sessions = [_enter(prepared, "shop_shadow") for _ in range(5)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            _enter(prepared, "shop_shadow")
    finally:
        for session in sessions:
            session.close()


def test_preparing_again_keeps_rows_and_renews_the_login(prepared: PostgresServer) -> None:
    """A second run keeps the copy, sets no sequence ahead again, and applies the new password."""
    # Given
    with _enter(prepared, "shop_shadow") as session:
        session.execute("INSERT INTO orders (total) VALUES (99)")
    with psycopg.connect(prepared.admin_dsn, autocommit=True) as session:
        session.execute("GRANT app TO shop_shadow")
        session.execute("GRANT CONNECT ON DATABASE shop TO PUBLIC")

    # When: production is in use meanwhile
    with psycopg.connect(_url(prepared, "shop")):
        made = prepare_postgresql(prepared.admin_dsn, "shop", "shop_shadow", "shop_shadow", "other", 5)

    # Then
    assert (made.created, made.sequences) == (False, 0)
    with psycopg.connect(prepared.dsn("shop_shadow", "shop_shadow", "other")) as session:
        assert session.execute("SELECT max(id) FROM orders WHERE total = 99").fetchone() == (1_000_000_003,)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(prepared.dsn("shop", "shop_shadow", "other"))


def test_dropping_leaves_the_server_as_it_was(server: PostgresServer) -> None:
    """Databases, roles and everybody's rights are those of before; dropping again does nothing."""
    # Given
    before = _rights(server)
    prepare_postgresql(server.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD)
    assert _rights(server) != before

    # When
    done = drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow")

    # Then
    assert _rights(server) == before
    assert {"database shop_shadow", "role shop_shadow"} < set(done)
    assert drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow") == ()


def test_databases_stay_closed_while_another_shadow_needs_it(server: PostgresServer) -> None:
    """Of two shadows, dropping the first opens nothing to the second; dropping the last opens all."""
    # Given
    before = _rights(server)
    for name in ("one", "two"):
        prepare_postgresql(server.admin_dsn, "shop", name, name, name)

    # When
    drop_postgresql(server.admin_dsn, "one", "one")

    # Then
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(server.dsn("shop", "two", "two"))
    drop_postgresql(server.admin_dsn, "two", "two")
    assert _rights(server) == before


def test_what_was_not_made_here_is_never_touched(server: PostgresServer) -> None:
    """A database or a role of that name that is somebody's is refused, by making and by dropping."""
    for shadow, role, message in (
        ("postgres", "new_role", "a database 'postgres' exists"),
        ("new_database", "app", "a role 'app' exists"),
    ):
        with pytest.raises(ShadowError, match=message):
            prepare_postgresql(server.admin_dsn, "shop", shadow, role, "x")
        with pytest.raises(ShadowError, match=message):
            drop_postgresql(server.admin_dsn, shadow, role)
    with pytest.raises(ShadowError, match="a name of its own"):
        prepare_postgresql(server.admin_dsn, "shop", "shop", "new_role", "x")


def test_a_database_in_use_is_not_copied(server: PostgresServer) -> None:
    """The refusal says why, and what to do."""
    with (
        psycopg.connect(_url(server, "shop")),
        pytest.raises(ShadowError, match="while nobody is connected"),
    ):
        prepare_postgresql(server.admin_dsn, "shop", "shop_shadow", "shop_shadow", "x")
    drop_postgresql(server.admin_dsn, "shop_shadow", "shop_shadow")


def test_a_login_that_is_let_in_is_switched_off(prepared: PostgresServer) -> None:
    """Where somebody granted the shadow login production, it is found out and does not stay usable."""
    # Given
    with psycopg.connect(prepared.admin_dsn, autocommit=True) as session:
        session.execute("GRANT CONNECT ON DATABASE shop TO shop_shadow")

    # When
    with pytest.raises(
        ShadowError, match="not confined to 'shop_shadow' and was switched off: shop: let it in"
    ):
        prepare_postgresql(prepared.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD)

    # Then
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        _enter(prepared, "shop_shadow")
    with psycopg.connect(prepared.admin_dsn, autocommit=True) as session:
        session.execute("REVOKE CONNECT ON DATABASE shop FROM shop_shadow")


def test_preparing_takes_a_superuser(server: PostgresServer) -> None:
    """Another login is told so, and nothing is left of the attempt."""
    # When
    with pytest.raises(ShadowError, match="use a superuser"):
        prepare_postgresql(server.dsn("shop", "app", "app"), "shop", "shop_shadow", "shop_shadow", "x")

    # Then
    with psycopg.connect(server.admin_dsn) as session:
        assert session.execute("SELECT FROM pg_roles WHERE rolname = 'shop_shadow'").fetchone() is None


def test_the_redis_user_reaches_its_prefix_only(redis_server: RedisServer) -> None:
    """Keys, scripts, channels and dangerous commands outside the prefix are refused."""
    # When
    made = prepare_redis(redis_server.admin_url, "shadow*user", PASSWORD, "p:[1]*:")

    # Then
    assert "NOPERM" in made.how or "no permissions" in made.how.lower()
    client = _redis_login(redis_server, "shadow*user")
    client.set("p:[1]*:a", "1")
    assert client.eval("return redis.call('GET', KEYS[1])", 1, "p:[1]*:a") == b"1"
    with client.pipeline(transaction=True) as pipeline:
        assert pipeline.incr("p:[1]*:a").rpush("p:[1]*:q", "x").execute() == [2, 1]
    assert client.blpop(["p:[1]*:q"], timeout=1) == (b"p:[1]*:q", b"x")
    for refused in (
        lambda: client.set("a", "1"),
        lambda: client.set("p:1x:a", "1"),
        lambda: client.get("a"),
        lambda: client.publish("news", "x"),
        lambda: client.execute_command("RENAME", "p:[1]*:a", "a"),
        lambda: client.flushdb(),
        lambda: client.keys("*"),
        lambda: client.config_get("*"),
        lambda: client.execute_command("SCRIPT", "FLUSH"),
        lambda: client.execute_command("ACL", "LIST"),
        lambda: client.execute_command("CLIENT", "KILL", "TYPE", "normal"),
        lambda: client.info(),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            refused()
    with pytest.raises(redis.ResponseError, match=r"(?i)noperm|can't access|permission"):
        client.eval("return redis.call('SET', KEYS[1], '1')", 1, "a")
    with pytest.raises(redis.ResponseError, match=r"(?i)noperm|can't access|permission"):
        client.eval("return redis.call('SET', 'a', '1')", 0)
    client.close()
    drop_redis(redis_server.admin_url, "shadow*user", "p:[1]*:")


def test_dropping_the_redis_user_takes_its_keys_along(redis_server: RedisServer) -> None:
    """The user and its keys in all databases go, others' keys stay; preparing again is allowed before."""
    # Given
    admin = redis.Redis.from_url(redis_server.admin_url)
    for password in ("first", PASSWORD):
        prepare_redis(redis_server.admin_url, "dropped", password, "d:")
    admin.set("dear", "1")
    for database in (0, 3):
        client = _redis_login(redis_server, "dropped", database)
        client.mset({"d:1": "1", "d:2": "2"})
        client.close()

    # When
    done = drop_redis(redis_server.admin_url, "dropped", "d:")

    # Then
    assert done == ("user dropped", "2 keys d:* in db0", "2 keys d:* in db3")
    assert admin.get("dear") == b"1"
    assert "dropped" not in admin.acl_users()
    assert drop_redis(redis_server.admin_url, "dropped", "d:") == ()
    admin.delete("dear")
    admin.close()


def test_a_redis_user_of_somebody_is_not_touched(redis_server: RedisServer) -> None:
    """Neither made anew nor dropped; and the default user and an empty prefix are refused."""
    for call in (
        lambda: prepare_redis(redis_server.admin_url, "admin", "x", "p:"),
        lambda: drop_redis(redis_server.admin_url, "admin", "p:"),
        lambda: prepare_redis(redis_server.admin_url, "default", "x", "p:"),
        lambda: prepare_redis(redis_server.admin_url, "someone", "x", ""),
    ):
        with pytest.raises(ShadowError):
            call()


def _url(server: PostgresServer, database: str) -> str:
    return server.admin_dsn.rpartition("/")[0] + f"/{database}"


def _enter(server: PostgresServer, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=server.host, port=server.port, dbname=database, user="shop_shadow", password=PASSWORD
    )


def _redis_login(server: RedisServer, user: str, database: int = 0) -> redis.Redis:
    return redis.Redis(server.host, server.port, database, username=user, password=PASSWORD)


def _rights(server: PostgresServer) -> object:
    """Everybody's rights on every database, and all roles and databases with their comments."""
    with psycopg.connect(server.admin_dsn) as session:
        queries = (
            """SELECT datname, a.grantee, a.privilege_type
                 FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a ORDER BY 1, 2, 3""",
            "SELECT rolname, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles ORDER BY 1",
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1",
        )
        return [session.execute(query).fetchall() for query in queries]
