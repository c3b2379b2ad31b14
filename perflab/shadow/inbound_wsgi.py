"""Flask, and so WSGI: every request of a Flask application passes `perflab.shadow.inbound`.

The request runs in a copy of the thread's context, which the next request of that thread never sees. An
answer that is there as a whole, a list or a file, is handed to the server as it is, so that the server
treats it as it would have; any other is iterated in the request's context.
"""

from __future__ import annotations

import contextvars
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from perflab.shadow import inbound, scope
from perflab.shadow.inbound import Refused, Served

_HEADERS = tuple((name, f"HTTP_{name.upper()}") for name in inbound.CARRIERS)
_PARAMETER = re.compile(r"<(?:[^<>]*:)?([^<>:]+)>")
_ABSENT = object()
_application: contextvars.ContextVar[tuple[Any, Served] | None] = contextvars.ContextVar(
    "perflab_application", default=None
)


def hook_flask(module: Any) -> None:
    """Serve every Flask application of this process through `perflab.shadow.inbound`."""
    flask_class = module.Flask
    call, dispatch = flask_class.__call__, flask_class.full_dispatch_request

    @functools.wraps(call)
    def attached_call(
        app: Any, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return _serve(app, lambda start: call(app, environ, start), environ, start_response)

    @functools.wraps(dispatch)
    def attached_dispatch(app: Any, *arguments: Any) -> Any:
        application = _application.get()
        if application is not None and application[0] is app:
            _application.set(None)  # what it calls of itself has no name in this request
            try:
                environ, rule = module.request.environ, module.request.url_rule
                planted = _name(application[1], environ, rule)
            except Exception:
                inbound.step_aside("inbound: route")
            else:
                scope.wait(planted)
        return dispatch(app, *arguments)

    flask_class.__call__ = attached_call
    flask_class.full_dispatch_request = attached_dispatch


def _name(served: Served, environ: dict[str, Any], rule: Any) -> str:
    """Name the span after the route and return where a delay may be planted, "" for no route."""
    if rule is None:
        return ""
    return served.route(_text(environ.get("SCRIPT_NAME", "")) + _PARAMETER.sub(r"{\1}", rule.rule))


def _serve(
    app: Any,
    call: Callable[[Callable[..., Any]], Iterable[bytes]],
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> Iterable[bytes]:
    context = contextvars.copy_context()
    headers = {name: environ[key] for name, key in _HEADERS if key in environ}
    path = _text(environ.get("SCRIPT_NAME", "")) + _text(environ.get("PATH_INFO", ""))
    try:
        served = context.run(inbound.begin, environ.get("REQUEST_METHOD", ""), path, headers)
    except Refused as refused:
        said = inbound.refusal(refused)
        start_response(
            "403 Forbidden", [("Content-Type", "application/json"), ("Content-Length", str(len(said)))]
        )
        return [said]
    if served is None:
        return call(start_response)

    def attached_start(status: str, headers: Any, exc_info: Any = None) -> Any:
        served.status = int(status[:3]) if status[:3].isdecimal() else 0
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    context.run(_application.set, (app, served))
    before = context.copy()
    try:
        body = context.run(call, attached_start)
    except BaseException as error:
        context.run(served.end, error)
        raise
    finally:
        _give_back(context, before)
    if _is_whole(body, environ):
        context.run(served.end)
        return body
    return _Body(body, context, served)


def _give_back(context: contextvars.Context, before: contextvars.Context) -> None:
    """Set what the application set: a middleware around it may read that (a log record's fields)."""
    for variable, value in context.items():
        if before.get(variable, _ABSENT) is not value:
            variable.set(value)


def _is_whole(body: Any, environ: dict[str, Any]) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper))


class _Body:
    """A WSGI answer whose iteration still belongs to the request."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context, served: Served) -> None:
        self._body, self._context, self._served = body, context, served
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = self._context.run(iter, self._body)
            return self._context.run(next, self._iterator)
        except StopIteration:
            self._context.run(self._served.end)
            raise
        except BaseException as error:
            self._context.run(self._served.end, error)
            raise

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._context.run(self._body.close)
        finally:
            self._context.run(self._served.end)


def _text(part: str) -> str:
    """Read a part of a WSGI environment: UTF-8 that was decoded as Latin-1."""
    return part.encode("latin-1", "replace").decode("utf-8", "replace")
