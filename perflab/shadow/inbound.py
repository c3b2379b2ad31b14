"""Requests that arrive at an attached service: judged, marked, traced; refused ones never reach its code.

Hooks `flask.Flask` (WSGI) and `starlette.applications.Starlette` (ASGI, FastAPI included). A refused mark
is answered with 403. Unmarked requests are served as without us; their latency is counted, for the guard
that watches real users.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from perflab.shadow import scope
from perflab.shadow.mark import judge
from perflab.shadow.scope import Shadow, process

_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    """The request claims a mark that is not valid."""


def receive(headers: Mapping[str, str]) -> tuple[Context, Shadow | None]:
    """Judge an incoming request's carriers.

    Parameters
    ----------
    headers : mapping
        ``traceparent``, ``tracestate`` and ``baggage`` where present, in lower case.

    Returns
    -------
    tuple of Context and Shadow or None
        The parent's trace context, and the mark, None for ordinary requests.

    Raises
    ------
    Refused
        If it claims a mark that is not valid; its text says why.
    """
    parent = _baggage.extract(headers, _trace_context.extract(headers, Context()))
    trace_id = trace.get_current_span(parent).get_span_context().trace_id
    judgement = judge(
        trace_id, headers.get("tracestate", ""), headers.get("baggage", ""), process.control.live, time.time()
    )
    if judgement.kind == "ordinary":
        return parent, None
    if judgement.kind == "refused":
        process.ledger.mark(f"refused: {judgement.reason}")
        raise Refused(judgement.reason)
    holes = process.ledger.holes(process.service) - process.control.accepted(judgement.tag)
    if holes:
        process.ledger.mark("refused: hole")
        raise Refused("this process would not isolate it: " + "; ".join(sorted(holes)))
    process.ledger.mark("marked")
    return parent, Shadow(judgement.tag, judgement.token, trace_id)


class _Served:
    """One request being served: its context, its span, its clock."""

    def __init__(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self.began_ns = time.perf_counter_ns()
        self.method = method
        parent, self.shadow = receive(headers)
        scope.enter(self.shadow)
        attributes = {"http.request.method": method, "url.path": path}
        self.span = scope.begin(method, SpanKind.SERVER, attributes, parent)
        attach(trace.set_span_in_context(self.span, parent))
        self.status = 0

    def route(self, template: str) -> str:
        """Name the span after the matched route and return that name."""
        name = f"{self.method} {template}"
        self.span.update_name(name)
        self.span.set_attribute("http.route", template)
        return name

    def end(self, error: BaseException | None = None) -> None:
        if self.status:
            self.span.set_attribute("http.response.status_code", self.status)
        if error is None and self.status >= 500:
            self.span.set_attribute("error.type", str(self.status))
            self.span.set_status(trace.Status(trace.StatusCode.ERROR))
        scope.finish(self.span, error)
        if self.shadow is None:
            failed = error is not None or self.status >= 500
            process.ledger.unmarked_request(time.perf_counter_ns() - self.began_ns, failed=failed)


_served: contextvars.ContextVar[_Served | None] = contextvars.ContextVar("perflab_served", default=None)


def hook_flask(module: Any) -> None:
    """Serve every Flask application of this process through `receive`."""
    flask_class = module.Flask
    call, dispatch = flask_class.__call__, flask_class.dispatch_request

    def attached_call(
        app: Any, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return _serve_wsgi(lambda start: call(app, environ, start), environ, start_response)

    def attached_dispatch(app: Any, *arguments: Any) -> Any:
        served = _served.get()
        if served is not None:
            rule = module.request.url_rule
            if rule is not None:
                scope.wait(served.route(_braces(rule.rule)))
        return dispatch(app, *arguments)

    flask_class.__call__ = attached_call
    flask_class.dispatch_request = attached_dispatch


def _serve_wsgi(
    call: Callable[[Callable[..., Any]], Iterable[bytes]],
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> Iterable[bytes]:
    context = contextvars.copy_context()
    headers = {
        name: environ[key]
        for name, key in (
            ("traceparent", "HTTP_TRACEPARENT"),
            ("tracestate", "HTTP_TRACESTATE"),
            ("baggage", "HTTP_BAGGAGE"),
        )
        if key in environ
    }
    try:
        served = context.run(_Served, environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers)
    except Refused as refused:
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [_refusal(refused)]

    def attached_start(status: str, response_headers: Any, exc_info: Any = None) -> Any:
        served.status = int(status[:3])
        return (
            start_response(status, response_headers, exc_info)
            if exc_info
            else start_response(status, response_headers)
        )

    def run() -> Iterable[bytes]:
        _served.set(served)
        return call(attached_start)

    try:
        body = context.run(run)
    except BaseException as error:
        context.run(served.end, error)
        raise
    return _Body(body, context, served)


class _Body:
    """A WSGI answer whose iteration still belongs to the request."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context, served: _Served) -> None:
        self._body, self._context, self._served = body, context, served
        self._iterator: Iterator[bytes] | None = None
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._context.run(iter, self._body)
        try:
            return self._context.run(next, self._iterator)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._end(error)
            raise

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._context.run(self._body.close)
        finally:
            self._end()

    def _end(self, error: BaseException | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._context.run(self._served.end, error)


_Scope = MutableMapping[str, Any]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def hook_starlette(module: Any) -> None:
    """Serve every Starlette or FastAPI application of this process through `receive`."""
    application = module.Starlette
    call = application.__call__

    async def attached_call(app: Any, asgi: _Scope, receive_: Any, send: _Send) -> None:
        if asgi["type"] != "http" or "perflab" in asgi:
            await call(app, asgi, receive_, send)
            return
        asgi["perflab"] = True
        await _serve_asgi(lambda sending: call(app, asgi, receive_, sending), asgi, send)

    application.__call__ = attached_call


async def _serve_asgi(call: Callable[[_Send], Awaitable[None]], asgi: _Scope, send: _Send) -> None:
    wanted = (b"traceparent", b"tracestate", b"baggage")
    headers = {key.decode(): value.decode("latin-1") for key, value in asgi["headers"] if key in wanted}
    try:
        served = _Served(asgi["method"], asgi["path"], headers)
    except Refused as refused:
        await send(
            {
                "type": "http.response.start",
                "status": 403,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "http.response.body", "body": _refusal(refused)})
        return

    async def attached_send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            served.status = message["status"]
            route = getattr(asgi.get("route"), "path", None)
            if route:
                planted = scope.delay_ns(served.route(route))
                if planted:
                    await scope.async_wait(planted)
        await send(message)

    try:
        await call(attached_send)
    except BaseException as error:
        served.end(error)
        raise
    served.end()


def _refusal(refused: Refused) -> bytes:
    why = f"perflab: this request claims to be shadow traffic and was refused: {refused}"
    return json.dumps({"error": why}).encode()


def _braces(rule: str) -> str:
    """Write a werkzeug rule with the braces OpenTelemetry uses: ``/x/<int:id>`` -> ``/x/{id}``."""
    parts = rule.replace(">", "}").split("<")
    return parts[0] + "".join(
        "{" + part.split(":", 1)[-1] if ":" in part.split("}")[0] else "{" + part for part in parts[1:]
    )
