"""Shadow databases on a real server: made, cut off, made again, dropped."""

from __future__ import annotations

import psycopg
import pytest
from prepared_server import PASSWORD, enter, url_of

from perflab.demo.stores import PostgresServer
from perflab.errors import ShadowError
from perflab.shadow.prepare import drop_postgresql, prepare_postgresql


def test_the_shadow_login_enters_its_database_and_no_other(prepared: PostgresServer) -> None:
    """Production, postgres and template1 refuse it; its own database does not."""
    # Then
    for database in ("shop", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            enter(prepared, database)
    with enter(prepared, "shop_shadow") as session:
        assert session.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_the_shadow_login_cannot_use_up_the_connections(prepared: PostgresServer) -> None:
    """The sixth session of a login limited to five is refused."""
    sessions = [enter(prepared, "shop_shadow") for _ in range(5)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            enter(prepared, "shop_shadow")
    finally:
        for session in sessions:
            session.close()


def test_preparing_again_keeps_rows_and_renews_the_login(prepared: PostgresServer) -> None:
    """A second run keeps the copy, sets no sequence ahead again, and applies the new password."""
    # Given
    with enter(prepared, "shop_shadow") as session:
        session.execute("INSERT INTO orders (total) VALUES (99)")
    with psycopg.connect(prepared.admin_dsn, autocommit=True) as session:
        session.execute("GRANT app TO shop_shadow")
        session.execute("GRANT CONNECT ON DATABASE shop TO PUBLIC")

    # When: production is in use meanwhile
    with psycopg.connect(url_of(prepared, "shop")):
        made = prepare_postgresql(prepared.admin_dsn, "shop", "shop_shadow", "shop_shadow", "other", 5)

    # Then
    assert (made.created, made.sequences) == (False, 0)
    with psycopg.connect(prepared.dsn("shop_shadow", "shop_shadow", "other")) as session:
        assert session.execute("SELECT max(id) FROM orders WHERE total = 99").fetchone() == (1_000_000_003,)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(prepared.dsn("shop", "shop_shadow", "other"))


def test_what_was_not_made_here_is_never_touched(preparing: PostgresServer) -> None:
    """A database or a role of that name that is somebody's is refused, by making and by dropping."""
    for shadow, role, message in (
        ("postgres", "new_role", "a database 'postgres' exists"),
        ("new_database", "app", "a role 'app' exists"),
    ):
        with pytest.raises(ShadowError, match=message):
            prepare_postgresql(preparing.admin_dsn, "shop", shadow, role, "x")
        with pytest.raises(ShadowError, match=message):
            drop_postgresql(preparing.admin_dsn, shadow, role)
    with pytest.raises(ShadowError, match="a name of its own"):
        prepare_postgresql(preparing.admin_dsn, "shop", "shop", "new_role", "x")


def test_a_database_in_use_is_not_copied(preparing: PostgresServer) -> None:
    """The refusal says why, and what to do."""
    with (
        psycopg.connect(url_of(preparing, "shop")),
        pytest.raises(ShadowError, match="while nobody is connected"),
    ):
        prepare_postgresql(preparing.admin_dsn, "shop", "shop_shadow", "shop_shadow", "x")
    drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")


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
        enter(prepared, "shop_shadow")
    with psycopg.connect(prepared.admin_dsn, autocommit=True) as session:
        session.execute("REVOKE CONNECT ON DATABASE shop FROM shop_shadow")


def test_preparing_takes_a_superuser(preparing: PostgresServer) -> None:
    """Another login is told so, and nothing is left of the attempt."""
    # When
    with pytest.raises(ShadowError, match="use a superuser"):
        prepare_postgresql(preparing.dsn("shop", "app", "app"), "shop", "shop_shadow", "shop_shadow", "x")

    # Then
    with psycopg.connect(preparing.admin_dsn) as session:
        assert session.execute("SELECT FROM pg_roles WHERE rolname = 'shop_shadow'").fetchone() is None
