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

from perflab.shadow import canaries, inbound, scope
from perflab.shadow.inbound import Refused, Served
from perflab.shadow.scope import process

_HEADERS = tuple((name, f"HTTP_{name.upper()}") for name in inbound.CARRIERS)
_PARENT, _STATE, _BAGGAGE = (key for _, key in _HEADERS)
_NONE: dict[str, str] = {}
_PARAMETER = re.compile(r"<(?:[^<>]*:)?([^<>:]+)>")
_ABSENT = object()


def hook_flask(module: Any) -> None:
    """Serve every Flask application of this process through `perflab.shadow.inbound`."""
    flask_class = module.Flask
    call, dispatch = flask_class.__call__, flask_class.full_dispatch_request

    @functools.wraps(call)
    def attached_call(
        app: Any, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return serve(app, functools.partial(call, app), environ, start_response)

    @functools.wraps(dispatch)
    def attached_dispatch(app: Any, *arguments: Any) -> Any:
        if scope.unnamed():
            return dispatch(app, *arguments)
        served = inbound.unnamed(app)
        if served is not None:
            try:
                environ, rule = module.request.environ, module.request.url_rule
                planted = _name(served, environ, rule)
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


def serve(
    app: Any,
    call: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]],
    environ: dict[str, Any],
    start_response: Callable[..., Any],
) -> Iterable[bytes]:
    """Serve a WSGI request: judged, in a context of its own, with its span.

    Parameters
    ----------
    app
        The application, for `inbound.unnamed`; None: a server calls it (`perflab.shadow.inbound_servers`).
    call : callable
        Has it answer, as a server does.
    environ, start_response
        As the server called it.
    """
    headers = _NONE
    if _PARENT in environ or _STATE in environ or _BAGGAGE in environ:
        headers = {name: environ[key] for name, key in _HEADERS if key in environ}
    outer = inbound.under_way()
    try:
        if outer is not None:
            served = None
            if headers:
                inbound.check_within(outer, headers)
        else:
            context = contextvars.copy_context()
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            path = path if path.isascii() else _text(path)
            served = context.run(
                inbound.begin_outermost, environ.get("REQUEST_METHOD", ""), path, headers, app
            )
    except Refused as refused:
        said = inbound.refusal(refused)
        start_response(
            "403 Forbidden", [("Content-Type", "application/json"), ("Content-Length", str(len(said)))]
        )
        return [said]
    if served is None:
        if outer is not None:
            inbound.adopt(app)
        return call(environ, start_response)

    def attached_start(status: str, headers: Any, exc_info: Any = None) -> Any:
        served.status = int(status[:3]) if status[:3].isdecimal() else 0
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    before = context.copy()
    try:
        body = context.run(call, environ, attached_start)
    except BaseException as error:
        context.run(served.end, error)
        raise
    finally:
        _give_back(context, before)
    if _is_whole(body, environ):
        context.run(served.end)
        if process.control.canaries and served.shadow is None:
            canaries.watch_answer(body)
        return body
    return _Body(body, context, served)


def _give_back(context: contextvars.Context, before: contextvars.Context) -> None:
    """Set what the application set: a middleware around it may read that (a log record's fields)."""
    was = before.get
    for variable, value in context.items():
        if was(variable, _ABSENT) is not value:
            variable.set(value)


def _is_whole(body: Any, environ: dict[str, Any]) -> bool:
    if isinstance(body, (list, tuple)):
        return True
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Body:
    """A WSGI answer whose iteration still belongs to the request."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context, served: Served) -> None:
        self._body, self._run, self._served = body, context.run, served
        self._next: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._next is None:
                self._next = self._run(iter, self._body).__next__
            piece = self._run(self._next)
        except StopIteration:
            self._run(self._served.end)
            raise
        except BaseException as error:
            self._run(self._served.end, error)
            raise
        if process.control.canaries and self._served.shadow is None:
            canaries.watch_answer(piece)
        return piece

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._run(self._body.close)
        finally:
            if self._served.under_way:
                self._run(self._served.end)


def _text(part: str) -> str:
    """Read a part of a WSGI environment: UTF-8 that was decoded as Latin-1."""
    return part.encode("latin-1", "replace").decode("utf-8", "replace")
