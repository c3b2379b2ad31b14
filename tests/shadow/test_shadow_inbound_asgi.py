"""A FastAPI service under uvicorn, attached and not: what real users get is the same to the byte."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from attached_stage import Service, Stage, stage_in, trace_id, until


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(stage: Stage) -> Service:
    return stage.serve("fastapi_shop:app", attached=False)


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Service:
    return stage.serve("fastapi_shop:app")


REQUESTS = {
    "json": b"GET /items/7 HTTP/1.1",
    "head": b"HEAD /items/7 HTTP/1.1",
    "body": b"POST /api/orders/a%C3%A9 HTTP/1.1\r\nContent-Length: 5",
    "mounted": b"GET /below/things/x HTTP/1.1",
    "deep": b"GET /plain/deep/acme/r/7 HTTP/1.1",
    "slash": b"GET /items/7/ HTTP/1.1",
    "stream": b"GET /stream HTTP/1.1",
    "broken stream": b"GET /stream?fail=1 HTTP/1.1",
    "exception": b"GET /boom HTTP/1.1",
    "abort": b"GET /gone HTTP/1.1",
    "no route": b"GET /nowhere HTTP/1.1",
    "wrong method": b"DELETE /items/7 HTTP/1.1",
    "not valid": b"GET /stream?fail=perhaps HTTP/1.1",
    "scope": b"GET /scope HTTP/1.1",
    "garbage": b"GET /items/7 HTTP/1.1\r\ntraceparent: \xff\r\ntracestate: \xe9=\xe9,,=\r\nbaggage: ;;=,\xe9",
    "twice": b"GET /items/7 HTTP/1.1\r\ntraceparent: 1\r\ntraceparent: 2\r\nbaggage: a=1\r\nbaggage: b=2",
    "huge": b"GET /items/7 HTTP/1.1\r\nbaggage: " + b"k=v," * 8_000,
}


@pytest.mark.parametrize("what", REQUESTS)
def test_unmarked_answers_are_the_same_to_the_byte(bare: Service, shop: Service, what: str):
    """Status, headers, body and even the scope's keys do not change by attaching."""
    body = b"hello" if b"Content-Length: 5" in REQUESTS[what] else b""
    whole = REQUESTS[what] + b"\r\nHost: a\r\nConnection: close\r\n\r\n" + body
    assert shop.raw(whole) == bare.raw(whole)


TALK = """
import asyncio, json, sys
from fastapi_shop import app

async def talk(headers):
    heard = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hi"}]
    said = []

    async def receive():
        return heard.pop(0)

    async def send(message):
        said.append(message)

    headers = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "websocket", "path": "/ws", "headers": headers, "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    return [(message["type"], message.get("text", "")) for message in said]

print(json.dumps([asyncio.run(talk(headers)) for headers in json.loads(sys.argv[1])]))
"""


def test_websockets_of_real_users_are_not_touched_and_marked_ones_refused(stage: Stage):
    """An unmarked WebSocket talks as before; a marked or forged one is closed before it is accepted."""
    # Given two handshakes of real users, one marked by each carrier, and a forged one
    users = [[], [("traceparent", "garbage"), ("baggage", "user=7")]]
    marked = [[carrier] for carrier in stage.marked().items()]
    forged = [[("tracestate", "perflab=forged")]]
    # When an application talks to each
    said = stage.script(TALK, json.dumps([*users, *marked, *forged]))
    # Then only real users are talked to
    assert not said.stderr
    talked = [["websocket.accept", ""], ["websocket.send", "heard hi"], ["websocket.close", ""]]
    assert json.loads(said.stdout) == [talked] * 2 + [[["websocket.close", ""]]] * 4


def test_a_refused_mark_is_answered_403(stage: Stage, shop: Service):
    """A forged mark gets 403 with the reason, over a connection that goes on to serve others."""
    marked = stage.marked()
    status, body = shop.get("/items/7", marked | {"baggage": "perflab=1.forged"})
    assert (status, body["error"].rpartition(": ")[2]) == (403, "contradiction")
    assert shop.get("/items/7", marked)[0] == 200


def test_a_mark_that_came_in_several_headers_is_found(stage: Stage, shop: Service):
    """Repeated tracestate and baggage headers are one list: the mark in the first of them counts."""
    token = stage.marked()["tracestate"]
    sent = f"tracestate: {token}\r\ntracestate: vendor=1\r\nbaggage: {token}\r\nbaggage: user=7"
    url = f"/call?client=httpx&url={stage.echo.url}"
    answer = shop.raw(f"GET {url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{sent}\r\n\r\n".encode())
    assert b"200 OK" in answer
    assert stage.echo.last["tracestate"].startswith(token)
    assert "user=7" in stage.echo.last["baggage"]


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/items/7", 200, "GET /items/{number}"),
        ("POST", "/api/orders/7", 201, "POST /api/orders/{order_id}"),
        ("GET", "/below/things/x", 200, "GET /below/things/{name}"),
        ("GET", "/below/nowhere", 404, "GET"),
        ("GET", "/plain/deep/acme/r/7", 200, "GET /plain/deep/{tenant}/r/{id}"),
        ("GET", "/boom", 500, "GET /boom"),
        ("GET", "/gone", 410, "GET /gone"),
        ("GET", "/nowhere", 404, "GET"),
        ("GET", "/stream", 200, "GET /stream"),
    ],
)
def test_a_marked_request_is_one_server_span(
    stage: Stage, shop: Service, method: str, path: str, status: int, name: str
):
    """One span per request, mounted applications included, named by method and whole route template."""
    marked = stage.marked()
    assert shop.get(path, marked, method)[0] == status
    span = stage.receiver.span(trace_id(marked))
    assert (span["name"], span["shadow"]) == (name, True)
    assert f"{span['parent_span_id']:016x}" == marked["traceparent"].split("-")[2]
    assert span["attributes"]["http.response.status_code"] == status
    assert span["status"] == ("error" if status >= 500 else "unset")
    assert list(stage.receiver.spans(trace_id(marked)).kind) == ["server"]


def test_background_tasks_are_marked_and_waited_for_by_nobody(stage: Stage, shop: Service):
    """What runs after the answer keeps the mark; the request's span ended with its last byte."""
    # Given a task that sleeps 300 ms after the answer, then calls a peer
    marked = stage.marked()
    heard = len(stage.echo.received)
    assert shop.get(f"/later?url={stage.echo.url}", marked)[0] == 200
    # When it calls
    until(lambda: len(stage.echo.received) > heard, "the task's call")
    # Then the call is marked, and the server span is shorter than the task
    assert stage.echo.last["tracestate"] == marked["tracestate"]
    served = stage.receiver.span(trace_id(marked))
    called = stage.receiver.span(trace_id(marked), "client")
    assert served["duration_ns"] < 250e6
    assert called["start_ns"] > served["start_ns"] + served["duration_ns"]
    # And to a peer that is not allowed the task may not go
    shop.get(f"/later?url={stage.outside.url}", stage.marked())
    until(lambda: any(stage.outside.address in refusal["store"] for refusal in stage.receiver.fleet.refusals))
    assert stage.outside.received == []


def test_real_users_wait_is_measured_to_the_last_byte(stage: Stage, shop: Service):
    """Background work after the answer is no latency of a real user's."""
    fleet = stage.receiver.fleet
    before = until(lambda: fleet.real_users("shop"))
    shop.get(f"/later?url={stage.echo.url}")
    window = until(lambda: fleet.real_users("shop").latency - before.latency)
    assert sum(window.values()) == 1
    assert fleet.real_users("shop").count == before.count + 1
    longest = max(window)
    assert 1.04**longest / 1000 < 250  # ms: bucket of the whole wait


def test_a_call_from_within_keeps_mark_and_span(stage: Stage, shop: Service):
    """An application that is called in its own process stays in the request that calls it."""
    marked = stage.marked()
    assert shop.get(f"/within?url={stage.echo.url}", marked)[1]["status"] == 200
    assert stage.echo.last["tracestate"] == marked["tracestate"]
    assert stage.receiver.span(trace_id(marked))["name"] == "GET /within"
    assert list(stage.receiver.spans(trace_id(marked)).kind).count("server") == 1
    heard = len(stage.echo.received)
    assert shop.get(f"/within?url={stage.echo.url}")[1]["status"] == 200
    assert "perflab" not in str(stage.echo.received[heard:])


def test_a_planted_delay_is_waited_for_at_its_route(stage: Stage, shop: Service):
    """A delay named as tables print the operation slows that route and no other, and no real user."""
    stage.publisher.delay({"shop: GET /items/{number}": 300_000_000})
    try:

        def slow() -> bool:
            marked = stage.marked()
            assert shop.get("/items/1", marked)[0] == 200
            return bool(stage.receiver.span(trace_id(marked))["duration_ns"] > 300e6)

        until(slow, "the delay being believed")
        marked = stage.marked()
        shop.get("/gone", marked)
        assert stage.receiver.span(trace_id(marked))["duration_ns"] < 300e6
        began_s = time.monotonic()
        assert shop.get("/items/1")[0] == 200
        assert time.monotonic() - began_s < 0.3
    finally:
        stage.publisher.delay({})
