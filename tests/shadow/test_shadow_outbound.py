"""Calls that leave a service: marked ones decided before they are sent, ordinary ones left as they are."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from attached_stage import Echo, Service, Stage, stage_in, trace_id, until

from perflab.config import Outbound
from perflab.shadow.outbound import Peers

CLIENTS = [("flask", "requests"), ("flask", "httpx"), ("fastapi", "httpx")]
DENIED = "outgoing calls are denied unless the target lists the peer under 'outbound'"


@dataclass(frozen=True)
class Town:
    """The services under test, and their peers."""

    stage: Stage
    services: dict[str, Service]
    bare: dict[str, Service]
    allowed: Echo
    bank: Echo
    stub: Echo
    denied: Echo
    dead: str


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with ExitStack() as stack:
        stage = stack.enter_context(stage_in(tmp_path_factory.mktemp("stage")))
        allowed, bank, stub, denied = (stack.enter_context(Echo()) for _ in range(4))
        silent = stack.enter_context(socket.socket())  # bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        target = {
            "outbound": (
                Outbound("maps", allowed.address, "allow"),
                Outbound("bank", bank.address, "stub", stub.address),
                Outbound("mail", denied.address),
                Outbound("dead", dead, "allow"),
            )
        }
        wheres = {"flask": "flask_shop:app", "fastapi": "fastapi_shop:app"}
        yield Town(
            stage,
            {name: stage.serve(where, service=name, target=target) for name, where in wheres.items()},
            {name: stage.serve(where, attached=False) for name, where in wheres.items()},
            allowed,
            bank,
            stub,
            denied,
            dead,
        )


def body_of(said: dict) -> tuple[dict, str, list[str]]:
    """Return what a service's client saw: the peer's echo, the answer's URL, the request's header names."""
    text, url, names = said["body"]
    return json.loads(text), url, names


@pytest.mark.parametrize(("service", "client"), CLIENTS)
def test_a_marked_call_to_an_attached_service_carries_the_mark(town: Town, service: str, client: str):
    """All three carriers go on, the parent is the call's own span, and the service's request is unchanged."""
    # Given a peer that is an attached service
    marked = town.stage.marked()
    # When marked work calls it
    echo, url, names = body_of(town.services[service].call(client, town.stage.echo.url, marked))
    # Then the mark goes on, below the span of this call
    span = town.stage.receiver.span(trace_id(marked), "client")
    assert (span["name"], span["shadow"], span["service"]) == ("GET echo", True, service)
    assert echo["traceparent"] == f"00-{trace_id(marked)}-{span['span_id']:016x}-01"
    assert (echo["tracestate"], echo["baggage"]) == (marked["tracestate"], marked["baggage"])
    host, _, port = town.stage.echo.address.partition(":")
    assert span["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "peer.service": "echo",
        "server.address": host,
        "server.port": int(port),
        "url.path": "/",
    }
    # And the service sees the request it made
    assert url == town.stage.echo.url
    assert not {"traceparent", "tracestate", "baggage"} & {name.lower() for name in names}


@pytest.mark.parametrize(("service", "client"), CLIENTS)
def test_peers_outside_are_allowed_stubbed_or_denied(town: Town, service: str, client: str):
    """What the target says of a peer is what becomes of a marked call to it."""
    # Given an allowed, a stubbed, a denied and an unlisted peer
    called = town.services[service]
    sizes = {name: len(getattr(town, name).received) for name in ("bank", "denied")}
    # When marked work calls each
    marked = town.stage.marked()
    allowed = called.call(client, town.allowed.url, marked)
    stubbed = called.call(client, f"{town.bank.url}pay?sum=1", marked)
    denied = called.call(client, town.denied.url, marked)
    unlisted = called.call(client, town.stage.outside.url, marked)
    # Then the first is made and the second goes to the stub, unseen by the service
    assert allowed["status"] == 200
    echo, url, _ = body_of(stubbed)
    assert (echo[":path"], echo["host"]) == ("/pay?sum=1", town.stub.address)
    assert echo["tracestate"] == marked["tracestate"]
    assert url == f"{town.bank.url}pay?sum=1"
    # And the others are refused before anything is sent
    assert [said["error"] for said in (denied, unlisted)] == ["perflab.errors.ShadowError"] * 2
    assert DENIED in denied["message"]
    assert sizes == {name: len(getattr(town, name).received) for name in ("bank", "denied")}
    assert town.stage.outside.received == []
    span = town.stage.receiver.span(trace_id(marked), "client", f"GET {town.stage.outside.address}")
    assert (span["status"], span["attributes"]["error.type"]) == ("error", "ShadowError")
    assert town.stage.receiver.span(trace_id(marked), "client", "GET bank")["attributes"][
        "perflab.stubbed_to"
    ]


def test_what_became_of_marked_calls_is_reported(town: Town):
    """The controller hears of every peer outside and of every refusal, with its trace."""
    marked = town.stage.marked()
    town.services["flask"].call("requests", town.denied.url, marked)
    town.services["flask"].call("requests", town.bank.url, marked)
    fleet = town.stage.receiver.fleet
    refusal = until(
        lambda: next((seen for seen in fleet.refusals if seen["trace_id"] == trace_id(marked)), None)
    )
    assert (refusal["service"], refusal["store"]) == ("flask", town.denied.address)
    seen = until(lambda: {(call["name"], call["action"]) for call in fleet.outbound()})
    assert {("mail", "deny"), ("bank", "stub")} <= seen


@pytest.mark.parametrize(("service", "client"), CLIENTS)
def test_each_hop_of_a_redirect_is_decided(town: Town, service: str, client: str):
    """A redirect to a denied peer is refused; a stub's relative one stays with the stub."""
    called, marked = town.services[service], town.stage.marked()
    said = called.call(client, f"{town.allowed.url}to?{town.denied.url}", marked)
    assert DENIED in said["message"]
    assert town.denied.received == []
    size = len(town.bank.received)
    echo, url, _ = body_of(called.call(client, f"{town.bank.url}to?/next", marked))
    assert (echo[":path"], echo["host"]) == ("/next", town.stub.address)
    assert echo["tracestate"] == marked["tracestate"]
    assert url == f"{town.bank.url}next"
    assert len(town.bank.received) == size


@pytest.mark.parametrize("client", ["requests", "httpx"])
def test_headers_of_others_are_kept(town: Town, client: str):
    """What the caller sent on and what the service sets of its own travel beside the mark."""
    # Given a marked request that also carries another vendor's entries
    marked = town.stage.marked()
    sent = marked | {
        "tracestate": f"up=1,{marked['tracestate']}",
        "baggage": f"tenant=a,{marked['baggage']}",
    }
    # When the service sets neither, then both
    echo, _, _ = body_of(town.services["flask"].call(client, town.stage.echo.url, sent))
    own, _, names = body_of(town.services["flask"].call(client, town.stage.echo.url, sent, own="1"))
    # Then the mark is first and once, and the others are there
    assert echo["tracestate"].split(",") == [marked["tracestate"], "up=1"]
    assert sorted(echo["baggage"].split(",")) == sorted([marked["baggage"], "tenant=a"])
    assert own["tracestate"].split(",") == [marked["tracestate"], "vendor=1;x", "other=2"]
    assert own["baggage"].split(",") == [marked["baggage"], "user=7;ttl=1"]
    assert own["x-own"] == "kept"
    assert {"tracestate", "baggage"} <= {name.lower() for name in names}


@pytest.mark.parametrize(("service", "client"), CLIENTS)
def test_ordinary_calls_are_unchanged(town: Town, service: str, client: str):
    """Real users' calls go where they went, with the headers they had, to peers of every kind."""
    traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "user=7"}
    for peer in (town.allowed, town.bank, town.denied, town.stage.outside):
        for own in ({}, {"own": "1"}):
            said = [
                body_of(side[service].call(client, peer.url, traced, **own))
                for side in (town.services, town.bare)
            ]
            assert said[0] == said[1]
    assert town.stub.received == [] or "perflab" in town.stub.last["tracestate"]
    town.stage.outside.received.clear()
    town.denied.received.clear()


def test_an_ordinary_call_to_a_service_continues_a_sampled_trace_only(town: Town):
    """Trace headers are added where the trace is recorded, the peer is ours, and there are none already."""
    traced = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "user=7"}
    echo, _, _ = body_of(town.services["flask"].call("requests", town.stage.echo.url, traced))
    assert echo["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert echo["baggage"] == "user=7"
    own, _, _ = body_of(town.services["flask"].call("requests", town.stage.echo.url, traced, own="1"))
    assert (own["tracestate"], own["baggage"]) == ("vendor=1;x,other=2", "user=7;ttl=1")
    never = town.stage.serve("flask_shop:app", service="unsampled", target={"sample_ratio": 0.0})
    echo, _, _ = body_of(never.call("requests", town.stage.echo.url, traced))
    assert not {"traceparent", "tracestate", "baggage"} & set(echo)
    marked = town.stage.marked()
    assert "perflab" in body_of(never.call("requests", town.stage.echo.url, marked))[0]["tracestate"]
    assert town.stage.receiver.span(trace_id(marked))["service"] == "unsampled"


@pytest.mark.parametrize(("service", "client"), CLIENTS)
def test_errors_end_the_span(town: Town, service: str, client: str):
    """A bad status, a timeout and a refused connection are errors of the call's span."""
    called = town.services[service]
    bad, slow, gone = town.stage.marked(), town.stage.marked(), town.stage.marked()
    assert called.call(client, f"{town.stage.echo.url}status/503", bad)["status"] == 503
    late = called.call(client, f"{town.stage.echo.url}slow", slow)["error"]
    assert late.endswith("ReadTimeout")
    refused = called.call(client, f"http://{town.dead}/", gone)["error"]
    assert refused.endswith(("ConnectionError", "ConnectError"))
    assert called.call(client, f"http://{town.dead}/")["error"] == refused
    spans = [town.stage.receiver.span(trace_id(headers), "client") for headers in (bad, slow, gone)]
    assert [(span["status"], span["attributes"]["error.type"]) for span in spans] == [
        ("error", "503"),
        ("error", "ReadTimeout"),
        ("error", refused.rpartition(".")[2]),
    ]


def test_a_call_that_cannot_be_decided_is_refused_when_marked_and_made_when_not(town: Town):
    """With its own records broken the hook lets ordinary calls pass and fails closed on marked ones."""
    code = """
import requests
from perflab.shadow import outbound
from perflab.shadow.scope import process
outbound.peers = None
url, token = sys.argv[1:]
print(requests.get(url).status_code, dict(process.ledger.take()["stepped_aside"]))
try:
    marked(token, requests.get, url)
except Exception as error:
    print(type(error).__name__, "could not decide" in str(error))
"""
    token = town.stage.marked()["tracestate"].partition("=")[2]
    heard = len(town.stage.echo.received)
    said = town.stage.script(code, town.stage.echo.url, token)
    assert said.stdout.splitlines() == ["200 {'outbound: begin': 1}", "ShadowError True"], said.stderr
    assert len(town.stage.echo.received) == heard + 1


def test_a_killed_runs_work_in_flight_is_refused_at_its_next_call(town: Town):
    """The run is asked for again at each call, not only when the request came in."""
    code = """
import requests, time
from perflab.shadow.scope import process
url, token, control = sys.argv[1:]
def work():
    first = requests.get(url).status_code
    tag = int(token[2:6], 16)
    print(first, flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + 5
    while process.control.is_live(tag) and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        requests.get(url)
    except Exception as error:
        print(error, flush=True)
marked(token, work)
"""
    run = town.stage.live()
    token = town.stage.marked(run)["tracestate"].partition("=")[2]
    process = town.stage.interactive(code, town.stage.echo.url, token, str(town.stage.control))
    assert process.stdout.readline() == "200\n"
    town.stage.publisher.kill(run.tag)
    said, _ = process.communicate("go on\n", timeout=20)
    assert said.endswith("the run is not live any more\n")


def test_peers_are_named_by_who_they_are():
    """A peer's name is the target's for it, whatever is listed first; unknown ones are their address."""
    peers = Peers({"a:1": "cart", "b:2": "stock"}, {"b:2": Outbound("depot", "b:2")})
    assert [peers.name(address) for address in ("a:1", "b:2", "c:3")] == ["cart", "depot", "c:3"]
