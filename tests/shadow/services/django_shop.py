"""A Django service as a business team might write it, in one file with its settings; for both servers."""

import asyncio
import io
import os

import httpx
import requests
from asgiref.sync import async_to_sync, sync_to_async
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import Client
from django.urls import include, path, re_path
from django.utils.decorators import sync_and_async_middleware
from starlette.applications import Starlette
from starlette.routing import Mount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_shop")
SECRET_KEY = "of no importance here"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_shop"
WSGI_APPLICATION = "django_shop.application"
USE_TZ = True
LOGGING_CONFIG = None
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django_shop.Sync",
    "django_shop.either",
]
kept: dict[str, str] = {}
closed: list[str] = []


class Sync:
    """A middleware of the old kind: under ASGI it runs in a thread, and what it calls in the loop again."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.GET.get("early"):
            return HttpResponse("early", status=418)
        answer = self.get_response(request)
        answer["X-Seen"] = answer.get("X-Seen", "nothing") + ", sync"
        return answer

    def process_view(self, request, view, arguments, options):
        request.viewed = view.__name__


@sync_and_async_middleware
def either(get_response):
    if asyncio.iscoroutinefunction(get_response):

        async def passing(request):
            answer = await get_response(request)
            answer["X-Seen"] = "async"
            return answer

    else:

        def passing(request):
            answer = get_response(request)
            answer["X-Seen"] = "either"
            return answer

    return passing


def finished(**_):
    url = kept.pop("closing", "")
    if url:
        requests.get(url, timeout=10)


request_finished.connect(finished)


def note_closing(request):
    kept["closing"] = request.GET.get("closing", "")


def item(request, number):
    note_closing(request)
    sent = request.body.decode()
    return JsonResponse({"number": number, "sent": sent, "cookie": request.COOKIES.get("c", "")})


async def item_async(request, number):
    note_closing(request)
    return JsonResponse({"number": number, "sent": request.body.decode()})


def archive(request, year, slug):
    return JsonResponse({"year": year, "slug": slug})


def stream(request):
    note_closing(request)

    def produce():
        try:
            for number in range(3):
                yield f"part {number}\n"
                if request.GET.get("fail"):
                    raise RuntimeError("the stream broke")
        finally:
            closed.append(request.GET.get("word", ""))

    return StreamingHttpResponse(produce(), content_type="text/plain")


def closings(request):
    return JsonResponse(closed, safe=False)


def file(request):
    note_closing(request)
    return FileResponse(io.BytesIO(b"x" * 70_000), content_type="application/octet-stream")


def boom(request):
    raise RuntimeError("boom")


async def boom_async(request):
    raise RuntimeError("boom")


def forbidden(request):
    raise PermissionDenied


def within(request):
    """Call this application from within itself, as its tests do."""
    return HttpResponse(Client().get(f"/call/?client=requests&url={request.GET['url']}").content)


def call(request):
    """Call a peer; say what came back or why it was not called."""
    try:
        status = CALLS[request.GET["client"]](request.GET["url"])
    except Exception as error:
        return JsonResponse({"error": type(error).__name__})
    return JsonResponse({"status": status})


async def call_async(request):
    try:
        status = await ASYNC_CALLS[request.GET["client"]](request.GET["url"])
    except Exception as error:
        return JsonResponse({"error": type(error).__name__})
    return JsonResponse({"status": status})


def with_requests(url):
    return requests.get(url, timeout=10).status_code


async def with_httpx(url):
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


async def in_gather(url):
    return (await asyncio.gather(with_httpx(url), sync_to_async(with_requests)(url)))[1]


CALLS = {
    "requests": with_requests,
    "async_to_sync": async_to_sync(with_httpx),
    "there and back": async_to_sync(sync_to_async(async_to_sync(with_httpx))),
}
ASYNC_CALLS = {
    "httpx": with_httpx,
    "sync_to_async": sync_to_async(with_requests),
    "another thread": sync_to_async(with_requests, thread_sensitive=False),
    "gather": in_gather,
    "there and back": sync_to_async(async_to_sync(with_httpx)),
}
orders = [
    path("<int:number>/lines/<path:rest>", lambda request, number, rest: item(request, number)),
    re_path(r"^v(\d+)\.json$", lambda request, number: item(request, number)),
]
urlpatterns = [
    path("items/<int:number>/", item),
    path("aitems/<int:number>/", item_async),
    path("orders/", include(orders)),
    re_path(r"^archive/(?P<year>[0-9]{4})/(?P<slug>[\w-]+(\.html)?)/$", archive),
    path("stream/", stream),
    path("closed/", closings),
    path("file/", file),
    path("boom/", boom),
    path("aboom/", boom_async),
    path("forbidden/", forbidden),
    path("within/", within),
    path("call/", call),
    path("acall/", call_async),
]
application = get_wsgi_application()
asgi = get_asgi_application()
mounted_asgi = Starlette(routes=[Mount("/old/{tenant}", asgi)])


def wrapped(environ, start_response):
    """Serve it below a path, as a WSGI server's dispatcher would."""
    if environ["PATH_INFO"].startswith("/below/"):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/below", environ["PATH_INFO"].removeprefix("/below")
    return application(environ, start_response)
