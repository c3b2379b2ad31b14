"""From an endpoint to the bytes of one marked request."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from perflab import __version__
from perflab.errors import ConfigError
from perflab.load.connection import Origin
from perflab.load.egress import AllowList
from perflab.load.http1 import write_request
from perflab.load.plan import Plan
from perflab.shadow.mark import mint
from perflab.traffic.answer import Judge
from perflab.traffic.request import Context, RequestTemplate

_USER_AGENT = f"perflab/{__version__}".encode()
_LOW_64 = 0xFFFF_FFFF_FFFF_FFFF


class Kind(NamedTuple):
    """An endpoint, compiled: ``at`` is its position in the scenario, ``peer`` that of its address."""

    at: int
    name: str
    template: RequestTemplate
    judge: Judge
    needs: frozenset[str]
    origin: Origin
    host: bytes
    peer: int


class Identity(NamedTuple):
    """Ids of one request and the headers that carry them."""

    trace_id: int
    span_id: int
    headers: dict[bytes, bytes]

    @property
    def trace_high(self) -> int:
        """First 64 bits of the trace id."""
        return self.trace_id >> 64

    @property
    def trace_low(self) -> int:
        """Last 64 bits of the trace id."""
        return self.trace_id & _LOW_64


class Composer:
    """Composes the requests of a plan.

    Parameters
    ----------
    plan : Plan
        Its scenario, run id and key.
    allowed : AllowList
        Addresses that endpoints may name.

    Attributes
    ----------
    kinds : tuple of Kind
        The endpoints, compiled.

    Raises
    ------
    TargetRefused
        If an endpoint's address is not approved.
    ConfigError
        If none is approved at all.
    """

    def __init__(self, plan: Plan, allowed: AllowList) -> None:
        if not allowed.addresses:
            raise ConfigError("the plan approves no address; a target names at least one")
        self.kinds = tuple(_compile(plan, allowed))
        self._canary = f"plc-{plan.run_id}-"
        self._run_key = plan.mark.run_key() if plan.mark else None
        self._fill = random.Random(plan.scenario.seed if plan.seed is None else plan.seed)
        self._ids = random.Random(os.urandom(16))  # ids never repeat, also when a run is repeated

    def identify(self) -> Identity:
        """Return new ids: marked with the run's key, or, without one, an ordinary sampled trace."""
        span_id = self._ids.getrandbits(64) or 1
        if self._run_key is None:
            trace_id = self._ids.getrandbits(128) or 1
            parent = b"00-%032x-%016x-01" % (trace_id, span_id)
            return Identity(trace_id, span_id, {b"traceparent": parent})
        mark = mint(self._run_key, self._ids.getrandbits(64))
        headers = mark.headers(span_id).items()
        return Identity(mark.trace_id, span_id, {name.encode(): value.encode() for name, value in headers})

    def compose(self, kind: Kind, identity: Identity, seq: int, captured: dict[str, Any]) -> bytes:
        """Return the bytes of one request.

        The scenario's own baggage follows the mark's; its own user agent replaces ours.

        Raises
        ------
        TrafficError
            If a captured value cannot stand in its place.
        """
        canary = f"{self._canary}{identity.trace_id:032x}"
        request = kind.template.build(Context(canary, seq, self._fill, captured))
        own = dict(identity.headers)
        given = dict(request.headers)
        if b"baggage" in given and b"baggage" in own:
            own[b"baggage"] += b"," + given.pop(b"baggage")
            request = request._replace(headers=tuple(given.items()))
        if b"user-agent" not in given:
            own[b"user-agent"] = _USER_AGENT
        return write_request(request, kind.host, b"".join(b"%s: %s\r\n" % pair for pair in own.items()))


def _compile(plan: Plan, allowed: AllowList) -> Iterator[Kind]:
    for at, endpoint in enumerate(plan.scenario.endpoints):
        template = endpoint.template()
        address = allowed.addresses[0]
        if template.host:
            address = allowed.require(template.host, template.port)
        tls = template.scheme == "https"
        host = str(address)
        if address.port == (443 if tls else 80):
            host = host.rpartition(":")[0]
        yield Kind(
            at,
            endpoint.name,
            template,
            endpoint.judge(),
            template.captured,
            Origin(address, tls),
            host.encode("ascii"),
            allowed.addresses.index(address),
        )
