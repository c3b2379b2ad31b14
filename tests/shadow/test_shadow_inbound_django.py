"""A Django service under waitress and uvicorn, attached and not: real users get the same to the byte."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from attached_stage import Service, Stage, stage_in, trace_id, until

from perflab.shadow.inbound_django import template

SERVERS = {"waitress": "django_shop:wrapped", "uvicorn": "django_shop:asgi"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def services(stage: Stage) -> dict[str, tuple[Service, Service]]:
    return {
        server: (stage.serve(where, attached=False), stage.serve(where)) for server, where in SERVERS.items()
    }


@pytest.fixture(params=SERVERS)
def shop(request: pytest.FixtureRequest, services: dict[str, tuple[Service, Service]]) -> Service:
    return services[request.param][1]


REQUESTS = {
    "json": b"GET /items/7/ HTTP/1.1\r\nCookie: c=1",
    "async": b"GET /aitems/7/ HTTP/1.1",
    "old http": b"GET /items/7/ HTTP/1.0",
    "head": b"HEAD /items/7/ HTTP/1.1",
    "body": b"POST /orders/7/lines/a%2Fb%C3%A9/c HTTP/1.1\r\nContent-Length: 5",
    "slash": b"GET /items/7 HTTP/1.1",
    "stream": b"GET /stream/ HTTP/1.1",
    "broken stream": b"GET /stream/?fail=1 HTTP/1.1",
    "file": b"GET /file/ HTTP/1.1",
    "exception": b"GET /boom/ HTTP/1.1",
    "async exception": b"GET /aboom/ HTTP/1.1",
    "forbidden": b"GET /forbidden/ HTTP/1.1",
    "no route": b"GET /nowhere/ HTTP/1.1",
    "early answer": b"GET /items/7/?early=1 HTTP/1.1",
    "below": b"GET /below/items/7/ HTTP/1.1",
    "garbage": b"GET /items/7/ HTTP/1.1\r\ntraceparent: \xff\r\ntracestate: \xe9=,,=\r\nbaggage: ;;=,\xe9",
    "huge": b"GET /items/7/ HTTP/1.1\r\nbaggage: " + b"k=v," * 8_000,
}


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("server", SERVERS)
def test_unmarked_answers_are_the_same_to_the_byte(
    services: dict[str, tuple[Service, Service]], server: str, what: str
):
    """Status, headers and body do not change by attaching, whatever the request's headers hold."""
    body = b"hello" if b"Content-Length: 5" in REQUESTS[what] else b""
    whole = REQUESTS[what] + b"\r\nHost: a\r\nConnection: close\r\n\r\n" + body
    bare, shop = services[server]
    answer = bare.raw(whole)
    assert answer.startswith(b"HTTP/1.")
    assert shop.raw(whole) == answer


def test_a_refused_mark_is_answered_403_and_nothing_runs(stage: Stage, shop: Service):
    """A forged mark gets 403 with the reason, and no view of it runs."""
    marked = stage.marked()
    forged = marked | {"tracestate": marked["tracestate"][:-1] + "x", "baggage": ""}
    status, body = shop.get("/stream/?word=forged", forged)
    assert status == 403
    assert body == {"error": "perflab: this request claims to be shadow traffic and was refused: malformed"}
    assert "forged" not in shop.get("/closed/")[1]


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/items/7/", 200, "GET /items/{number}/"),
        ("GET", "/aitems/7/", 200, "GET /aitems/{number}/"),
        ("POST", "/orders/7/lines/x/y", 200, "POST /orders/{number}/lines/{rest}"),
        ("GET", "/orders/v7.json", 200, "GET /orders/v{}.json"),
        ("GET", "/archive/2026/a-b.html/", 200, "GET /archive/{year}/{slug}/"),
        ("GET", "/boom/", 500, "GET /boom/"),
        ("GET", "/aboom/", 500, "GET /aboom/"),
        ("GET", "/forbidden/", 403, "GET /forbidden/"),
        ("GET", "/items/7/?early=1", 418, "GET"),
        ("GET", "/nowhere/", 404, "GET"),
        ("GET", "/stream/", 200, "GET /stream/"),
        ("GET", "/file/", 200, "GET /file/"),
    ],
)
def test_a_marked_request_is_one_server_span(
    stage: Stage, shop: Service, method: str, path: str, status: int, name: str
):
    """One span per request, named by method and route template, child of the caller, marked as a test."""
    marked = stage.marked()
    assert shop.get(path, marked, method)[0] == status
    span = stage.receiver.span(trace_id(marked))
    assert (span["name"], span["shadow"], span["service"]) == (name, True, "shop")
    assert f"{span['parent_span_id']:016x}" == marked["traceparent"].split("-")[2]
    assert span["attributes"]["http.response.status_code"] == status
    assert span["status"] == ("error" if status >= 500 else "unset")
    assert list(stage.receiver.spans(trace_id(marked)).kind) == ["server"]


CLIENTS = [
    "/call/?client=requests",
    "/call/?client=async_to_sync",
    "/call/?client=there and back",
    "/acall/?client=httpx",
    "/acall/?client=sync_to_async",
    "/acall/?client=another thread",
    "/acall/?client=gather",
    "/acall/?client=there and back",
    "/within/?",
]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_mark_follows_between_threads_and_loops(stage: Stage, shop: Service, client: str):
    """Whichever way asgiref carries a call, a marked one is marked at the peer, and the next one is not."""
    path = f"{client.replace(' ', '%20')}&url={stage.echo.url}"
    for _ in range(3):
        # When a marked request calls a peer
        marked = stage.marked()
        assert shop.get(path, marked)[0] == 200
        # Then the peer sees the mark
        assert stage.echo.last["tracestate"] == marked["tracestate"]
        # And after it an ordinary request is none
        heard = len(stage.echo.received)
        assert shop.get(path)[0] == 200
        assert len(stage.echo.received) > heard
        assert "perflab" not in str(stage.echo.received[heard:])
    # And a peer that is not allowed is refused to marked requests
    refused = shop.get(path.replace(stage.echo.url, stage.outside.url), stage.marked())
    assert b"ShadowError" in json.dumps(refused[1], default=str).encode()
    assert stage.outside.received == []


@pytest.mark.parametrize("path", ["/items/7/", "/aitems/7/", "/stream/", "/file/"])
def test_what_follows_an_answer_is_part_of_it(stage: Stage, shop: Service, path: str):
    """The request's end, where connections are given back, is marked when the request was, else not."""
    for marked in (stage.marked(), {}, stage.marked()):
        heard = len(stage.echo.received)
        assert shop.get(f"{path}?closing={stage.echo.url}", marked)[0] == 200
        until(lambda heard=heard: len(stage.echo.received) > heard, "the request's end")
        assert stage.echo.last.get("tracestate") == marked.get("tracestate")


def test_a_stream_that_breaks_ends_its_span_with_the_error(
    stage: Stage, services: dict[str, tuple[Service, Service]]
):
    """What is raised while the answer is iterated stands on the span."""
    for _, shop in services.values():
        marked = stage.marked()
        with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected)):
            shop.get("/stream/?fail=1", marked)
        span = stage.receiver.span(trace_id(marked))
        assert (span["status"], span["attributes"]["error.type"]) == ("error", "RuntimeError")


def test_below_a_path_and_inside_another_application(
    stage: Stage, services: dict[str, tuple[Service, Service]]
):
    """Below a server's path that is part of the name; inside Starlette the outer application judges."""
    marked = stage.marked()
    assert services["waitress"][1].get("/below/items/7/", marked)[0] == 200
    assert stage.receiver.span(trace_id(marked))["name"] == "GET /below/items/{number}/"
    outer = stage.serve("django_shop:mounted_asgi")
    marked = stage.marked()
    assert outer.get(f"/old/acme/call/?client=requests&url={stage.echo.url}", marked)[0] == 200
    assert stage.echo.last["tracestate"] == marked["tracestate"]
    assert stage.receiver.span(trace_id(marked))["name"] == "GET /old/{tenant}"
    assert outer.get("/old/acme/items/7/", marked | {"baggage": "perflab=1.forged"})[0] == 403


def test_a_planted_delay_is_waited_for_at_its_route(stage: Stage, shop: Service):
    """A delay named as tables print the operation slows that route and no other, and no real user."""
    stage.publisher.delay({"shop: GET /items/{number}/": 300_000_000})
    try:

        def slow() -> bool:
            marked = stage.marked()
            assert shop.get("/items/1/", marked)[0] == 200
            return bool(stage.receiver.span(trace_id(marked))["duration_ns"] > 300e6)

        until(slow, "the delay being believed")
        marked = stage.marked()
        shop.get("/forbidden/", marked)
        assert stage.receiver.span(trace_id(marked))["duration_ns"] < 300e6
        began_s = time.monotonic()
        assert shop.get("/items/1/")[0] == 200
        assert time.monotonic() - began_s < 0.3
    finally:
        stage.publisher.delay({})


def test_the_development_server_is_judged_too(stage: Stage):
    """``manage.py runserver`` is WSGI like any other."""
    # Given
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}", "--settings=django_shop"]
    log = stage.directory / "runserver.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command], env=stage.environment(), stdout=out, stderr=out
        )
    service = Service(process, port, log)
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the development server")
        # When
        marked = stage.marked()
        answers = [service.get("/items/7/", sent)[0] for sent in ({}, marked, {"tracestate": "perflab=x"})]
        # Then
        assert answers == [200, 200, 403]
        assert stage.receiver.span(trace_id(marked))["name"] == "GET /items/{number}/"
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("route", "written"),
    [
        ("", "/"),
        ("items/<int:number>/", "/items/{number}/"),
        ("/", "/"),
        (r"^$", "/"),
        (r"^a/(?P<one>[()\]]+)/(?:b|c)/(\d+)$", "/a/{one}/{}/{}"),
        (r"items/^(?P<page>(x(y))+)/$", "/items/{page}/"),
        (r"^feed\.xml$", "/feed.xml"),
    ],
)
def test_routes_are_written_as_other_frameworks_write_them(route: str, written: str):
    """Both of Django's ways become templates; a group without a name is an empty pair of braces."""
    assert template(route) == written
