"""Django, behind WSGI and ASGI servers: every request passes `perflab.shadow.inbound`.

What Django does around a request is part of it: ``request_started`` and ``request_finished`` close or keep
the connections of the request's own side, also where a server closes the answer after it was sent. asgiref
carries the context between threads and event loops, both ways, and with it the mark.

Django's own test clients and other handlers without a server are not touched.
"""

from __future__ import annotations

import contextvars
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from perflab.shadow import inbound, inbound_asgi, inbound_wsgi, scope

_PARAMETER = re.compile(r"<(?:[^<>]*:)?([^<>:]+)>")
_PIECE = re.compile(r"\(\?P<(\w+)>|\\.|\[\^?\]?[^\]]*\]|.", re.DOTALL)


def hook_handlers(module: Any) -> None:
    """Name requests after their routes; ``module`` is ``django.core.handlers.base``."""
    handler = module.BaseHandler
    resolve, get_response = handler.resolve_request, handler.get_response

    @functools.wraps(resolve)
    def attached_resolve(self: Any, request: Any) -> Any:
        match = resolve(self, request)
        served = inbound.unnamed(self)
        if served is not None:
            try:
                mounted = request.path.removesuffix(request.path_info)
                planted = served.route(mounted + template(match.route))
            except Exception:
                inbound.step_aside("inbound: route")
            else:
                if not hasattr(request, "scope"):  # under ASGI the wait is where the answer starts
                    scope.wait(planted)
        return match

    @functools.wraps(get_response)
    def attached_get_response(self: Any, request: Any) -> Any:
        response = get_response(self, request)
        if scope.current() is not None:
            response._perflab_context = contextvars.copy_context()
        return response

    handler.resolve_request, handler.get_response = attached_resolve, attached_get_response


def hook_responses(module: Any) -> None:
    """Close a marked answer in its request's context; ``module`` is ``django.http.response``."""
    response_class = module.HttpResponseBase
    close = response_class.close

    @functools.wraps(close)
    def attached(response: Any) -> None:
        context = response.__dict__.pop("_perflab_context", None)
        if context is None or scope.current() is not None:
            close(response)
        else:
            context.run(close, response)

    response_class.close = attached


def hook_wsgi(module: Any) -> None:
    """Serve every Django application of this process; ``module`` is ``django.core.handlers.wsgi``."""
    call = module.WSGIHandler.__call__

    @functools.wraps(call)
    def attached(
        handler: Any, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return inbound_wsgi.serve(handler, functools.partial(call, handler), environ, start_response)

    module.WSGIHandler.__call__ = attached


def hook_asgi(module: Any) -> None:
    """Serve every asynchronous Django application; ``module`` is ``django.core.handlers.asgi``."""
    call = module.ASGIHandler.__call__

    # its parameter is named as Django's, which nobody passes by name but somebody may
    @functools.wraps(call)
    async def attached(handler: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await call(handler, scope, receive, send)  # which refuses everything else
            return
        await inbound_asgi.serve(handler, lambda sending: call(handler, scope, receive, sending), scope, send)

    module.ASGIHandler.__call__ = attached


@functools.lru_cache(1024)
def template(route: str) -> str:
    r"""Return a Django route as other frameworks write it.

    Parameters
    ----------
    route : str
        Of a resolver match: of ``path`` or ``re_path``, included ones joined.

    Examples
    --------
    >>> template("orders/<int:order_id>/lines/<path:rest>")
    '/orders/{order_id}/lines/{rest}'
    >>> template(r"^articles/(?P<year>[0-9]{4})/(?P<slug>[\w-]+(\.html)?)/$")
    '/articles/{year}/{slug}/'
    >>> template("shop/^v(\\d+)/items\\.json\\Z")
    '/shop/v{}/items.json'
    """
    if not route.endswith(("$", r"\Z")) and "(?P<" not in route and "^" not in route:
        return "/" + _PARAMETER.sub(r"{\1}", route).removeprefix("/")
    written, depth = [], 0
    for piece in _PIECE.finditer(route):
        text, name = piece[0], piece[1]
        if text.startswith("("):
            depth += 1
            if depth == 1:
                written.append(f"{{{name or ''}}}")
        elif text == ")":
            depth -= 1
        elif not depth and text not in ("^", "$", "?", r"\Z", r"\A"):
            written.append(text.removeprefix("\\"))
    return "/" + _PARAMETER.sub(r"{\1}", "".join(written)).removeprefix("/")
