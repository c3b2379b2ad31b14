"""A shadow as it stands: each thing that is not as it must be is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from live_production import wish
from prepared_server import PASSWORD, url_of

from perflab.demo.stores import PostgresServer
from perflab.shadow.prepare import prepare
from perflab.shadow.prepare.proof import login_url
from perflab.shadow.prepare.session import open_session
from perflab.shadow.prepare.standing import look_at_postgresql

Look = Callable[[], dict[str, tuple[str, str]]]


@pytest.fixture
def look(live: PostgresServer) -> Iterator[Look]:
    """Prepare a shadow; ``look()`` tells how it stands."""
    prepare(wish(live, keep_out="revoke"))

    def looked() -> dict[str, tuple[str, str]]:
        production = f"postgresql://127.0.0.1:{live.port}/shop"
        shadow = login_url(production, "shop_shadow", "shop_shadow", PASSWORD)
        checks = look_at_postgresql(production, shadow, live.admin_dsn)
        return {check.what: (check.state, check.text) for check in checks}

    return looked


def change(server: PostgresServer, database: str, *statements: str) -> None:
    """Do something as the superuser."""
    with closing(open_session(url_of(server, database))) as session:
        for statement in statements:
            session.execute(statement)


def test_a_good_shadow_has_nothing_bad(look: Look) -> None:
    """And everything that can be told is told."""
    found = look()
    assert {state for state, _ in found.values()} == {"good"}
    assert found["confined"][1] == "refused by shop, postgres, template1 when it tried"
    assert found["connections"][1] == "at most 49; a quarter of the server's is 49"
    assert found["kept out by"][1] == "revoke: PUBLIC may not enter postgres, shop, template1"
    assert "ahead of production's by " in found["sequences"][1]
    assert found["age"] == ("good", "0 h")


def test_without_a_reader_production_is_not_compared(live: PostgresServer) -> None:
    """What cannot be looked at is not called good."""
    prepare(wish(live, keep_out="revoke"))
    production = f"postgresql://127.0.0.1:{live.port}/shop"
    shadow = login_url(production, "shop_shadow", "shop_shadow", PASSWORD)
    found = {check.what: check.state for check in look_at_postgresql(production, shadow)}
    assert found["schema"] == found["sequences"] == "unknown"
    assert found["confined"] == "good"


def test_no_shadow_is_told(live: PostgresServer) -> None:
    """With what the server said."""
    production = f"postgresql://127.0.0.1:{live.port}/shop"
    shadow = login_url(production, "shop_shadow", "shop_shadow", PASSWORD)
    (check,) = look_at_postgresql(production, shadow)
    assert (check.what, check.state) == ("there", "bad")
    assert "password authentication failed" in check.text


def test_a_changed_schema_is_found(live: PostgresServer, look: Look) -> None:
    """What changed in production is named; --refresh makes it good again."""
    change(live, "shop", "ALTER TABLE people ADD COLUMN shoe int")
    try:
        named = "column public.people.shoe"
        assert look()["schema"] == (
            "bad",
            f"production's has changed since; prepare --refresh. {named} is new in production",
        )
        prepare(wish(live, refresh=True))
        assert look()["schema"][0] == "good"
    finally:
        change(live, "shop", "ALTER TABLE people DROP COLUMN shoe")


def test_ids_production_has_reached_are_found(live: PostgresServer, look: Look) -> None:
    """A sequence of the shadow that production has passed is named."""
    change(live, "shop_shadow", "SELECT setval('people_id_seq', 7)")
    assert look()["sequences"] == ("bad", "production has reached public.people_id_seq; prepare --refresh")


def test_a_login_with_more_than_it_should_have_is_found(live: PostgresServer, look: Look) -> None:
    """Groups, powers, an open database, no limit, and what reaches outside."""
    change(
        live,
        "shop_shadow",
        "GRANT pg_read_all_data TO shop_shadow",
        "ALTER ROLE shop_shadow CREATEDB CONNECTION LIMIT -1",
        "GRANT CONNECT ON DATABASE shop TO PUBLIC",
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER again ON ddl_command_end EXECUTE FUNCTION e()",
    )
    found = look()
    assert found["login"] == ("bad", "it has CREATEDB; it is a member of pg_read_all_data")
    assert found["connections"][0] == "bad"
    assert found["confined"] == ("bad", "shop: let it in")
    assert found["reaches out"] == ("bad", "event trigger again")

    # and preparing again mends it
    prepare(wish(live, keep_out="revoke"))
    assert {state for state, _ in look().values()} == {"good"}
