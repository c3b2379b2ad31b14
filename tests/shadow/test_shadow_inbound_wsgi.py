"""A Flask service under waitress, attached and not: what real users get is the same to the byte."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from attached_stage import Service, Stage, stage_in, trace_id, until


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(stage: Stage) -> Service:
    return stage.serve("flask_shop:wrapped", attached=False)


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Service:
    return stage.serve("flask_shop:wrapped")


PARENT = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUESTS = {
    "json": b"GET /items/7 HTTP/1.1\r\nCookie: c=1",
    "old http": b"GET /items/7 HTTP/1.0",
    "head": b"HEAD /items/7 HTTP/1.1",
    "options": b"OPTIONS /items/7 HTTP/1.1",
    "body": b"POST /orders/a%2Fb%C3%A9/lines/x/y HTTP/1.1\r\nContent-Length: 5",
    "chunks": b"POST /orders/a/lines/x HTTP/1.1\r\nTransfer-Encoding: chunked",
    "stream": b"GET /stream HTTP/1.1",
    "list": b"GET /health HTTP/1.1",
    "broken stream": b"GET /stream?fail=1 HTTP/1.1",
    "file": b"GET /file HTTP/1.1",
    "part of a file": b"GET /file HTTP/1.1\r\nRange: bytes=10-19",
    "exception": b"GET /boom HTTP/1.1",
    "abort": b"GET /gone HTTP/1.1",
    "no route": b"GET /nowhere HTTP/1.1",
    "early answer": b"GET /items/7?early=1 HTTP/1.1",
    "wrong method": b"DELETE /items/7 HTTP/1.1",
    "traced": b"GET /items/7 HTTP/1.1\r\n"
    + PARENT
    + b"\r\ntracestate: vendor=1,other=2\r\nbaggage: user=7;t=1",
    "garbage": b"GET /items/7 HTTP/1.1\r\ntraceparent: \xff\r\ntracestate: \xe9=\xe9,,=\r\nbaggage: ;;=,\xe9",
    "twice": b"GET /items/7 HTTP/1.1\r\ntraceparent: 1\r\ntraceparent: 2\r\nbaggage: a=1\r\nbaggage: b=2",
    "huge": b"GET /items/7 HTTP/1.1\r\nbaggage: " + b"k=v," * 8_000,
}
BODIES = {b"Content-Length: 5": b"hello", b"chunked": b"5\r\nhello\r\n0\r\n\r\n"}


@pytest.mark.parametrize("what", REQUESTS)
def test_unmarked_answers_are_the_same_to_the_byte(bare: Service, shop: Service, what: str):
    """Status, headers and body do not change by attaching, whatever the request's headers hold."""
    body = next((body for sign, body in BODIES.items() if sign in REQUESTS[what]), b"")
    whole = REQUESTS[what] + b"\r\nHost: a\r\nConnection: close\r\n\r\n" + body
    assert shop.raw(whole) == bare.raw(whole)


def test_generators_are_closed_and_middlewares_see_what_they_saw(bare: Service, shop: Service):
    """A generator's cleanup runs, finished or left half way; a middleware reads the application's context."""
    for service in (bare, shop):
        service.get("/stream?word=whole")
        service.raw(b"GET /stream?word=broken&fail=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        closed = until(lambda asked=service: [
            word for word in asked.get("/closed")[1] if word in ("whole", "broken")
        ])  # fmt: skip
        assert closed == ["whole", "broken"]
        service.get("/items/1?user=ada")
        assert service.get("/user")[1] == "ada"


def test_a_refused_mark_is_answered_403_and_nothing_runs(stage: Stage, shop: Service):
    """A forged mark gets 403 with the reason; neither the view nor a span of it exists."""
    marked = stage.marked()
    forged = marked | {"tracestate": marked["tracestate"][:-1] + "x", "baggage": ""}
    status, body = shop.get("/stream?word=forged", forged)
    assert status == 403
    assert body == {"error": "perflab: this request claims to be shadow traffic and was refused: malformed"}
    assert "forged" not in shop.get("/closed")[1]
    assert "perflab" not in json.dumps(shop.get("/items/1")[1])


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/items/7", 200, "GET /items/{number}"),
        ("POST", "/orders/a/lines/x/y", 201, "POST /orders/{order_id}/lines/{rest}"),
        ("GET", "/boom", 500, "GET /boom"),
        ("GET", "/gone", 410, "GET /gone"),
        ("GET", "/items/7?early=1", 418, "GET /items/{number}"),
        ("GET", "/nowhere", 404, "GET"),
        ("GET", "/stream", 200, "GET /stream"),
        ("GET", "/file", 200, "GET /file"),
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
    spans = stage.receiver.spans(trace_id(marked))
    assert list(spans.kind) == ["server"]


def test_a_stream_that_breaks_ends_its_span_with_the_error(stage: Stage, shop: Service):
    """What is raised while the answer is iterated stands on the span."""
    marked = stage.marked()
    with pytest.raises(http.client.IncompleteRead):
        shop.get("/stream?fail=1", marked)
    span = stage.receiver.span(trace_id(marked))
    assert (span["status"], span["attributes"]["error.type"]) == ("error", "RuntimeError")


def test_a_call_from_within_keeps_mark_and_span(stage: Stage, shop: Service):
    """An application that calls itself in its process stays in the request, named after the outer route."""
    marked = stage.marked()
    body = json.loads(shop.get(f"/within?url={stage.echo.url}", marked)[1])
    assert body["status"] == 200
    assert stage.echo.last["tracestate"] == marked["tracestate"]
    assert stage.receiver.span(trace_id(marked))["name"] == "GET /within"
    assert list(stage.receiver.spans(trace_id(marked)).kind).count("server") == 1


def test_unmarked_requests_are_traced_as_such(stage: Stage, shop: Service):
    """A real user's request has a span, at the target's ratio (all, here), that is no test's."""
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80aaaa-b7ad6b7169203331-01"}
    shop.get("/items/5", sent)
    span = stage.receiver.span(trace_id(sent))
    assert (span["name"], span["shadow"]) == ("GET /items/{number}", False)
    window = until(lambda: stage.receiver.fleet.real_users("shop").count)
    assert window


def test_a_hole_is_a_403_that_names_it_unless_it_is_accepted(stage: Stage):
    """With a hook disabled marked requests are refused by its name; a run that accepts it is served."""
    # Given a service without the hook of requests, which it imports
    service = stage.serve("flask_shop:app", service="open", disabled=("requests",))
    # When marked requests arrive, of a run that accepts the hole and of one that does not
    accepting = stage.live(accepted=("open: hook requests is off",))
    until(lambda: service.get("/items/1", stage.marked(accepting))[0] == 200, "the run being believed")
    status, body = service.get("/items/1", stage.marked())
    # Then the one is served and the other told the hole
    assert status == 403
    assert body["error"].endswith("this process would not isolate it: open: hook requests is off")
    assert service.get("/items/1")[0] == 200
    # And an uncovered driver imported later opens one too
    assert service.get("/import/pg8000")[1] == {"imported": "pg8000"}
    status, body = service.get("/items/1", stage.marked(accepting))
    assert (status, body["error"].rpartition("it: ")[2]) == (403, "open: driver pg8000 is not covered")


def test_marked_work_cannot_open_a_hole(stage: Stage):
    """An uncovered driver that marked work imports is refused at the import; others may import it after."""
    service = stage.serve("flask_shop:app", service="late")
    assert service.get("/import/zmq", stage.marked())[1] == {"error": "ShadowError"}
    assert service.get("/items/1", stage.marked())[0] == 403
    assert service.get("/import/zmq")[1] == {"imported": "zmq"}
