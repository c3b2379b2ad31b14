"""Closing databases takes nothing from anybody, and is undone exactly."""

from __future__ import annotations

import psycopg
import pytest
from prepared_server import PASSWORD, rights

from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare import drop_postgresql, prepare_postgresql


def test_roles_of_production_lose_nothing(prepared: PostgresServer) -> None:
    """Owner and other logins enter production and make temporary tables as before; not the shadow."""
    for role in ("app", "reporting"):
        with psycopg.connect(prepared.dsn("shop", role, role)) as session:
            session.execute("CREATE TEMP TABLE t (id int)")
        with psycopg.connect(prepared.dsn("postgres", role, role)) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(prepared.dsn("shop_shadow", role, role))


def test_databases_stay_closed_while_another_shadow_needs_it(preparing: PostgresServer) -> None:
    """Of two shadows, dropping the first opens nothing to the second; dropping the last opens all."""
    # Given
    before = rights(preparing)
    for name in ("one", "two"):
        prepare_postgresql(preparing.admin_dsn, "shop", name, name, name)

    # When
    drop_postgresql(preparing.admin_dsn, "one", "one")

    # Then
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(preparing.dsn("shop", "two", "two"))
    drop_postgresql(preparing.admin_dsn, "two", "two")
    assert rights(preparing) == before


def test_dropping_leaves_the_server_as_it_was(preparing: PostgresServer) -> None:
    """Databases, roles and everybody's rights are those of before; dropping again does nothing."""
    # Given
    before = rights(preparing)
    prepare_postgresql(preparing.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD)
    assert rights(preparing) != before

    # When
    done = drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")

    # Then
    assert rights(preparing) == before
    assert {"database shop_shadow", "role shop_shadow"} < set(done)
    assert drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow") == ()
