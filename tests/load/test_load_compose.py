"""From endpoints to bytes."""

from __future__ import annotations

import pytest

from perflab.errors import TargetRefused
from perflab.load.arrivals import Arrivals
from perflab.load.compose import Composer
from perflab.load.egress import AllowList
from perflab.load.plan import Plan
from perflab.traffic.scenario import Endpoint, Scenario


def compose(endpoint, addresses=("127.0.0.1:8080", "[::1]:443", "shop.test:80"), **more):
    """Compose one request and return its lines."""
    plan = Plan("r", Scenario("s", (endpoint,)), addresses, arrivals=Arrivals.constant(1, "1s"), **more)
    composer = Composer(plan, AllowList(addresses))
    data = composer.compose(composer.kinds[0], composer.identify(), 0, {})
    return composer.kinds[0], data.decode().split("\r\n")


@pytest.mark.parametrize(
    ("url", "address", "tls", "host"),
    [
        ("/a", "127.0.0.1:8080", False, "127.0.0.1:8080"),
        ("http://127.1:8080/a", "127.0.0.1:8080", False, "127.0.0.1:8080"),
        ("https://[::1]/a", "[::1]:443", True, "[::1]"),
        ("http://SHOP.test/a", "shop.test:80", False, "shop.test"),
    ],
)
def test_hosts_are_where_the_url_says(url, address, tls, host):
    """Relative URLs go to the first address; default ports are left out of the host header."""
    kind, lines = compose(Endpoint("a", url))
    assert (str(kind.origin.address), kind.origin.tls) == (address, tls)
    assert lines[0] == "GET /a HTTP/1.1"
    assert f"host: {host}" in lines


def test_a_scenarios_baggage_follows_the_mark(mark):
    """Both arrive in one header, the mark first; its own user agent replaces ours."""
    endpoint = Endpoint("a", "/", headers={"Baggage": "tenant=7", "User-Agent": "shop-app"})
    _, lines = compose(endpoint, mark=mark)
    baggage = [line for line in lines if line.startswith("baggage: ")]
    assert len(baggage) == 1
    assert baggage[0].startswith(f"baggage: perflab=2.{mark.tag:04x}.")
    assert baggage[0].endswith(",tenant=7")
    assert [line for line in lines if line.startswith("user-agent")] == ["user-agent: shop-app"]
    # and without a mark it is left as it is
    assert "baggage: tenant=7" in compose(endpoint)[1]


def test_addresses_elsewhere_are_refused():
    """A host that is not approved, or a port."""
    for url in ("http://evil.test/", "http://shop.test:81/", "https://shop.test/"):
        with pytest.raises(TargetRefused):
            compose(Endpoint("a", url))
