"""Requests are judged where a server calls the service, whatever the service has put there."""

from __future__ import annotations

import http.client
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from attached_stage import Service, Stage, stage_in, trace_id


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


APPLICATIONS = {
    "bare": "GET",
    "around": "GET /items/{number}",
    "dispatched": "GET",
    "bare_asgi": "GET",
    "around_asgi": "GET /items/{number}",
    "router_asgi": "GET",
}


@pytest.mark.parametrize("application", APPLICATIONS)
def test_what_stands_before_or_without_a_framework_is_judged(stage: Stage, application: str):
    """Work done before the framework is asked, or without one, is the request's: marked or ordinary."""
    # Given a service whose door is not a framework's
    service = stage.serve(f"plain_shop:{application}")
    path = f"/items/7?url={quote(stage.echo.url)}"
    for _ in range(2):
        # When a marked request and a real user's come in turn
        marked = stage.marked()
        for headers in (marked, {}, {"baggage": "team=perflab,perflabx=1"}):
            assert service.get(path, headers)[0] == 200
            # Then what it called before it asked the framework carries the mark when the request did
            assert stage.echo.last.get("tracestate") == headers.get("tracestate")
        # And the request is one span, named by the framework where there is one
        span = stage.receiver.span(trace_id(marked), "server")
        assert (span["name"], span["shadow"]) == (APPLICATIONS[application], True)
        spans = stage.receiver.spans(trace_id(marked))
        assert list(spans[spans.service == "shop"].kind).count("server") == 1
    # And a mark that is not valid never reaches it
    before = len(stage.echo.received)
    refused = {"baggage": stage.marked()["baggage"][:-1] + "x"}
    assert service.get(path, refused)[0] == 403
    assert len(stage.echo.received) == before
    service.stop()


SERVERS = {
    "werkzeug": "from werkzeug.serving import make_server; server = make_server('127.0.0.1', 0, app)",
    "wsgiref": "from wsgiref.simple_server import make_server; server = make_server('127.0.0.1', 0, app)",
}


@pytest.mark.parametrize("server", SERVERS)
def test_the_servers_people_develop_with(stage: Stage, server: str):
    """They, too, hand a request over as what it is."""
    code = f"""
from plain_shop import bare as app
{SERVERS[server]}
print(server.server_port, flush=True)
server.serve_forever()
"""
    process = stage.interactive(code)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    for headers in (stage.marked(), {}):
        url = f"http://127.0.0.1:{port}/items/7?url={quote(stage.echo.url)}"
        asked = "import sys, urllib.request as r; q = r.Request(sys.argv[1]);" + "".join(
            f"q.add_header({name!r}, {value!r});" for name, value in headers.items()
        )
        subprocess.run([sys.executable, "-c", asked + "r.urlopen(q).read()", url], check=True, timeout=20)
        assert stage.echo.last.get("tracestate") == headers.get("tracestate")


HANDLER = """
import http.server
import sys
from urllib.parse import parse_qs, urlsplit

import requests

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        if "url" in query:
            requests.get(query["url"][0], timeout=5)
        if "fail" in query:
            raise RuntimeError("on purpose")
        self.send_response(int(query.get("status", ["200"])[0]))
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    do_HEAD = do_GET

server = http.server.{server}(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module", params=["HTTPServer", "ThreadingHTTPServer"])
def handled(stage: Stage, request: pytest.FixtureRequest) -> Service:
    """Start a service on Python's own server, without any framework."""
    process = stage.interactive(HANDLER.replace("{server}", request.param))
    assert process.stdout is not None
    return Service(process, int(process.stdout.readline()), stage.directory)  # type: ignore[arg-type]


def test_what_pythons_own_server_hands_to_a_handler_is_judged(stage: Stage, handled: Service):
    """Marked, ordinary and false requests, one after the other and on one connection."""
    path = f"/items/7?url={quote(stage.echo.url)}"
    for _ in range(2):
        for headers in (marked := stage.marked(), {}):
            assert handled.get(path, headers) == (200, b"hello")
            assert stage.echo.last.get("tracestate") == headers.get("tracestate")
    span = stage.receiver.span(trace_id(marked), "server")
    assert (span["name"], span["shadow"], span["attributes"]["url.path"]) == ("GET", True, "/items/7")
    assert span["attributes"]["http.response.status_code"] == 200
    before = len(stage.echo.received)
    status, body = handled.get(path, {"baggage": stage.marked()["baggage"][:-1] + "x"})
    assert (status, "was refused" in body["error"]) == (403, True)
    assert len(stage.echo.received) == before


def test_each_request_of_a_connection_is_judged_for_itself(stage: Stage, handled: Service):
    """A marked one, then an ordinary one, then a false one, on one connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", handled.port, timeout=10)
    false = {"baggage": stage.marked()["baggage"][:-1] + "x"}
    for headers, status in ((stage.marked(), 200), ({}, 200), (false, 403)):
        connection.request("GET", f"/?url={quote(stage.echo.url)}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        if status == 200:
            assert stage.echo.last.get("tracestate") == headers.get("tracestate")
    connection.close()


def test_a_handler_that_fails_ends_its_request(stage: Stage, handled: Service):
    """The error stands on the span, and the next request is served as what it is."""
    marked = stage.marked()
    with pytest.raises((http.client.HTTPException, OSError)):
        handled.get("/?fail=1", marked)
    assert stage.receiver.span(trace_id(marked), "server")["attributes"]["error.type"] == "RuntimeError"
    assert handled.get(f"/?url={quote(stage.echo.url)}")[0] == 200
    assert stage.echo.last.get("tracestate") is None


HYPERCORN = """
import asyncio
import socket
from hypercorn.asyncio import serve
from hypercorn.config import Config
from plain_shop import {application} as application

config = Config()
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
config.bind = [f"fd://{listening.fileno()}"]
print(listening.getsockname()[1], flush=True)
asyncio.run(serve(application, config, mode="{mode}"))
"""


@pytest.mark.parametrize(("application", "mode"), [("bare_asgi", "asgi"), ("around", "wsgi")])
def test_what_hypercorn_serves_is_judged(
    stage: Stage, needs: Callable[[object, str], None], application: str, mode: str
):
    """ASGI and WSGI applications, with and without a framework."""
    needs(importlib.util.find_spec("hypercorn"), "hypercorn (pip install hypercorn)")
    process = stage.interactive(HYPERCORN.replace("{application}", application).replace("{mode}", mode))
    assert process.stdout is not None
    service = Service(process, int(process.stdout.readline()), stage.directory)  # type: ignore[arg-type]
    path = f"/items/7?url={quote(stage.echo.url)}"
    for headers in (marked := stage.marked(), {}):
        assert service.get(path, headers)[0] == 200
        assert stage.echo.last.get("tracestate") == headers.get("tracestate")
    assert stage.receiver.span(trace_id(marked), "server")["shadow"]
    before = len(stage.echo.received)
    assert service.get(path, {"baggage": stage.marked()["baggage"][:-1] + "x"})[0] == 403
    assert len(stage.echo.received) == before
