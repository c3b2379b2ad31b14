"""The approved addresses."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ConfigError, LoadError, TargetRefused
from perflab.load.egress import Address, AllowList, normal_host, parse_address


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "0:0:0:0:0:ffff:7f00:0001",
        "１２７.0.0.1",
        "127。0。0。1",
        "127.0.0.1.",
    ],
)
def test_spellings_of_one_address_are_one(host):
    """Whatever a resolver would take for 127.0.0.1 is 127.0.0.1."""
    assert normal_host(host) == "127.0.0.1"
    assert AllowList(["127.0.0.1:80"]).require(host, 80) == ("127.0.0.1", 80)
    with pytest.raises(TargetRefused, match=r"127\.0\.0\.1:80 is not among"):
        AllowList(["10.0.0.1:80"]).require(host, 80)


@given(st.integers(0, 2**32 - 1))
def test_every_ipv4_address_has_one_spelling(number):
    """Decimal, hex and mapped forms agree for all addresses."""
    plain = str(ipaddress.IPv4Address(number))
    for spelled in (str(number), hex(number), f"::ffff:{plain}"):
        assert normal_host(spelled) == plain


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 81),
        ("127.0.0.2", 80),
        ("localhost", 80),
        ("shop.test.evil", 80),
        ("evilshop.test", 80),
        ("", 80),
        ("shop.test\x00", 80),
        ("shop.test:80@evil", 80),
        ("999.1.1.1.1", 80),
        ("4294967296", 80),
        ("::127.0.0.1", 80),
        ("a" * 300, 80),
    ],
)
def test_everything_else_is_refused(host, port):
    """Near misses are misses, and the message lists what is approved."""
    allowed = AllowList(["127.0.0.1:80", "shop.test:80"])
    with pytest.raises(TargetRefused):
        allowed.require(host, port)
    assert allowed.require("SHOP.test.", 80) == Address("shop.test", 80)


@pytest.mark.parametrize(
    "text", ["shop", "shop:0", "shop:70000", "::1:80", "a b:80", "http://a:80", "[::1]", ""]
)
def test_wrong_addresses_are_named(text):
    """An approved address has a host and a port."""
    with pytest.raises(ConfigError):
        parse_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:80", "[::]:80", "0:80", "224.0.0.1:80", "255.255.255.255:80"])
def test_addresses_of_no_one_machine_cannot_be_approved(text):
    """Wildcards and groups are no targets."""
    with pytest.raises(ConfigError, match="one machine"):
        AllowList([text])


def test_names_are_pinned_once_and_peers_checked():
    """Only what a name stood for before the run is connected to."""
    # Given an approved name and an approved address
    allowed = AllowList(["localhost:80", "10.1.2.3:80"])
    name = allowed.require("localhost", 80)
    # When it was not pinned yet, Then nothing may be connected to
    with pytest.raises(TargetRefused):
        allowed.peers(name)
    asyncio.run(allowed.pin())
    # When pinned, Then its own addresses pass, and no other one, approved elsewhere or not
    assert {peer.host for peer in allowed.peers(name)} <= {"127.0.0.1", "::1"}
    allowed.require_peer(name, allowed.peers(name)[0])
    allowed.require_peer(Address("10.1.2.3", 80), ("::ffff:10.1.2.3", 80, 0, 0))
    for sockaddr in (("10.1.2.3", 80), ("127.0.0.1", 81), ("127.0.0.2", 80)):
        with pytest.raises(TargetRefused, match="reached"):
            allowed.require_peer(name, sockaddr)


def test_names_that_do_not_resolve_are_told():
    """A name of the reserved domain has no address."""
    with pytest.raises(LoadError, match=r"cannot resolve nowhere\.invalid"):
        asyncio.run(AllowList(["nowhere.invalid:80"]).pin())
