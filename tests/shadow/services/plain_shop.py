"""Services that no framework stands at the door of: plain callables, and what is put around a framework."""

from urllib.parse import parse_qs

import httpx
import requests
from fastapi import FastAPI
from flask import Flask
from starlette.responses import JSONResponse
from starlette.routing import Route, Router
from werkzeug.middleware.dispatcher import DispatcherMiddleware

shop = Flask(__name__)
api = FastAPI()


@shop.get("/items/<int:number>")
def item(number: int):
    return {"number": number}


@api.get("/items/{number}")
async def item_of_api(number: int):
    return {"number": number}


class Audited:
    """Calls its peer before the application is: a log, a limit, a login."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        requests.get(parse_qs(environ["QUERY_STRING"])["url"][0], timeout=5)
        return self.application(environ, start_response)


class AuditedAsgi:
    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            async with httpx.AsyncClient() as client:
                await client.get(parse_qs(scope["query_string"].decode())["url"][0])
        await self.application(dict(scope), receive, send)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"number": 7}']


async def plain_asgi_app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"number": 7}'})


async def routed(request):
    return JSONResponse({"number": request.path_params["number"]})


bare = Audited(plain)
around = Audited(shop)
dispatched = DispatcherMiddleware(Audited(shop.wsgi_app), {})
bare_asgi = AuditedAsgi(plain_asgi_app)
around_asgi = AuditedAsgi(api)
router_asgi = AuditedAsgi(Router([Route("/items/{number}", routed)]))
