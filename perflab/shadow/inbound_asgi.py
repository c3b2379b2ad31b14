"""Starlette and FastAPI, and so ASGI: every request of such an application passes `perflab.shadow.inbound`.

A request ends, for its span and for the real users' clock, with the last byte of its answer: background
tasks that follow keep its mark, but nobody waits for them. A marked WebSocket is refused: it outlives what
was judged. Unmarked ones and the lifespan are not touched.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from perflab.shadow import canaries, inbound, scope
from perflab.shadow.inbound import Refused, Served
from perflab.shadow.scope import process

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_HEADERS = {name.encode(): name for name in inbound.CARRIERS}


def hook_starlette(module: Any) -> None:
    """Serve every Starlette or FastAPI application of this process through `perflab.shadow.inbound`."""
    application = module.Starlette
    call = application.__call__

    @functools.wraps(call)
    async def attached_call(app: Any, asgi: _Scope, receive: Any, send: _Send) -> None:
        await serve_any(app, functools.partial(call, app), asgi, receive, send)

    application.__call__ = attached_call


async def serve_any(
    app: Any, call: Callable[..., Awaitable[None]], asgi: _Scope, receive: Any, send: _Send
) -> None:
    """Serve what a server calls an ASGI application with: a request, a WebSocket, the lifespan.

    Parameters
    ----------
    app
        As for `serve`.
    call : callable
        The application.
    asgi, receive, send
        As the server called it.
    """
    if asgi["type"] == "http":
        await serve(app, lambda sending: call(asgi, receive, sending), asgi, send)
    elif asgi["type"] == "websocket" and _is_marked(asgi):
        await receive()  # the handshake; closing before it is accepted answers 403
        await send({"type": "websocket.close", "code": 1008, "reason": "perflab: marked WebSocket"})
    else:
        await call(asgi, receive, send)


async def serve(app: Any, call: Callable[[_Send], Awaitable[None]], asgi: _Scope, send: _Send) -> None:
    """Serve an ASGI request: judged, marked, with its span.

    Parameters
    ----------
    app
        The application, for `inbound.unnamed`; None: a server calls it (`perflab.shadow.inbound_servers`).
    call : callable
        Has it answer, given a ``send``.
    asgi, send
        As the server called it.
    """
    before = inbound.standing()
    try:
        served = inbound.begin(asgi["method"], asgi["path"], _carriers(asgi), app)
    except Refused as refused:
        await _refuse(send, refused)
        return
    if served is None:
        named = inbound.adopt(app)
        await call(send if named is None else functools.partial(_naming, named, asgi, send))
        return

    async def attached_send(message: _Message) -> None:
        if message["type"] == "http.response.start":
            served.status = _status(message)
            planted = 0 if served.adopted else _started(served, asgi)
            if planted:
                await scope.async_wait(planted)
        await send(message)
        if message["type"] == "http.response.body":
            if served.shadow is None:
                canaries.watch_answer(message.get("body"))
            if not message.get("more_body"):
                served.end()

    try:
        await call(attached_send)
    except BaseException as error:
        served.end(error)
        raise
    finally:
        served.end()
        inbound.leave(before)


async def _refuse(send: _Send, refused: Refused) -> None:
    body = inbound.refusal(refused)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _naming(served: Served, asgi: _Scope, send: _Send, message: _Message) -> None:
    """Send for an application whose request a server began."""
    if message["type"] == "http.response.start":
        planted = _started(served, asgi)
        if planted:
            await scope.async_wait(planted)
    await send(message)


def _status(message: _Message) -> int:
    try:
        return int(message["status"])
    except Exception:
        inbound.step_aside("inbound: status")
        return 0


def _started(served: Served, asgi: _Scope) -> int:
    """Name the span after the route, and return the delay planted there."""
    try:
        template = _template(asgi)
        operation = served.route(template) if template else served.operation
        return scope.delay_ns(operation) if operation else 0
    except Exception:
        inbound.step_aside("inbound: route")
        return 0


def _is_marked(asgi: _Scope) -> bool:
    carriers = _carriers(asgi)
    try:
        marked = inbound.receive(carriers)[1] is not None
    except Refused:
        return True
    except Exception:
        inbound.step_aside("inbound: judge")
        return inbound.claims(carriers)
    if marked:
        process.ledger.mark("refused: websocket")
    return marked


def _carriers(asgi: _Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in asgi["headers"]:
        name = _HEADERS.get(key)
        if name is not None:
            text = value.decode("latin-1")
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _template(asgi: _Scope) -> str:
    """Return the template of the matched route, below the path its application is mounted at."""
    route = asgi.get("route")
    if route is None:
        return ""
    root = str(asgi.get("root_path") or "").rstrip("/")
    below = root if str(asgi["path"]).startswith(f"{root}/") else ""
    values = {str(value): name for name, value in asgi.get("path_params", {}).items()}
    below = "/".join(f"{{{values[part]}}}" if part in values else part for part in below.split("/"))
    if hasattr(route, "routes"):  # mounted, and nothing below it is a route of the framework's
        return below
    included = (asgi.get("fastapi") or {}).get("effective_route_context")
    return below + str(getattr(included, "path_format", None) or getattr(route, "path_format", route.path))
