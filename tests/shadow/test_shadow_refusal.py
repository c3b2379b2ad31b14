"""Refusals are told from faults."""

from __future__ import annotations

import psycopg
import pytest
import redis
from mariadb_server import MariaServer

from perflab.demo.spawn import free_port
from perflab.demo.stores import PostgresServer, RedisServer
from perflab.errors import ConfigError
from perflab.shadow.refusal import try_mariadb, try_postgresql, try_redis, with_login


def test_productions_place_gets_the_shadows_login() -> None:
    """Host, port, database and options are production's; user and password the shadow's, however odd."""
    assert (
        with_login("postgresql://10.0.0.5:5432/shop?sslmode=require", "postgresql://a%40b:p%2Fw@other/shadow")
        == "postgresql://a%40b:p%2Fw@10.0.0.5:5432/shop?sslmode=require"
    )
    assert with_login("redis://cache:6379/2", "redis://:only@x/0") == "redis://:only@cache:6379/2"
    with pytest.raises(ConfigError, match="no login of its own"):
        with_login("redis://cache:6379/2", "redis://x/0")


def test_postgresql_refusals_of_every_kind(postgres: PostgresServer) -> None:
    """A wrong password, an unknown role, no CONNECT and no LOGIN are refusals; a superuser is let in."""
    # Given
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as session:
        session.execute("CREATE ROLE knocking LOGIN PASSWORD 'x'; CREATE ROLE asleep NOLOGIN PASSWORD 'x'")
        session.execute("CREATE DATABASE closed")
        session.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")

        # When
        found = [
            try_postgresql(postgres.dsn("closed", user, password), session)
            for user, password in [("knocking", "x"), ("knocking", "wrong"), ("nobody", "x"), ("asleep", "x")]
        ]
        let_in = try_postgresql(postgres.dsn("postgres", "knocking", "x"))
        session.execute("DROP ROLE knocking, asleep")
        session.execute("DROP DATABASE closed")

    # Then
    assert [refusal.kept_out for refusal in found] == [True] * 4
    assert found[0].how == 'FATAL:  permission denied for database "closed"'
    assert (let_in.kept_out, let_in.how, let_in.unclear) == (False, "let in", "")


def test_a_full_or_absent_server_is_unclear(postgres: PostgresServer) -> None:
    """A server that is down, or a role with no session left, says nothing about rights."""
    # Given
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as session:
        session.execute("CREATE ROLE crowded LOGIN PASSWORD 'x' CONNECTION LIMIT 0")

        # When
        full = try_postgresql(postgres.dsn("postgres", "crowded", "x"), session)
        session.execute("DROP ROLE crowded")
    absent = try_postgresql(f"postgresql://a:b@127.0.0.1:{free_port()}/x")

    # Then
    assert (full.kept_out, full.refused) == (False, 0)
    assert "too many connections" in full.unclear
    assert "refused" in absent.unclear
    assert not absent.kept_out


def test_redis_refusals_of_every_kind(redis_server: RedisServer) -> None:
    """A confined user and an unknown one are refused; a user who may write is not, and writes nothing."""
    # Given
    admin = redis.Redis.from_url(redis_server.admin_url)
    admin.flushall()
    admin.execute_command("ACL", "SETUSER", "narrow", "reset", "resetchannels", "on", ">x", "~n:*", "+@all")

    # When
    narrow, unknown = try_redis(redis_server.url("narrow", "x")), try_redis(redis_server.url("nobody", "x"))
    admin.execute_command("ACL", "SETUSER", "narrow", "allkeys")
    half = try_redis(redis_server.url("narrow", "x"))
    strong = try_redis(redis_server.admin_url)
    absent = try_redis(f"redis://a:b@127.0.0.1:{free_port()}/0")
    admin.execute_command("ACL", "DELUSER", "narrow")

    # Then
    assert (narrow.tried, narrow.refused, narrow.kept_out) == (3, 3, True)
    assert unknown.kept_out
    assert (half.refused, half.kept_out) == (1, False)
    assert (strong.refused, strong.unclear) == (0, "")
    assert absent.unclear
    assert not absent.kept_out
    assert admin.dbsize() == 0
    admin.close()


def test_mariadb_refusals_of_every_kind(mariadb: MariaServer) -> None:
    """A wrong password, an unknown user, no right on the schema and a locked account are refusals."""
    # Given
    session = mariadb.connect()
    with session.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE closed")
        cursor.execute("CREATE OR REPLACE USER knocking@'127.0.0.1' IDENTIFIED BY 'x'")
        cursor.execute("CREATE OR REPLACE USER locked@'127.0.0.1' IDENTIFIED BY 'x' ACCOUNT LOCK")

        # When
        found = [
            try_mariadb(mariadb.url("closed", user, password))
            for user, password in [("knocking", "x"), ("knocking", "wrong"), ("nobody", "x"), ("locked", "x")]
        ]
        cursor.execute("GRANT SELECT ON closed.* TO knocking@'127.0.0.1'")
        let_in = try_mariadb(mariadb.url("closed", "knocking", "x"))
        absent = try_mariadb(f"mariadb://a:b@127.0.0.1:{free_port()}/x")
        cursor.execute("DROP USER knocking@'127.0.0.1', locked@'127.0.0.1'")
        cursor.execute("DROP DATABASE closed")
    session.close()

    # Then
    assert [refusal.kept_out for refusal in found] == [True] * 4
    assert "Access denied" in found[0].how
    assert (let_in.kept_out, let_in.how, let_in.unclear) == (False, "let in", "")
    assert absent.unclear
    assert not absent.kept_out
