"""Shadows of a real MariaDB: made while it is in use, cut off, made again, dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
from maria_shop import PASSWORD, PRODUCTION, SHADOW, USER, ask, enter, server_with_a_shop, shape
from mariadb_server import MariaServer

from perflab.errors import ShadowError
from perflab.shadow.prepare.mariadb import PreparedMariadb, drop_mariadb, prepare_mariadb


@pytest.fixture(scope="module")
def shop(mariadb: MariaServer) -> Iterator[MariaServer]:
    with server_with_a_shop(mariadb) as server:
        yield server


def prepare(server: MariaServer, **options: object) -> PreparedMariadb:
    return prepare_mariadb(server.admin_url, PRODUCTION, SHADOW, USER, PASSWORD, 5, **options)  # type: ignore[arg-type]


@pytest.fixture
def prepared(shop: MariaServer) -> Iterator[MariaServer]:
    with shop.connect(PRODUCTION) as in_use:
        ask(in_use, "START TRANSACTION")
        ask(in_use, "SELECT * FROM orders FOR UPDATE")
        prepare(shop)
    yield shop
    drop_mariadb(shop.admin_url, SHADOW, USER)


def test_the_shadow_login_enters_its_database_and_no_other(prepared: MariaServer) -> None:
    """Production and every other database refuse it, even one whose name is nearly that of its own."""
    with prepared.connect() as session:
        ask(session, "CREATE DATABASE prepXshopXshadow")
        databases = [name for (name,) in ask(session, "SHOW DATABASES") if name != "information_schema"]
    try:
        for database in sorted(set(databases) - {SHADOW}):
            with pytest.raises(pymysql.OperationalError, match="Access denied for user"):
                enter(prepared, database)
    finally:
        with prepared.connect() as session:
            ask(session, "DROP DATABASE prepXshopXshadow")
    with enter(prepared, SHADOW) as session:
        assert {name for (name,) in ask(session, "SHOW DATABASES")} == {SHADOW, "information_schema"}
        assert ask(session, "SELECT count(*) FROM orders") == [(0,)]


def test_the_shadow_login_cannot_use_up_the_connections(prepared: MariaServer) -> None:
    """The sixth session of a login limited to five is refused."""
    sessions = [enter(prepared, SHADOW) for _ in range(5)]
    try:
        with pytest.raises(pymysql.OperationalError, match="max_user_connections"):
            enter(prepared, SHADOW)
    finally:
        for session in sessions:
            session.close()


def test_preparing_again_keeps_rows_and_renews_the_login(prepared: MariaServer) -> None:
    """A second run keeps the copy, sets no counter ahead again, and applies the new password."""
    # Given
    with enter(prepared, SHADOW) as session:
        ask(session, "INSERT INTO orders (total) VALUES (99)")
    # When
    made = prepare_mariadb(prepared.admin_url, PRODUCTION, SHADOW, USER, "other", 5)
    # Then
    assert (made.created, made.counters, made.rows) == (False, 0, {})
    assert made.refused[PRODUCTION].startswith("Access denied")
    with enter(prepared, SHADOW, "other") as session:
        assert ask(session, "SELECT count(*) FROM orders WHERE total = 99") == [(1,)]
    with pytest.raises(pymysql.OperationalError, match="Access denied"):
        enter(prepared, SHADOW)


def test_nothing_of_others_is_changed_and_nothing_is_left(shop: MariaServer) -> None:
    """Production and everybody's rights are as they were; dropping twice is fine."""
    before = shape(shop)
    made = prepare(shop)
    assert (made.shadow, made.user, made.created) == (SHADOW, USER, True)
    with enter(shop, SHADOW) as session:
        ask(session, "BEGIN")
        ask(session, "SELECT * FROM orders FOR UPDATE")
        dropped = drop_mariadb(shop.admin_url, SHADOW, USER)
    assert dropped == (f"database {SHADOW}", f"user {USER}@%")
    assert drop_mariadb(shop.admin_url, SHADOW, USER) == ()
    assert shape(shop) == before


def test_what_was_not_made_here_is_never_touched(shop: MariaServer) -> None:
    """A database or a user of that name that is somebody's is refused, by making and by dropping."""
    before = shape(shop)
    for shadow, user, message in (
        ("prep_other", "new_user", "a database 'prep_other' exists"),
        ("new_database", "prep_app", "a user 'prep_app' exists"),
    ):
        with pytest.raises(ShadowError, match=message):
            prepare_mariadb(shop.admin_url, PRODUCTION, shadow, user, "x")
        with pytest.raises(ShadowError, match=message):
            drop_mariadb(shop.admin_url, shadow, user)
    for production, shadow, message in (
        (PRODUCTION, PRODUCTION, "a name of its own"),
        ("nowhere", "new_database", "there is no database 'nowhere'"),
    ):
        with pytest.raises(ShadowError, match=message):
            prepare_mariadb(shop.admin_url, production, shadow, "new_user", "x")
    assert shape(shop) == before


def test_a_forged_mark_drops_nobody(prepared: MariaServer) -> None:
    """The shadow login may write in its database, the mark too; nobody else's login is dropped for it."""
    with enter(prepared, SHADOW) as session:
        ask(session, "UPDATE _perflab SET user = 'prep_app'")
    try:
        for attempt in (
            lambda: drop_mariadb(prepared.admin_url, SHADOW, "prep_app"),
            lambda: prepare_mariadb(prepared.admin_url, PRODUCTION, SHADOW, "prep_app", "x"),
        ):
            with pytest.raises(ShadowError, match="'prep_app' has rights beyond"):
                attempt()
        with pytest.raises(ShadowError, match="is 'prep_app', not 'prep_shadow'"):
            drop_mariadb(prepared.admin_url, SHADOW, USER)
    finally:
        with enter(prepared, SHADOW) as session:
            ask(session, f"UPDATE _perflab SET user = '{USER}'")


@pytest.mark.parametrize(
    ("grant", "revoke", "said"),
    [
        ("GRANT SELECT ON prep_other.* TO PUBLIC", "REVOKE SELECT ON prep_other.* FROM PUBLIC",
         r"prep_other: let in \(by a right that PUBLIC have in mysql.db\)"),
        ("INSERT INTO mysql.db (host, db, user, select_priv) VALUES ('%', 'prep\\\\_other', '', 'Y')",
         "DELETE FROM mysql.db WHERE user = ''",
         r"prep_other: let in \(by a right that anonymous users have"),
    ],
    ids=["public", "anonymous"],
)  # fmt: skip
def test_a_login_that_is_let_in_is_locked(grant: str, revoke: str, said: str, prepared: MariaServer) -> None:
    """What everybody may, the shadow login may, too: it is found out, and the login does not stay usable."""
    # Given
    with prepared.connect() as session:
        ask(session, grant)
        ask(session, "FLUSH PRIVILEGES")
        try:
            # When
            with pytest.raises(ShadowError, match=f"not confined to '{SHADOW}' and was locked: {said}"):
                prepare(prepared)
            # Then
            with pytest.raises(pymysql.OperationalError, match="account is locked"):
                enter(prepared, SHADOW)
        finally:
            ask(session, revoke)
            ask(session, "FLUSH PRIVILEGES")
    # And: once that is mended it is made usable again
    prepare(prepared)
    enter(prepared, SHADOW).close()


def test_a_login_with_rights_beyond_its_shadow_is_refused(prepared: MariaServer) -> None:
    """A grant, global or of production or of a role, is shown, not taken away."""
    with prepared.connect() as session:
        for grant, revoke in (
            (
                f"GRANT SELECT ON {PRODUCTION}.* TO {USER}@'%'",
                f"REVOKE SELECT ON {PRODUCTION}.* FROM {USER}@'%'",
            ),
            (f"GRANT FILE ON *.* TO {USER}@'%'", f"REVOKE FILE ON *.* FROM {USER}@'%'"),
        ):
            ask(session, grant)
            with pytest.raises(ShadowError, match="has rights beyond 'prep_shop_shadow'"):
                prepare(prepared)
            ask(session, revoke)


def test_preparing_takes_all_rights(shop: MariaServer) -> None:
    """Another login is told so, and nothing is left of the attempt."""
    before = shape(shop)
    with pytest.raises(ShadowError, match="use one with all rights"):
        prepare_mariadb(shop.url("", "prep_app", "app"), PRODUCTION, SHADOW, USER, "x")
    assert shape(shop) == before


def test_a_shadow_on_a_server_of_its_own(shop: MariaServer, server_directory: Path) -> None:
    """Made there from production here; the login is nobody on production's server."""
    with MariaServer(
        server_directory / "mariadb_shadows", settings={"log-bin": None, "performance-schema": "ON"}
    ) as other:
        made = prepare(shop, shadow_admin_url=other.admin_url, rows=2)
        assert made.refused[PRODUCTION].startswith("Access denied for user 'prep_shadow'")
        assert "procedure alone" not in " ".join(made.stripped)
        with enter(other, SHADOW) as session:
            assert ask(session, "SELECT count(*) FROM orders") == [(2,)]
        assert drop_mariadb(other.admin_url, SHADOW, USER)[0] == f"database {SHADOW}"
        assert prepare_mariadb(
            shop.admin_url, PRODUCTION, PRODUCTION, USER, "x", shadow_admin_url=other.admin_url
        ).created
