"""Where the generator may connect to: the approved addresses, and nowhere else.

Names are resolved once, before the run, and the addresses found are pinned: a name that later resolves to
something else changes nothing. Every connection is made to a pinned address and checked once more on the
peer it really reached. Different spellings of one address (``127.1``, ``0x7f000001``, ``2130706433``,
``::ffff:127.0.0.1``) are one address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from perflab.errors import ConfigError, LoadError, TargetRefused

_ADDRESS = re.compile(r"(\[[^\[\]\s]+\]|[^:\[\]\s/@]+):(\d{1,5})")
_NUMERIC = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)(\.(0[xX][0-9a-fA-F]+|\d+)){0,3}")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


class Address(NamedTuple):
    """Host, in its one normal spelling, and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``host:port`` (``[host]:port`` for IPv6).

    Raises
    ------
    ConfigError
        If it is no such thing.

    Examples
    --------
    >>> parse_address("Shop.Test.:8080"), str(parse_address("[::ffff:127.0.0.1]:80"))
    (Address(host='shop.test', port=8080), '127.0.0.1:80')
    """
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise ConfigError(f"{text!r} is not an address; write it as 'host:port' or '[::1]:port'")
    return Address(normal_host(match[1].strip("[]")), int(match[2]))


def normal_host(host: str) -> str:
    """Return the one spelling of a host that comparisons are made on.

    Raises
    ------
    ConfigError
        If it is neither an IP address nor a host name.

    Examples
    --------
    >>> [normal_host(host) for host in ("2130706433", "0x7f.1", "::FFFF:7f00:1", "Shop.Test.")]
    ['127.0.0.1', '127.0.0.1', '127.0.0.1', 'shop.test']
    """
    plain = host
    if ":" not in host:
        try:  # also folds full-width digits and dots, which resolvers take for plain ones
            plain = host.encode("idna").decode("ascii").lower().rstrip(".")
        except UnicodeError as error:
            raise ConfigError(f"{host!r} is not a host name: {error}") from error
    try:
        found = ipaddress.ip_address(plain)
    except ValueError:
        pass
    else:
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return str(mapped or found)
    if _NUMERIC.fullmatch(plain):
        try:
            return socket.inet_ntoa(socket.inet_aton(plain))
        except OSError as error:
            raise ConfigError(f"{host!r} is not an IP address") from error
    if not _NAME.fullmatch(plain):
        raise ConfigError(f"{host!r} is neither an IP address nor a host name")
    return plain


class AllowList:
    """The approved addresses of one target.

    Parameters
    ----------
    addresses : iterable of str
        ``host:port``.

    Raises
    ------
    ConfigError
        If one is not well-formed, or is no address of one machine (``0.0.0.0``, multicast).
    """

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = tuple(dict.fromkeys(parse_address(text) for text in addresses))
        self._pinned: dict[Address, tuple[Address, ...]] = {}
        for address in self._addresses:
            literal = _literal(address.host)
            if literal is not None and not _is_one_machine(literal):
                raise ConfigError(f"{address} is not the address of one machine and cannot be approved")
            if literal is not None:
                self._pinned[address] = (address,)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The approved addresses, in their normal spelling."""
        return self._addresses

    def require(self, host: str, port: int) -> Address:
        """Return the approved address that host and port spell.

        Raises
        ------
        TargetRefused
            If it is not approved; the message lists what is.
        """
        try:
            address = Address(normal_host(host), port)
        except ConfigError as error:
            raise TargetRefused(f"{host}:{port} is refused: {error}") from error
        if address not in self._addresses:
            raise TargetRefused(f"{address} is not among the approved addresses: {self}")
        return address

    async def pin(self) -> None:
        """Resolve every approved name, once; from now on only what was found is connected to.

        Raises
        ------
        LoadError
            If a name cannot be resolved.
        TargetRefused
            If a name stands for nothing but addresses of no one machine, or link-local ones, where clouds
            keep their credentials.
        """
        loop = asyncio.get_running_loop()
        for address in self._addresses:
            if address in self._pinned:
                continue
            try:
                found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise LoadError(f"cannot resolve {address.host}: {error.strerror or error}") from error
            peers = dict.fromkeys(_peer(sockaddr) for *_, sockaddr in found)
            fit = tuple(peer for peer in peers if _may_stand_for_a_name(peer))
            if not fit:
                spelled = ", ".join(str(peer) for peer in peers)
                raise TargetRefused(
                    f"{address} resolves to {spelled}; name that address itself if it is meant"
                )
            self._pinned[address] = fit

    def peers(self, address: Address) -> tuple[Address, ...]:
        """Return the pinned addresses to connect to, IP addresses all.

        Raises
        ------
        TargetRefused
            If the address is not approved or was not pinned.
        """
        try:
            return self._pinned[address]
        except KeyError:
            raise TargetRefused(f"{address} is not among the pinned addresses of: {self}") from None

    def require_peer(self, address: Address, sockaddr: tuple[Any, ...]) -> None:
        """Check the peer a connection really reached, as ``getpeername`` tells it.

        Raises
        ------
        TargetRefused
            If it is not one that was pinned for this address.
        """
        peer = _peer(sockaddr)
        if peer not in self.peers(address):
            raise TargetRefused(f"a connection meant for {address} reached {peer}, which is not approved")

    def __str__(self) -> str:
        return ", ".join(str(address) for address in self._addresses) or "none"


def _peer(sockaddr: tuple[Any, ...]) -> Address:
    return Address(normal_host(str(sockaddr[0])), int(sockaddr[1]))


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_one_machine(literal: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (literal.is_unspecified or literal.is_multicast or str(literal) == "255.255.255.255")


def _may_stand_for_a_name(peer: Address) -> bool:
    literal = _literal(peer.host)
    return literal is not None and _is_one_machine(literal) and not literal.is_link_local
