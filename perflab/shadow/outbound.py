"""Calls that leave an attached service: traced, and for marked work decided before they are sent.

Marked calls may go to attached services of the target and to peers that are allow-listed; they are
redirected where the peer is stubbed, and refused everywhere else. Hooks the transports of ``requests`` and
``httpx``, so each hop of a redirect is decided anew. Other HTTP clients meet the socket guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.config import Outbound
from perflab.shadow import scope
from perflab.shadow.scope import process

_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()


@dataclass(frozen=True, slots=True)
class Peers:
    """Who the services' peers are, by ``host:port``.

    Parameters
    ----------
    services : mapping of str to str
        Address -> name of the attached services.
    outside : mapping of str to Outbound
        Address -> what marked work may do with it.
    """

    services: Mapping[str, str]
    outside: Mapping[str, Outbound]

    def name(self, address: str) -> str:
        """Return what tables call the peer at an address."""
        if address in self.outside:
            return self.outside[address].name
        return self.services.get(address, address)


peers = Peers({}, {})


def set_peers(known: Peers) -> None:
    """Tell the hooks who the peers are."""
    global peers
    peers = known


class _Call:
    """One outgoing request: where it really goes, and its span."""

    def __init__(self, method: str, url: str, headers: Any) -> None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = f"{parts.hostname}:{port}"
        self.peer = peers.name(address)
        self.name = f"{method} {self.peer}"
        self.span: Span = scope.begin(
            self.name,
            SpanKind.CLIENT,
            {
                "http.request.method": method,
                "url.path": parts.path,
                "server.address": parts.hostname or "",
                "server.port": port,
                "peer.service": self.peer,
            },
        )
        try:
            self.url = self._decide(url, address)
        except BaseException as error:
            scope.finish(self.span, error)
            raise
        context = trace.set_span_in_context(self.span)
        _trace_context.inject(headers, context)
        _baggage.inject(headers, context)
        shadow = scope.current()
        if shadow is not None and shadow.token:
            scope.mark_headers(headers, shadow)

    def planted_ns(self) -> int:
        return scope.delay_ns(self.name, self.peer)

    def end(self, status: int, error: BaseException | None = None) -> None:
        if status:
            self.span.set_attribute("http.response.status_code", status)
            if status >= 400:
                self.span.set_attribute("error.type", str(status))
                self.span.set_status(trace.Status(trace.StatusCode.ERROR))
        scope.finish(self.span, error)

    def _decide(self, url: str, address: str) -> str:
        """Return the URL the call goes to; raise ShadowError where marked work may not go."""
        shadow = scope.current()
        if shadow is None:
            return url
        scope.require_live(shadow, address)
        if address in peers.services:
            process.ledger.outbound(self.peer, "service")
            return url
        rule = peers.outside.get(address)
        action = rule.action if rule is not None else "deny"
        process.ledger.outbound(self.peer, action)
        if rule is None or action == "deny":
            scope.refuse(
                address, "outgoing calls are denied unless the target lists the peer under 'outbound'"
            )
        if rule is not None and action == "stub":
            self.span.set_attribute("perflab.stubbed_to", rule.to)
            return urlunsplit(urlsplit(url)._replace(netloc=rule.to))
        return url


def hook_requests(module: Any) -> None:
    """Decide and trace every hop that ``requests`` sends."""
    adapter = module.HTTPAdapter
    send = adapter.send

    def attached_send(self: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        if scope.suppressed():
            return send(self, request, *arguments, **options)
        call = _Call(request.method, request.url, request.headers)
        request.url = call.url
        try:
            scope.wait(call.name, call.peer)
            with scope.permit():
                response = send(self, request, *arguments, **options)
        except BaseException as error:
            call.end(0, error)
            raise
        call.end(response.status_code)
        return response

    adapter.send = attached_send


def hook_httpx(module: Any) -> None:
    """Decide and trace every hop that ``httpx`` sends, from clients and async clients."""
    transport, async_transport = module.HTTPTransport, module.AsyncHTTPTransport
    handle, handle_async = transport.handle_request, async_transport.handle_async_request

    def prepare(request: Any) -> _Call:
        call = _Call(request.method, str(request.url), request.headers)
        if call.url != str(request.url):
            request.url = module.URL(call.url)
        return call

    def attached_handle(self: Any, request: Any) -> Any:
        call = prepare(request)
        try:
            scope.wait(call.name, call.peer)
            with scope.permit():
                response = handle(self, request)
        except BaseException as error:
            call.end(0, error)
            raise
        call.end(response.status_code)
        return response

    async def attached_handle_async(self: Any, request: Any) -> Any:
        call = prepare(request)
        try:
            planted = call.planted_ns()
            if planted:
                await scope.async_wait(planted)
            with scope.permit():
                response = await handle_async(self, request)
        except BaseException as error:
            call.end(0, error)
            raise
        call.end(response.status_code)
        return response

    transport.handle_request = attached_handle
    async_transport.handle_async_request = attached_handle_async
