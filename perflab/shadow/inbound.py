"""Requests that arrive at an attached service: judged, marked, traced; refused ones never reach its code.

`perflab.shadow.inbound_wsgi` and `perflab.shadow.inbound_asgi` hook the frameworks and ask here. A refused
mark is answered with 403. Unmarked requests are served as without us, whatever fails in here; their latency
is counted, for the guard that watches real users.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.shadow import scope
from perflab.shadow.mark import ENTRY, judge
from perflab.shadow.scope import Shadow, process

CARRIERS = ("traceparent", "tracestate", "baggage")
_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request claims a mark that is not valid."""


def receive(headers: Mapping[str, str]) -> tuple[Context, Shadow | None]:
    """Judge an incoming request's carriers.

    Parameters
    ----------
    headers : mapping
        ``traceparent``, ``tracestate`` and ``baggage`` where present, in lower case; a header that came
        several times is joined by commas.

    Returns
    -------
    tuple of Context and Shadow or None
        The parent's trace context, and the mark, None for ordinary requests.

    Raises
    ------
    Refused
        If it claims a mark that is not valid; its text says why.
    """
    if not headers:
        return Context(), None
    parent = _baggage.extract(headers, _trace_context.extract(headers, Context()))
    trace_id = trace.get_current_span(parent).get_span_context().trace_id
    control = process.control
    judgement = judge(
        trace_id,
        headers.get("tracestate", ""),
        headers.get("baggage", ""),
        control.live,
        time.time(),
        control.seen,
    )
    if judgement.kind == "ordinary":
        return parent, None
    if judgement.kind == "refused":
        process.ledger.mark(f"refused: {judgement.reason}")
        raise Refused(judgement.reason)
    holes = process.ledger.holes(process.service) - control.accepted(judgement.tag)
    if holes:
        process.ledger.mark("refused: hole")
        raise Refused("this process would not isolate it: " + "; ".join(sorted(holes)))
    process.ledger.mark("marked")
    return parent, Shadow(judgement.tag, judgement.token, trace_id)


class Served:
    """One request being served: its mark, its span, its clock.

    Made in the context the request is served in, which it enters; `end` may be called more than once and
    never raises; `leave` leaves that context again where others go on using it.
    """

    def __init__(self, method: str, path: str, parent: Context, shadow: Shadow | None) -> None:
        self._began_ns = time.perf_counter_ns()
        self._method = method
        self._ended = False
        self._outer = get_current()
        self._token = scope.enter(shadow)
        self.shadow = shadow
        self.status = 0
        self.span: Span | None = None
        try:
            attributes = {"http.request.method": method, "url.path": _writable(path)}
            self.span = scope.begin(method, SpanKind.SERVER, attributes, parent)
            attach(trace.set_span_in_context(self.span, parent))
        except Exception:
            step_aside("inbound: span")

    def route(self, template: str) -> str:
        """Name the span after the matched route and return that name."""
        name = f"{self._method} {template}"
        if self.span is not None:
            self.span.update_name(name)
            self.span.set_attribute("http.route", template)
        return name

    def end(self, error: BaseException | None = None) -> None:
        """End the span, and count the request if it was a real user's."""
        if self._ended:
            return
        self._ended = True
        if self.shadow is None:
            failed = error is not None or self.status >= 500
            process.ledger.unmarked_request(time.perf_counter_ns() - self._began_ns, failed=failed)
        if self.span is None:
            return
        try:
            if self.status:
                self.span.set_attribute("http.response.status_code", self.status)
            if error is None and self.status >= 500:
                self.span.set_attribute("error.type", str(self.status))
                self.span.set_status(trace.Status(trace.StatusCode.ERROR))
            scope.finish(self.span, error)
        except Exception:
            step_aside("inbound: span")

    def leave(self) -> None:
        """Leave the mark's scope; the code that runs next in this context is not this request's."""
        scope.leave(self._token)
        attach(self._outer)

    @property
    def under_way(self) -> bool:
        """Whether the request is not answered yet."""
        return not self._ended


_served: contextvars.ContextVar[Served | None] = contextvars.ContextVar("perflab_served", default=None)


def begin(method: str, path: str, headers: Mapping[str, str]) -> Served | None:
    """Begin to serve a request in the running context.

    Parameters
    ----------
    method, path : str
        Of the request.
    headers : mapping
        As for `receive`.

    Returns
    -------
    Served or None
        None: serve it as if perflab was not there. It is part of a request that is under way in this context
        (a mounted or embedded application), or it is ordinary and something failed.

    Raises
    ------
    Refused
        If it claims a mark that is not valid, or that could not be judged.
    """
    outer = _served.get()
    if outer is not None and outer.under_way:
        if outer.shadow is None and claims(headers):
            raise Refused("it came from within an ordinary request")
        return None
    try:
        parent, shadow = receive(headers)
    except Refused:
        raise
    except Exception as error:
        if claims(headers):
            raise Refused(f"its mark could not be judged ({type(error).__name__})") from error
        step_aside("inbound: judge")
        return None
    served = Served(method, path, parent, shadow)
    _served.set(served)
    return served


def claims(headers: Mapping[str, str]) -> bool:
    """Tell whether a request's tracestate or baggage speaks of a mark at all."""
    return ENTRY in headers.get("tracestate", "") or ENTRY in headers.get("baggage", "")


def refusal(refused: Refused) -> bytes:
    """Return the body of the answer to a refused request."""
    why = f"perflab: this request claims to be shadow traffic and was refused: {refused}"
    return json.dumps({"error": why}).encode()


def step_aside(where: str) -> None:
    """Count a failure of ours on the way of a request that is served nevertheless."""
    process.ledger.step_aside(where)


def _writable(text: str) -> str:
    """Return text that can be written as UTF-8: one odd path must not cost a whole batch of spans."""
    return text.encode("utf-8", "replace").decode()
