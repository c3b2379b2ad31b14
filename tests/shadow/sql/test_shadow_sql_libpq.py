"""Where a conninfo leads, and what leads it to the shadow."""

from __future__ import annotations

import pytest

from perflab.config import Secret, Store
from perflab.shadow.sql.libpq import LOGIN, places, shadow_login
from perflab.shadow.stores import Place, Twin


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)


def test_parameters_say_where_it_leads():
    """Host, port, database and user as given."""
    given = {"host": "10.0.0.5", "port": "6432", "dbname": "shop", "user": "app"}
    assert places(given) == [Place("10.0.0.5", 6432, "shop", "app")]


def test_what_is_left_out_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """Libpq's variables fill in, and the database defaults to the user's name."""
    monkeypatch.setenv("PGHOST", "db.internal")
    monkeypatch.setenv("PGUSER", "app")
    assert places({}) == [Place("db.internal", 5432, "app", "app")]


def test_several_hosts_are_several_places():
    """One port serves all hosts; addresses go before names."""
    given = {"host": "a,b", "dbname": "shop", "user": "app"}
    assert [(place.host, place.port) for place in places(given)] == [("a", 5432), ("b", 5432)]
    assert [place.host for place in places({**given, "hostaddr": "10.0.0.1"})] == ["10.0.0.1"]


def test_ports_that_do_not_fit_the_hosts_are_refused():
    """Two ports for three hosts lead nowhere that can be told."""
    with pytest.raises(ValueError, match="zip"):
        places({"host": "a,b,c", "port": "1,2"})


def test_the_shadows_login_leaves_nothing_to_the_environment():
    """Every parameter that says where or who is set, but for files that would say it."""
    there = Place("10.0.0.6", 5432, "shop_shadow", "shadow", "secret")
    store = Store("orders", "postgresql", "postgresql://10.0.0.5/shop", Secret(env="X"))
    login = shadow_login(Twin(store, Place("10.0.0.5", 5432, "shop"), there))
    assert login == {
        "host": "10.0.0.6",
        "hostaddr": "",
        "port": "5432",
        "dbname": "shop_shadow",
        "user": "shadow",
        "password": "secret",
    }
    assert set(LOGIN) - set(login) == {"service", "passfile"}
