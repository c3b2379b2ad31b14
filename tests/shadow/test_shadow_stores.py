"""Which store an address means."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from perflab.config import Secret, Store
from perflab.errors import ConfigError
from perflab.shadow.stores import Place, Twin, find, place, read_twins


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://app:s%40crt@db.example:6000/shop", Place("db.example", 6000, "shop", "app", "s@crt")),
        ("postgresql://10.0.0.5/shop", Place("10.0.0.5", 5432, "shop")),
        ("postgresql:///shop?host=/var/run/pg&port=6000&user=app&password=x",
         Place("/var/run/pg", 6000, "shop", "app", "x")),
        ("postgresql://db/?dbname=shop", Place("db", 5432, "shop")),
        ("postgresql://db/shop?hostaddr=10.0.0.5", Place("10.0.0.5", 5432, "shop")),
        ("postgresql://[::1]:6000/shop", Place("::1", 6000, "shop")),
        ("redis://cache", Place("cache", 6379, "0")),
        ("rediss://u:p@cache:7000/3", Place("cache", 7000, "3", "u", "p")),
        ("redis://cache?db=2", Place("cache", 6379, "2")),
        ("unix:///run/redis.sock?db=1", Place("/run/redis.sock", 6379, "1")),
        ("unix://u:p@/run/redis.sock", Place("/run/redis.sock", 6379, "0", "u", "p")),
    ],
)  # fmt: skip
def test_urls_are_read(url: str, expected: Place) -> None:
    """Host, port, database, login, as the drivers read them."""
    assert place(url) == expected


@pytest.mark.parametrize(
    "url", ["postgresql://a:1,b:2/shop", "redis://cache:port/0", "postgresql://a,b/shop"]
)
def test_urls_of_no_one_server_are_refused(url: str) -> None:
    """A store is one server; the message does not repeat a password."""
    with pytest.raises(ConfigError, match="store's URL"):
        place(url)


def test_names_of_one_host_are_one_host() -> None:
    """The loopback by name, by IPv4 and by IPv6; other ports, databases and sockets are others."""
    here = Place("127.0.0.1", 5432, "shop")
    assert here.same_store(Place("localhost", 5432, "shop", "anybody"))
    assert here.same_store(Place("::1", 5432, "shop"))
    for other in (
        Place("127.0.0.1", 5433, "shop"),
        Place("127.0.0.1", 5432, "shop2"),
        Place("/var/run/pg", 5432, "shop"),
        Place("", 5432, "shop"),
        Place("no-such-host.invalid", 5432, "shop"),
        Place("x" * 300, 5432, "shop"),
        Place("10.0.0.5", 5432, "shop"),
    ):
        assert not here.same_store(other), other
    assert here.same_server(Place("localhost", 5432, "other"))
    own = socket.gethostname()
    assert Place(own, 1, "x").same_store(Place(own, 1, "x"))


def _twin(production: str, shadow: str) -> Twin:
    store = Store(shadow, "postgresql", production, Secret(env="unused"))
    return Twin(store, place(production), place(shadow))


def test_find_tells_the_sides_apart() -> None:
    """A separate database is the shadow for every login; on production's own database the login decides."""
    # Given
    apart = _twin("postgresql://127.0.0.1/shop", "postgresql://s@127.0.0.1/shadow")
    within = _twin("postgresql://127.0.0.2/shop", "postgresql://s@127.0.0.2/shop")
    twins = (apart, within)
    # Then
    expected = {
        "postgresql://app@localhost/shop": (apart, "production"),
        "postgresql://s@localhost/shop": (apart, "production"),
        "postgresql://s@127.0.0.1/shadow": (apart, "shadow"),
        "postgresql://admin@127.0.0.1/shadow": (apart, "shadow"),
        "postgresql://app@127.0.0.2/shop": (within, "production"),
        "postgresql://s@127.0.0.2/shop": (within, "shadow"),
    }
    for url, (twin, side) in expected.items():
        found = find(twins, place(url))
        assert found is not None
        assert (found.twin, found.side) == (twin, side), url
    assert find(twins, place("postgresql://127.0.0.3/shop")) is None
    assert find((), place("postgresql://127.0.0.1/shop")) is None


def test_twins_are_read_with_their_secrets(secret: Callable[[str], Secret]) -> None:
    """Of one kind only; a secret that cannot be read is an error that names it."""
    stores = [
        Store("orders", "postgresql", "postgresql://db/shop", secret("postgresql://s:p@db/shadow\n")),
        Store("cache", "redis", "redis://cache", secret("redis://s:p@cache/0")),
    ]
    (twin,) = read_twins(stores, "postgresql")
    assert (twin.store.name, twin.shadow) == ("orders", Place("db", 5432, "shadow", "s", "p"))
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE"):
        read_twins([Store("x", "redis", "redis://c", Secret(env="NOT_SET_ANYWHERE"))], "redis")
