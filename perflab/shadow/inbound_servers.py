"""Servers that are written in Python: what they serve is judged before anything of the service's own runs.

A framework's hook comes too late where the service has put something around its application (a middleware
that writes an audit log, a dispatcher that calls ``app.wsgi_app``), and never where there is no framework: a
plain WSGI or ASGI callable, a ``Router``. What runs there would be marked work that nobody knows of, and its
writes would be claimed as a real user's. So the request begins at the server, and the framework names it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from perflab.shadow import inbound, inbound_asgi, inbound_wsgi
from perflab.shadow.inbound import Refused


def judged(application: Any) -> Callable[..., Iterable[bytes]]:
    """Return a WSGI application that is served through `perflab.shadow.inbound`."""

    def attached(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return inbound_wsgi.serve(None, application, environ, start_response)

    return attached


def judged_asgi(application: Any) -> Callable[..., Any]:
    """Return an ASGI application that is served through `perflab.shadow.inbound`."""

    async def attached(asgi: Any, receive: Any, send: Any) -> None:
        await inbound_asgi.serve_any(None, application, asgi, receive, send)

    return attached


def hook_waitress(module: Any) -> None:
    """Judge what waitress serves; ``module`` is ``waitress.server``."""
    _hook_made(module.BaseWSGIServer, "application")


def hook_werkzeug(module: Any) -> None:
    """Judge what Werkzeug's development server serves; ``module`` is ``werkzeug.serving``."""
    _hook_made(module.BaseWSGIServer, "app")


def hook_wsgiref(module: Any) -> None:
    """Judge what Python's own server, and Django's, serve; ``module`` is ``wsgiref.handlers``."""
    run = module.BaseHandler.run

    @functools.wraps(run)
    def attached(handler: Any, application: Any) -> None:
        run(handler, judged(application))

    module.BaseHandler.run = attached


def hook_gunicorn(module: Any) -> None:
    """Judge what gunicorn's own WSGI workers serve; ``module`` is ``gunicorn.workers.base``."""
    load = module.Worker.load_wsgi

    @functools.wraps(load)
    def attached(worker: Any) -> None:
        load(worker)
        if worker.wsgi is not None and hasattr(worker, "handle_request"):
            worker.wsgi = judged(worker.wsgi)

    module.Worker.load_wsgi = attached


def hook_uvicorn(module: Any) -> None:
    """Judge what uvicorn serves, of whatever interface; ``module`` is ``uvicorn.config``."""
    load = module.Config.load

    @functools.wraps(load)
    def attached(config: Any) -> None:
        load(config)
        config.loaded_app = judged_asgi(config.loaded_app)

    module.Config.load = attached


def hook_hypercorn(module: Any) -> None:
    """Judge what hypercorn serves, ASGI and WSGI; ``module`` is ``hypercorn.app_wrappers``."""
    _hook_made(module.ASGIWrapper, "app", judged_asgi)
    _hook_made(module.WSGIWrapper, "app")


def hook_http_server(module: Any) -> None:
    """Judge what handlers of Python's own server serve; ``module`` is ``http.server``.

    A request is judged when its headers are read, and ends when its handler has answered. Handlers that serve
    a WSGI application have it judged (wsgiref's, Werkzeug's).
    """
    handler_class = module.BaseHTTPRequestHandler
    handle, parse, respond = (
        handler_class.handle_one_request,
        handler_class.parse_request,
        handler_class.send_response_only,
    )

    @functools.wraps(handle)
    def attached_handle(handler: Any) -> None:
        if hasattr(handler, "run_wsgi"):
            handle(handler)
            return
        handler._perflab_served = None
        try:
            handle(handler)
        except BaseException as error:
            _answered(handler, error)
            raise
        _answered(handler, None)

    @functools.wraps(parse)
    def attached_parse(handler: Any) -> Any:
        parsed = parse(handler)
        if parsed and "_perflab_served" in vars(handler):
            before = inbound.standing()
            try:
                served = inbound.begin(
                    handler.command, handler.path.partition("?")[0], _carriers(handler.headers)
                )
                handler._perflab_served = None if served is None else (served, before)
            except Refused as refused:
                _refuse(handler, refused)
                return False
        return parsed

    @functools.wraps(respond)
    def attached_respond(handler: Any, code: Any, *arguments: Any) -> None:
        serving = vars(handler).get("_perflab_served")
        if serving is not None and serving[0].under_way:
            serving[0].status = int(code)
        respond(handler, code, *arguments)

    handler_class.handle_one_request = attached_handle
    handler_class.parse_request = attached_parse
    handler_class.send_response_only = attached_respond


def _carriers(headers: Any) -> dict[str, str]:
    found = {name: headers.get_all(name) for name in inbound.CARRIERS}
    return {name: ",".join(values) for name, values in found.items() if values}


def _answered(handler: Any, error: BaseException | None) -> None:
    serving = vars(handler).pop("_perflab_served", None)
    if serving is not None:
        served, before = serving
        served.end(error)
        inbound.leave(before)


def _refuse(handler: Any, refused: Refused) -> None:
    body = inbound.refusal(refused)
    handler.close_connection = True
    handler.send_response(403)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _hook_made(server_class: Any, attribute: str, judge: Callable[[Any], Any] = judged) -> None:
    make = server_class.__init__

    @functools.wraps(make)
    def attached(server: Any, *arguments: Any, **options: Any) -> None:
        make(server, *arguments, **options)
        setattr(server, attribute, judge(getattr(server, attribute)))

    server_class.__init__ = attached
