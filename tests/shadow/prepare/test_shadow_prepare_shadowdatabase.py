"""What is inside a shadow database."""

from __future__ import annotations

import psycopg
from prepared_server import PASSWORD, enter, url_of

from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare import drop_postgresql, prepare_postgresql


def test_the_shadow_login_may_do_in_the_copy_what_applications_do(prepared: PostgresServer) -> None:
    """Rows, DDL, functions, procedures, sequences, truncation, large objects, other schemas: all its own."""
    with enter(prepared, "shop_shadow") as session:
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
    with enter(prepared, "shop_shadow") as session:
        # When
        order = session.execute("INSERT INTO orders (total) VALUES (1) RETURNING id").fetchone()
        small = session.execute("INSERT INTO small DEFAULT VALUES RETURNING id, n").fetchone()

    # Then: smallint ends at 32767; the identity runs down from -1
    assert order == (1_000_000_003,)
    assert small == (1 + (32767 - 1) // 2 + 1, -1_000_000_002)


def test_what_reaches_outside_is_stripped(preparing: PostgresServer) -> None:
    """Event triggers and foreign servers are gone from the copy, and the result says so."""
    # When
    made = prepare_postgresql(preparing.admin_dsn, "shop", "shop_shadow", "shop_shadow", PASSWORD, 5)

    # Then
    assert set(made.stripped) == {"event trigger watcher", "foreign server other"}
    assert set(made.refused) == {"shop", "postgres", "template1"}
    with psycopg.connect(url_of(preparing, "shop_shadow")) as session:
        assert session.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
        assert session.execute("SELECT to_regclass('remote')").fetchone() == (None,)
    drop_postgresql(preparing.admin_dsn, "shop_shadow", "shop_shadow")


def test_the_databases_settings_come_along(prepared: PostgresServer) -> None:
    """What ALTER DATABASE SET says of production holds in the shadow."""
    with enter(prepared, "shop_shadow") as session:
        assert session.execute("SHOW search_path").fetchone() == ('"$user", public, audit',)
        assert session.execute("SHOW statement_timeout").fetchone() == ("7s",)
