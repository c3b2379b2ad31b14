"""Calls that leave an attached service: traced, and for marked work decided before they are sent.

Marked calls may go to attached services of the target and to peers that are allow-listed; they are
redirected where the peer is stubbed, and refused everywhere else. Hooks the transports of ``requests`` and
``httpx``, so each hop of a redirect is decided anew. Other HTTP clients meet the socket guard.

What is sent is a copy: the request the service made, and what it sees of it afterwards, stay as they were.
An ordinary call carries trace headers only when it is sampled, goes to an attached service and has none of
its own; else not a byte of it changes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.config import Outbound
from perflab.errors import ShadowError
from perflab.shadow import canaries, scope
from perflab.shadow.mark import ENTRY, renewed
from perflab.shadow.scope import process

_Copy = Callable[["_Call", Any], Any]
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
    """Tell the hooks who the peers are; host names are compared in lower case."""
    global peers
    peers = Peers(
        {address.lower(): name for address, name in known.services.items()},
        {address.lower(): rule for address, rule in known.outside.items()},
    )


class _Call:
    """One outgoing request: where it really goes, what it carries, and its span.

    Parameters
    ----------
    method, url : str
        Of the request.
    headers : mapping
        Its headers, only read.
    """

    def __init__(self, method: str, url: str, headers: Mapping[str, Any]) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.peer = peers.name(self.address)
        self.name = f"{method} {self.peer}"
        self.span: Span = scope.begin(
            self.name,
            SpanKind.CLIENT,
            {
                "http.request.method": method,
                "url.path": parts.path.encode("utf-8", "replace").decode(),
                "server.address": host,
                "server.port": port,
                "peer.service": self.peer,
            },
        )
        try:
            self.url = self._decide(url)
            self.carried = self._carried(headers)
        except BaseException as error:
            scope.finish(self.span, error)
            raise

    def planted_ns(self) -> int:
        return scope.delay_ns(self.name, self.peer)

    def watch(self, url: str, body: Any) -> None:
        """Refuse to hand what shadow work sent on as ordinary work, where the target knows the peer."""
        if self.address in peers.services or self.address in peers.outside:
            canaries.watch(self.peer, (url, body))

    def end(self, status: int, error: BaseException | None = None) -> None:
        try:
            if status:
                self.span.set_attribute("http.response.status_code", status)
                if status >= 400:
                    self.span.set_attribute("error.type", str(status))
                    self.span.set_status(trace.Status(trace.StatusCode.ERROR))
            scope.finish(self.span, error)
        except Exception:
            process.ledger.step_aside("outbound: span")

    def _decide(self, url: str) -> str:
        """Return the URL the call goes to; raise ShadowError where marked work may not go."""
        shadow = scope.current()
        if shadow is None:
            return url
        scope.require_live(shadow, self.address)
        if self.address in peers.services:
            process.ledger.outbound(self.peer, "service")
            return url
        rule = peers.outside.get(self.address)
        action = rule.action if rule is not None else "deny"
        process.ledger.outbound(self.peer, action)
        if rule is None or action == "deny":
            scope.refuse(
                self.address, "outgoing calls are denied unless the target lists the peer under 'outbound'"
            )
        if action == "stub":
            self.span.set_attribute("perflab.stubbed_to", rule.to)
            return urlunsplit(urlsplit(url)._replace(netloc=rule.to))
        return url

    def _carried(self, headers: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers to add to, or put in the place of, those of the request."""
        shadow = scope.current()
        ordinary = shadow is None
        if ordinary and (
            "traceparent" in headers
            or self.address not in peers.services
            or not self.span.get_span_context().trace_flags.sampled
        ):
            return {}
        found: dict[str, str] = {}
        context = trace.set_span_in_context(self.span)
        _trace_context.inject(found, context)
        _baggage.inject(found, context)
        if shadow is None or not shadow.token:
            return {name: value for name, value in found.items() if name not in headers}
        token = renewed(shadow.token, process.control.live, time.time())
        for name in ("tracestate", "baggage"):
            found[name] = _with_mark(_text(headers.get(name)) or found.get(name, ""), token)
        return found


def _begin(method: str, url: str, headers: Mapping[str, Any]) -> _Call | None:
    """Decide and begin to trace a call; None: send it as if perflab was not there.

    Raises
    ------
    ShadowError
        If the work is marked and may not make this call, or that could not be decided.
    """
    if scope.permitted() or (scope.suppressed() and scope.current() is None):
        return None  # our own exporter, or the service's
    try:
        return _Call(method, url, headers)
    except ShadowError:
        raise
    except Exception as error:
        if scope.current() is not None:
            raise ShadowError(f"perflab could not decide on a marked call to {url}: {error!r}") from error
        process.ledger.step_aside("outbound: begin")
        return None


def hook_requests(module: Any) -> None:
    """Decide and trace every hop that ``requests`` sends; ``module`` is ``requests.adapters``."""
    adapter = module.HTTPAdapter
    send = adapter.send

    @functools.wraps(send)
    def attached_send(self: Any, request: Any, *arguments: Any, **options: Any) -> Any:
        call = _begin(request.method, request.url, request.headers)
        if call is None:
            return send(self, request, *arguments, **options)
        sent = request
        try:
            call.watch(request.url, request.body)
            sent = _rewritten(call, request, request.url, _requests_copy)
            scope.wait(call.name, call.peer)
            with scope.permit():
                response = send(self, sent, *arguments, **options)
        except BaseException as error:
            if sent is not request and getattr(error, "request", None) is sent:
                error.request = request  # type: ignore[attr-defined]  # what requests' own errors carry
            call.end(0, error)
            raise
        call.end(response.status_code)
        if sent is not request:
            response.request, response.url = request, request.url
        return response

    adapter.send = attached_send


def _requests_copy(call: _Call, request: Any) -> Any:
    sent = request.copy()
    sent.url = call.url
    sent.headers.update(call.carried)
    return sent


def hook_httpx(module: Any) -> None:
    """Decide and trace every hop that ``httpx`` sends, from clients and async clients."""
    transport, async_transport = module.HTTPTransport, module.AsyncHTTPTransport
    copy = functools.partial(_httpx_copy, module)
    transport.handle_request = _attached(transport.handle_request, copy)
    async_transport.handle_async_request = _attached_async(async_transport.handle_async_request, copy)


def _attached(handle: Callable[..., Any], copy: _Copy) -> Callable[..., Any]:
    @functools.wraps(handle)
    def attached(self: Any, request: Any) -> Any:
        call = _begin(request.method, str(request.url), request.headers)
        if call is None:
            return handle(self, request)
        try:
            call.watch(str(request.url), getattr(request, "_content", None))
            scope.wait(call.name, call.peer)
            with scope.permit():
                response = handle(self, _rewritten(call, request, str(request.url), copy))
        except BaseException as error:
            call.end(0, error)
            raise
        call.end(response.status_code)
        return response

    return attached


def _attached_async(handle: Callable[..., Any], copy: _Copy) -> Callable[..., Any]:
    @functools.wraps(handle)
    async def attached(self: Any, request: Any) -> Any:
        call = _begin(request.method, str(request.url), request.headers)
        if call is None:
            return await handle(self, request)
        try:
            call.watch(str(request.url), getattr(request, "_content", None))
            planted = call.planted_ns()
            if planted:
                await scope.async_wait(planted)
            with scope.permit():
                response = await handle(self, _rewritten(call, request, str(request.url), copy))
        except BaseException as error:
            call.end(0, error)
            raise
        call.end(response.status_code)
        return response

    return attached


def _httpx_copy(module: Any, call: _Call, request: Any) -> Any:
    headers: MutableMapping[str, str] = request.headers.copy()
    headers.update(call.carried)
    if call.url != str(request.url):
        headers["host"] = urlsplit(call.url).netloc
    return module.Request(
        request.method, call.url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _rewritten(call: _Call, request: Any, url: str, copy: _Copy) -> Any:
    """Return what is sent: a copy where it differs from the service's own request.

    Raises
    ------
    ShadowError
        If the work is marked and the copy cannot be made.
    """
    if not call.carried and call.url == url:
        return request
    try:
        return copy(call, request)
    except Exception as error:
        if scope.current() is not None:
            raise ShadowError(f"perflab could not mark a call to {url}: {error!r}") from error
        process.ledger.step_aside("outbound: copy")
        return request


def _with_mark(members: str, token: str) -> str:
    """Return a tracestate or baggage header with the mark first and its other members kept."""
    others = [member.strip() for member in members.split(",") if member.partition("=")[0].strip() != ENTRY]
    return ",".join([f"{ENTRY}={token}", *filter(None, others)])


def _text(value: Any) -> str:
    """Return a header's value as text: requests takes bytes too."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
