"""Refusals of MariaDB are told from faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from mariadb_server import MariaServer

from perflab.demo.spawn import free_port
from perflab.shadow.refusal import try_mariadb, with_login

STATEMENTS = (
    "CREATE DATABASE knocked",
    "CREATE TABLE knocked.t (id int)",
    "CREATE USER knocking@'%' IDENTIFIED BY 'p@ss:/?'",
    "CREATE USER crowded@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1",
    "CREATE USER asleep@'%' IDENTIFIED BY 'x' ACCOUNT LOCK",
    "CREATE USER elsewhere@'10.9.8.7' IDENTIFIED BY 'x'",
    "CREATE USER one_column@'%' IDENTIFIED BY 'x'",
    "GRANT SELECT (id) ON knocked.t TO one_column@'%'",
    "CREATE ROLE opener",
    "GRANT SELECT ON knocked.* TO opener",
    "CREATE USER acting@'%' IDENTIFIED BY 'x'",
    "GRANT opener TO acting@'%'",
)


@pytest.fixture
def knocked(mariadb: MariaServer) -> Iterator[MariaServer]:
    """Make a database and logins of several kinds."""
    with mariadb.connect() as session, session.cursor() as cursor:
        for statement in STATEMENTS:
            cursor.execute(statement)
        yield mariadb
        cursor.execute("DROP DATABASE knocked")
        cursor.execute("DROP ROLE opener")
        cursor.execute("DROP USER knocking, crowded, asleep, elsewhere@'10.9.8.7', one_column, acting")


def test_refusals_of_every_kind(knocked: MariaServer) -> None:
    """No right, a wrong password, an unknown, a locked, a host-bound login are refused."""
    for user, password, said in (
        ("knocking", "p%40ss%3A%2F%3F", "Access denied for user 'knocking'@'%' to database 'knocked'"),
        ("knocking", "wrong", "using password: YES"),
        ("nobody", "x", "Access denied"),
        ("asleep", "x", "account is locked"),
        ("elsewhere", "x", "Access denied"),
    ):
        found = try_mariadb(knocked.url("knocked", user, password))
        assert (found.kept_out, found.unclear) == (True, ""), (user, found)
        assert said in found.how


def test_the_least_right_lets_in(knocked: MariaServer) -> None:
    """One column of one table, a role that is granted and not set, everybody's rights."""
    assert try_mariadb(knocked.url("knocked", "one_column", "x")).how == "let in"
    by_role = try_mariadb(knocked.url("knocked", "acting", "x"))
    assert (by_role.tried, by_role.kept_out, by_role.how) == (2, False, "let in with role opener")
    with knocked.connect() as session, session.cursor() as cursor:
        cursor.execute("GRANT SELECT ON knocked.* TO PUBLIC")
        public = try_mariadb(knocked.url("knocked", "knocking", "p%40ss%3A%2F%3F"))
        cursor.execute("REVOKE SELECT ON knocked.* FROM PUBLIC")
    assert public.how == "let in"
    assert not public.kept_out


def test_a_full_or_absent_server_is_unclear(knocked: MariaServer) -> None:
    """A login with no session left, a server that is down, a database that is not there say nothing."""
    with use_up(knocked):
        full = try_mariadb(knocked.url("knocked", "crowded", "x"))
    absent = try_mariadb(f"mariadb://a:b@127.0.0.1:{free_port()}/x")
    no_database = try_mariadb(knocked.admin_url + "no_such_database")
    for found, said in (
        (full, "max_user_connections"),
        (absent, "refused"),
        (no_database, "Unknown database"),
    ):
        assert said in found.unclear, found
        assert not found.kept_out


def use_up(server: MariaServer) -> pymysql.Connection[Any]:
    """Use up the one session of ``crowded``."""
    return pymysql.connect(host=server.host, port=server.port, user="crowded", password="x")


def test_productions_place_gets_the_shadows_login() -> None:
    """Host, port and database are production's; user and password the shadow's."""
    assert (
        with_login("mariadb://10.0.0.5:3306/shop", "mariadb://a:p%2Fw@other/shadow")
        == "mariadb://a:p%2Fw@10.0.0.5:3306/shop"
    )
