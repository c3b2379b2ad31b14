"""Requests that arrive at an attached service: judged, marked, traced; refused ones never reach its code.

`perflab.shadow.inbound_wsgi` and `perflab.shadow.inbound_asgi` hook the frameworks and ask here. A refused
mark is answered with 403. Unmarked requests are served as without us, whatever fails in here; their latency
is counted, for the guard that watches real users.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.shadow import scope
from perflab.shadow.handoff import serving
from perflab.shadow.mark import ENTRY, judge
from perflab.shadow.scope import Shadow, process

CARRIERS = ("traceparent", "tracestate", "baggage")
_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()
_NOWHERE = Context()
_UNNAMED = object()
_TRACE_ID = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}(?![0-9a-fA-F])")


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request claims a mark that is not valid."""


def receive(headers: Mapping[str, str], *, waited: bool = False) -> tuple[Context, Shadow | None]:
    """Judge the carriers of an incoming request, or of a message.

    Parameters
    ----------
    headers : mapping
        ``traceparent``, ``tracestate`` and ``baggage`` where present, in lower case; a header that came
        several times is joined by commas.
    waited : bool
        Whether it is a message: it may have waited for longer than a token lives, and be delivered again.

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
        return _NOWHERE, None
    parent = _baggage.extract(headers, _trace_context.extract(headers, Context()))
    caller = trace.get_current_span(parent).get_span_context()
    control = process.control
    trace_id = caller.trace_id or _bent(headers.get("traceparent", ""))
    judgement = judge(
        trace_id,
        headers.get("tracestate", ""),
        headers.get("baggage", ""),
        control.live,
        time.time(),
        control.seen,
        waited=waited,
    )
    if judgement.kind == "ordinary":
        return parent, None
    if judgement.kind == "refused":
        _refuse(judgement.reason)
    holes = process.ledger.holes(process.service) - control.accepted(judgement.tag)
    if holes:
        process.ledger.mark("refused: hole")
        raise Refused("this process would not isolate it: " + "; ".join(sorted(holes)))
    if not waited and not control.arrivals.is_first(judgement.nonce, caller.span_id):
        _refuse("replayed")
    process.ledger.mark("marked")
    return parent, Shadow(judgement.tag, judgement.token, trace_id)


def _bent(traceparent: str) -> int:
    """Return a trace-id that was made for a run from a header that is none: sent twice, cut off."""
    for found in _TRACE_ID.findall(traceparent):
        trace_id = int(found, 16)
        if trace_id >> 112 in process.control.seen:
            return trace_id
    return 0


def _refuse(reason: str) -> NoReturn:
    process.ledger.mark(f"refused: {reason}")
    raise Refused(reason)


class Served:
    """One request being served: its mark, its span, its clock.

    Made in the context the request is served in, which it enters (`leave` leaves it again where others go on
    using it); `end` may be called more than once and never raises.
    """

    under_way = True
    """Whether the request is not answered yet."""
    status = 0
    operation = ""
    adopted = False
    """Whether an application names it that a server began."""
    span: Span | None = None

    def __init__(
        self,
        method: str,
        path: str,
        parent: Context,
        shadow: Shadow | None,
        carried: Mapping[str, str],
        application: Any,
    ) -> None:
        self._began_ns = time.perf_counter_ns()
        self.carried = carried
        """Was judged: an application within that is asked with the same need not judge again."""
        self.application = application
        self._method = method
        self.shadow = shadow
        if scope.marked() is not shadow:
            scope.enter(shadow)
        try:
            written = path if path.isascii() else _writable(path)
            attributes = {"http.request.method": method, "url.path": written}
            self.span = scope.begin(method, SpanKind.SERVER, attributes, parent)
            attach(Context({**parent, _SPAN_KEY: self.span}))
        except Exception:
            step_aside("inbound: span")
        scope.leave_out(self.span)

    def route(self, template: str) -> str:
        """Name the span after the matched route and return that name."""
        self.operation = f"{self._method} {template}"
        if self.span is not None:
            self.span.update_name(self.operation)
            self.span.set_attribute("http.route", template)
        return self.operation

    def end(self, error: BaseException | None = None) -> None:
        """End the span, and count the request if it was a real user's."""
        if not self.under_way:
            return
        self.under_way = False
        if self.shadow is None:
            failed = error is not None or self.status >= 500
            process.ledger.unmarked_request(time.perf_counter_ns() - self._began_ns, failed=failed)
        if self.span is None or not self.span.is_recording():
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


def begin(method: str, path: str, headers: Mapping[str, str], application: Any = None) -> Served | None:
    """Begin to serve a request in the running context.

    Parameters
    ----------
    method, path : str
        Of the request.
    headers : mapping
        As for `receive`.
    application
        Who serves it, for `unnamed`; None: a server, and the first application it calls is to `adopt` it.

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
    outer = under_way()
    if outer is not None:
        check_within(outer, headers)
        return None
    return begin_outermost(method, path, headers, application)


def begin_outermost(
    method: str, path: str, headers: Mapping[str, str], application: Any = None
) -> Served | None:
    """Begin to serve a request where none is under way: `begin`, for who knows.

    Parameters
    ----------
    method, path, headers, application
        As there.

    Raises
    ------
    Refused
        As there.
    """
    try:
        parent, shadow = receive(headers) if headers else (_NOWHERE, None)
    except Refused:
        raise
    except Exception as error:
        if claims(headers):
            raise Refused(f"its mark could not be judged ({type(error).__name__})") from error
        step_aside("inbound: judge")
        return None
    served = Served(method, path, parent, shadow, headers, application)
    serving.set(served)
    return served


def standing() -> tuple[Shadow | None, Context]:
    """Return what the running context is before it serves a request, for `leave`."""
    return scope.marked(), get_current()


def leave(before: tuple[Shadow | None, Context]) -> None:
    """Leave a request's mark and span: the code that runs next in this context is not this request's."""
    scope.enter(before[0])
    scope.leave_out(None)
    attach(before[1])


def under_way() -> Any:
    """Return the request that is under way in the running context, a `Served`, or None."""
    outer = serving.get()
    return outer if outer is not None and outer.under_way else None


def check_within(outer: Served, headers: Mapping[str, str]) -> None:
    """Check a request that is made of an application within one that is under way, and part of it.

    Raises
    ------
    Refused
        If it claims a mark, and the outer one is ordinary.
    """
    if outer.shadow is None and claims(headers) and headers != outer.carried:
        raise Refused("it came from within an ordinary request")


def adopt(application: Any) -> Served | None:
    """Have an application name the request that a server began; None where another does."""
    served: Served | None = serving.get()
    if served is None or served.application is not None or application is None:
        return None
    served.application = application
    served.adopted = True
    return served


def unnamed(application: Any) -> Served | None:
    """Return the request an application serves, the first time it asks; None where it calls itself."""
    served: Served | None = serving.get()
    if served is None or served.application is not application:
        return None
    served.application = _UNNAMED
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
