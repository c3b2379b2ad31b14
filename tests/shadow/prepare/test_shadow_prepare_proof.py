"""Knocking: here, and at production on another server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from live_production import wish
from prepared_server import PASSWORD, enter, rights, url_of

from perflab.demo.stores import PostgresServer
from perflab.errors import ConfigError, ShadowError
from perflab.shadow.prepare import drop_postgresql, prepare
from perflab.shadow.prepare.proof import Knocks, knock_own, login_url, require_confined
from perflab.shadow.prepare.session import open_session
from perflab.shadow.stores import place


@pytest.fixture
def elsewhere(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Give a server apart, and no shadow on it afterwards."""
    yield postgres
    drop_postgresql(postgres.admin_dsn, "shop_shadow", "shop_shadow")


def test_a_shadow_on_a_server_apart(preparing: PostgresServer, elsewhere: PostgresServer) -> None:
    """Only the shadow's server gets a role and a database; production's refuses a login it does not know."""
    # Given
    before, other = rights(preparing), rights(elsewhere)
    wished = wish(elsewhere, source_dsn=preparing.dsn("shop", "app", "app"))

    # When
    with pytest.raises(ConfigError, match="by what shall 'shop_shadow' be kept out"):
        prepare(wished)
    assert rights(elsewhere) == other
    # the owner of production reads it; no superuser's login there is needed
    with psycopg.connect(url_of(preparing, "shop")) as session:
        session.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public, audit TO app")
        session.execute("GRANT USAGE ON SCHEMA audit TO app")
        session.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO app")
    made = prepare(wish(elsewhere, source_dsn=preparing.dsn("shop", "app", "app"), keep_out="separate"))

    # Then
    assert rights(preparing) == before
    assert made.kept_out == "separate"
    assert set(made.refused) == {
        f"127.0.0.1:{preparing.port}/{name}" for name in ("shop", "postgres", "template1")
    }
    with enter(elsewhere, "shop_shadow") as session:
        assert session.execute("INSERT INTO orders (total) VALUES (1) RETURNING id").fetchone() == (
            1_000_000_003,
        )
    assert prepare(wished).created is False


def test_the_same_role_on_production_is_found_out(
    preparing: PostgresServer, elsewhere: PostgresServer
) -> None:
    """Where production's server lets a login of that name in, the shadow's is switched off."""
    with closing(open_session(preparing.admin_dsn)) as session:
        session.execute(f"CREATE ROLE shop_shadow LOGIN PASSWORD '{PASSWORD}'")
        try:
            with pytest.raises(ShadowError, match=r"switched off: 127.0.0.1:\d+/shop: let it in"):
                prepare(wish(elsewhere, source_dsn=url_of(preparing, "shop"), keep_out="separate"))
        finally:
            session.execute("DROP ROLE shop_shadow")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        enter(elsewhere, "shop_shadow")


def test_one_server_is_not_apart_from_itself(preparing: PostgresServer, elsewhere: PostgresServer) -> None:
    """Whatever it is called; and what is for one server is not for two."""
    with pytest.raises(ConfigError, match="the shadow's server is production's own"):
        prepare(
            wish(
                preparing,
                keep_out="separate",
                source_dsn=preparing.admin_dsn.replace("127.0.0.1", "localhost"),
            )
        )
    with pytest.raises(ConfigError, match="'revoke' is for one server"):
        prepare(wish(elsewhere, source_dsn=url_of(preparing, "shop"), keep_out="revoke"))


def test_trouble_switches_a_login_off(prepared: PostgresServer) -> None:
    """Its own database must let it in."""
    knocks = knock_own(prepared.admin_dsn, "shop_shadow", "shop_shadow", "wrong")
    assert knocks.trouble[0].startswith("its own database shop_shadow refused it: ")
    with closing(open_session(prepared.admin_dsn)) as session:
        require_confined(session, "shop_shadow", "shop_shadow", Knocks())
        with pytest.raises(ShadowError, match="not confined to 'shop_shadow' and was switched off: its own"):
            require_confined(session, "shop_shadow", "shop_shadow", knocks)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=10.0.0.5 port=5433 user=a password=b dbname=c",
        "postgresql://a:b@10.0.0.5:5433/c?connect_timeout=9",
    ],
)
def test_a_login_is_put_in_place_of_another(dsn: str) -> None:
    """As an URL, however the place was written; nothing of the other login stays."""
    url = login_url(dsn, "d/b", "ro:le", PASSWORD)
    found = place(url)
    assert (found.host, found.port, found.database) == ("10.0.0.5", 5433, "d/b")
    assert (found.user, found.password) == ("ro:le", PASSWORD)
    assert "connect_timeout" not in url
