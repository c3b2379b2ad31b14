"""Which change stream a store gets, and what counts as the shadow's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perflab.config import Secret, Store
from perflab.errors import ShadowError
from perflab.shadow.audit.canary import CanaryWatch
from perflab.shadow.audit.captures import open_capture, shadow_login, shadow_tables

MakeSecret = Callable[[str], Secret]
PRODUCTION = "mariadb://127.0.0.1:3306/shop"


@pytest.mark.parametrize(
    ("shadow", "theirs", "ours"),
    [
        ("mariadb://u:p@127.0.0.1:3306/shop_shadow", "shop_shadow.orders", "shop.orders"),
        ("mariadb://u:p@127.0.0.1:3307/shop", "", "shop.orders"),
        ("mariadb://u:p@127.0.0.1:3307/shop_shadow", "", "shop_shadow.orders"),
    ],
)
def test_a_shadow_schema_is_told_from_production_only_on_the_same_server(
    secret: MakeSecret, shadow: str, theirs: str, ours: str
) -> None:
    """A schema of that name on production's server, where the shadow is elsewhere, is searched."""
    is_shadow = shadow_tables(Store("shop", "mariadb", PRODUCTION, secret(shadow)))
    assert not is_shadow(ours)
    assert not theirs or is_shadow(theirs)


def test_the_weaker_modes_name_their_shadow(secret: MakeSecret) -> None:
    """A schema of the same database; tables whose names begin alike."""
    url = secret("postgresql://u:p@127.0.0.1/shop")
    place = "postgresql://127.0.0.1/shop"
    schema = shadow_tables(Store("s", "postgresql", place, url, mode="schema", within="shadow"))
    table = shadow_tables(Store("s", "postgresql", place, url, mode="table", within="pl_"))
    assert [schema(name) for name in ("shadow.orders", "public.shadow")] == [True, False]
    assert [table(name) for name in ("public.pl_orders", "pl_.orders")] == [True, False]


def test_a_login_is_read_from_the_shadows_url(secret: MakeSecret) -> None:
    """Whatever characters are in it."""
    store = Store("s", "mariadb", PRODUCTION, secret("mariadb://a%40b:p@h/the%20shadow"))
    assert shadow_login(store) == ("a@b", "the shadow")


def test_where_nothing_can_be_read_the_first_reason_is_said(secret: MakeSecret) -> None:
    """A server that is not there has no counters either."""
    nowhere = "mariadb://u:p@127.0.0.1:1/shop"
    store = Store("shop", "mariadb", "mariadb://127.0.0.1:1/shop", secret(nowhere), secret(nowhere))
    with pytest.raises(ShadowError, match="no session on MariaDB"):
        open_capture(store, CanaryWatch("shop", "run-7"))
