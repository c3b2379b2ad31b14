"""The open-model engine against a server that counts."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import numpy as np
import pytest

from perflab.errors import ConfigError, TargetRefused
from perflab.load.arrivals import Arrivals
from perflab.load.engine import Engine
from perflab.load.plan import Captured, Plan
from perflab.load.recording import saved_spans
from perflab.shadow.mark import judge
from perflab.traffic.answer import Checks, JsonCheck
from perflab.traffic.scenario import Endpoint, Scenario


def plan_for(target, endpoints, rate=50.0, over="1s", **more):
    """Make a plan for some endpoints; a text is the URL of a plain GET."""
    endpoints = tuple(Endpoint(url, url) if isinstance(url, str) else url for url in endpoints)
    arrivals = None if more.get("preflight") else Arrivals.constant(rate, over)
    more.setdefault("addresses", (getattr(target, "address", target),))
    return Plan("test-run", Scenario("s", endpoints), arrivals=arrivals, **more)


def send(plan, tmp_path, during=None):
    """Run an engine to its end and return it, its result and its rows."""

    async def run():
        engine = Engine(plan)
        await engine.prepare()
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(during(engine)) if during else None
            await engine.run()
            if other:
                other.cancel()
        return engine, engine.result()

    engine, result = asyncio.run(asyncio.wait_for(run(), 60))
    engine.save(tmp_path / "rows.npz")
    return engine, result, saved_spans(tmp_path / "rows.npz")


def attributes(spans):
    return [json.loads(text) for text in spans["attributes"]]


async def until(condition):
    """Poll a condition; the test's own timeout is the deadline."""
    while not condition():  # noqa: ASYNC110 - the server lives in another thread
        await asyncio.sleep(0.005)


def test_every_arrival_is_sent_once_and_is_one_row(target, mark, run_key, tmp_path):
    """The server's count is the rows' count; marks are there, valid and unique."""
    # Given two endpoints, weights 1 and 3
    endpoints = (
        Endpoint("read", "/ok?c=${canary}"),
        Endpoint("write", "/status/201", method="POST", weight=3, json={"c": "${canary}", "n": "${seq}"}),
    )
    # When 300 requests are sent
    _, result, spans = send(plan_for(target, endpoints, rate=300, mark=mark), tmp_path)
    # Then each was sent once and answered
    assert (result.offered, result.sent, result.answered, result.missed) == (300, 300, 300, 0)
    assert target.total == len(spans) == 300
    assert (spans["name"] == "write").sum() == target.asked["/status/201"]
    assert spans["shadow"].all()
    assert (spans["outcome"] == "answered").all()
    assert (np.diff(spans["scheduled_ns"]) > 0).all()
    assert (spans["start_ns"] >= spans["scheduled_ns"]).all()
    # and each bore a valid mark of its own, the trace id of its row, and its canary
    seen = {}
    for _, url, head, body in target.requests:
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        _, trace, span, flags = headers["traceparent"].split("-")
        found = judge(int(trace, 16), headers["tracestate"], headers["baggage"], {run_key.tag: run_key}, 0)
        assert (found.kind, flags) == ("marked", "01")
        assert re.fullmatch(r"perflab/[\d.]+", headers["user-agent"])
        assert f"plc-test-run-{trace}" in url + body.decode()
        seen[trace] = int(span, 16)
    assert seen == dict(zip(spans["trace_id"].astype(str), spans["span_id"].tolist(), strict=True))
    assert len(seen) == 300


def test_without_a_key_requests_carry_an_ordinary_trace(target, tmp_path):
    """A plain load test has a traceparent and no mark, and its rows are not shadow."""
    _, _, spans = send(plan_for(target, ["/ok"], rate=5), tmp_path)
    assert not spans["shadow"].any()
    head = target.requests[0][2]
    assert "traceparent: 00-" in head
    assert "tracestate" not in head
    assert "baggage" not in head


@pytest.mark.parametrize(
    ("endpoint", "outcome", "reason"),
    [
        ("/ok", "answered", None),
        ("/chunked", "answered", None),
        ("/last", "answered", None),
        ("/moved", "answered", None),
        ("/status/404", "check_failed", "status 404"),
        (Endpoint("head", "/ok", method="HEAD"), None, None),
        ("/status/503", "check_failed", "status 503"),
        (Endpoint("c", "/ok", checks=Checks(status=(201,))), "check_failed", "status 200"),
        (Endpoint("c", "/ok", checks=Checks(contains=("no",))), "check_failed", "body lacks 'no'"),
        (Endpoint("c", "/gzip", checks=Checks(json=(JsonCheck("$.id", equals=1),))), "answered", None),
        (Endpoint("c", "/chunked", checks=Checks(json=(JsonCheck("$.id", equals=1),))), "answered", None),
        (Endpoint("c", "/after/60", checks=Checks(max_ms=30)), "check_failed", "slower than 30 ms"),
        ("/reset", "reset", None),
        ("/close", "closed", "closed without an answer"),
        ("/half", "closed", "closed half way"),
        ("/nonsense", "malformed", None),
        ("/endless", "malformed", None),
        ("/hang", "timeout", "no byte of an answer"),
    ],
)
def test_every_ending_has_its_name(target, tmp_path, endpoint, outcome, reason):
    """Whatever a server does is a named outcome of every request, and its count agrees."""
    if outcome is None:  # this server answers HEAD with a body, which must not be taken for an answer
        outcome = "answered"
    _, result, spans = send(plan_for(target, [endpoint], rate=100, over="200ms", timeout_s=0.5), tmp_path)
    assert result.outcomes == {outcome: 20}
    assert target.total == result.sent == len(spans) == 20
    assert set(spans["status"]) == {"unset" if outcome == "answered" else "error"}
    told = [found.get("reason") for found in attributes(spans)]
    if reason:
        assert set(told) == {reason}
    if outcome == "timeout":
        assert ((spans["duration_ns"] >= 5e8) & (spans["duration_ns"] < 9e8)).all()


def test_nobody_listening_and_nobody_accepting(tmp_path):
    """A refused connection and one that is never made are told apart."""
    # Given a port nobody listens on, and one whose queue of connections is full
    with socket.socket() as free, socket.socket() as full:
        free.bind(("127.0.0.1", 0))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        nobody, busy = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in (free, full))
        _, refused, _ = send(plan_for(nobody, ["/ok"], rate=10), tmp_path)
        with socket.create_connection(full.getsockname()):
            _, waiting, _ = send(
                plan_for(busy, ["/ok"], rate=10, connect_timeout_s=0.3, timeout_s=1), tmp_path
            )
    # Then each says so
    assert refused.outcomes == {"refused": 10}
    assert waiting.outcomes["connect_timeout"] >= 9
    assert waiting.sent == 10


def test_a_full_bound_misses_instead_of_waiting(target, tmp_path):
    """Beyond the in-flight bound arrivals are missed, with the reason; none is lost."""
    plan = plan_for(target, ["/hang"], rate=40, timeout_s=5, max_in_flight=3)

    async def during(engine):
        await until(lambda: engine.progress().offered == 40)
        engine.abandon("enough")

    _, result, spans = send(plan, tmp_path, during)
    assert (result.sent, result.missed, result.offered) == (3, 37, 40)
    assert result.missed_reasons == {"in-flight bound reached": 37}
    assert result.outcomes == {"abandoned": 3, "missed": 37}
    assert target.total == 3
    missed = spans[spans["outcome"] == "missed"]
    assert (missed["duration_ns"] == 0).all()
    assert (missed["scheduled_ns"] > 0).all()


def test_a_bounded_pool_makes_requests_wait_and_says_how_long(target, tmp_path):
    """With one connection and 50 ms an answer, requests queue for it; their wait is in their latency."""
    _, result, spans = send(
        plan_for(target, ["/after/50"], rate=40, over="500ms", max_connections=1), tmp_path
    )
    assert result.outcomes == {"answered": 20}
    assert result.late >= 18
    latency = (spans["start_ns"] + spans["duration_ns"] - spans["scheduled_ns"]).to_numpy()
    # the last is due at 475 ms and answered after twenty times 50 ms
    assert latency[-1] >= 20 * 50e6 - 475e6
    assert target.connections <= 2


def test_waiting_too_long_for_a_connection_is_missed(target, tmp_path):
    """A request not begun within the timeout never is."""
    plan = plan_for(target, ["/hang"], rate=10, timeout_s=0.4, max_connections=1)
    _, result, _ = send(plan, tmp_path)
    assert result.outcomes.keys() == {"timeout", "missed"}
    assert result.missed_reasons.keys() == {"no connection came free within the timeout"}
    assert target.total == result.sent == result.offered - result.missed


def test_a_stop_begins_nothing_more_and_lets_the_rest_end(target, tmp_path):
    """After a stop nothing more is sent; what is in flight is answered."""
    sent_at_stop = []

    async def during(engine):
        await until(lambda: target.total >= 20)
        engine.stop("guard")
        sent_at_stop.append(engine.progress().sent)

    _, result, spans = send(plan_for(target, ["/after/200"], rate=100, over="10s"), tmp_path, during)
    assert result.stopped == "guard"
    assert result.sent + result.missed == result.offered == len(spans)
    assert result.not_begun == 1000 - result.offered
    assert target.total == result.sent == result.answered
    assert result.sent == sent_at_stop[0]


def test_captured_values_are_used_and_stood_in_for(target, tmp_path):
    """Without a captured value its producer is sent instead, and both rows and counts say so."""
    endpoints = (
        Endpoint("use", "/use/${order_id}", weight=3),
        Endpoint("make", "/id", method="POST", capture={"order_id": "$.id"}),
    )
    _, result, spans = send(plan_for(target, endpoints, rate=60), tmp_path)
    assert result.outcomes == {"answered": 60}
    stood_in = [found for found in attributes(spans) if found.get("substituted_for") == "use"]
    assert len(stood_in) == result.substituted >= 1
    assert {found["endpoint"] for found in stood_in} == {"make"}
    assert (spans["name"] == "make").sum() == target.asked["/id"]
    # values arrive percent-encoded, so that they stay one segment of the path
    used = [path for path in target.asked if path.startswith("/use/")]
    assert used
    assert all(re.fullmatch(r"/use/n%2F\d+", path) for path in used)


def test_a_preflight_sends_each_endpoint_once_in_order(target, mark, tmp_path):
    """One request per endpoint, producers first; what they gave is handed on."""
    endpoints = (
        Endpoint("use", "/use/${order_id}", weight=9),
        Endpoint("make", "/id", capture={"order_id": "$.id"}),
        Endpoint("bad", "/status/500"),
    )
    _, result, _ = send(plan_for(target, endpoints, preflight=True, mark=mark), tmp_path)
    assert [(sample.endpoint, sample.outcome, sample.status) for sample in result.samples] == [
        ("make", "answered", 201),
        ("bad", "check_failed", 500),
        ("use", "answered", 200),
    ]
    assert [url for _, url, _, _ in target.requests] == ["/id", "/status/500", "/use/n%2F1"]
    assert result.captured == (Captured("make", {"order_id": "n/1"}),)
    assert all(sample.trace_id in target.requests[at][2] for at, sample in enumerate(result.samples))
    # and a run that begins with it need not stand in
    plan = plan_for(target, endpoints[:2], rate=20, captured=result.captured)
    assert send(plan, tmp_path)[1].substituted == 0


def test_a_preflight_whose_producer_fails_says_so(target, tmp_path):
    """The endpoint that lacks its value is missed, with the reason."""
    endpoints = (
        Endpoint("make", "/status/500", capture={"order_id": "$.id"}),
        Endpoint("use", "/use/${order_id}"),
    )
    _, result, _ = send(plan_for(target, endpoints, preflight=True), tmp_path)
    assert [sample.outcome for sample in result.samples] == ["check_failed", "missed"]
    assert "order_id" in result.samples[1].reason


def test_connections_are_kept_and_replaced(target, tmp_path):
    """A calm run needs the warmed connections only; a server that closes costs one each."""
    _, result, _ = send(plan_for(target, ["/ok"], rate=20, warm_connections=2), tmp_path)
    assert result.connections <= 4
    before = target.connections
    _, result, _ = send(plan_for(target, ["/last"], rate=20, warm_connections=0), tmp_path)
    assert result.outcomes == {"answered": 20}
    assert target.connections - before == 20


def test_nothing_leaves_the_approved_addresses(target, tmp_path):
    """Absolute URLs elsewhere are refused before anything starts; redirects are not followed."""
    with pytest.raises(TargetRefused, match=r"127\.0\.0\.2:80 is not among"):
        Engine(plan_for(target, ["http://127.0.0.2/ok"]))
    with pytest.raises(ConfigError):
        Engine(plan_for(target, ["/ok"], addresses=()))
    # other spellings of the approved address are the approved address
    _, result, _ = send(plan_for(target, [f"http://2130706433:{target.port}/moved"], rate=5), tmp_path)
    assert result.outcomes == {"answered": 5}
    assert target.asked == {"/moved": 5}


def test_random_faults_lose_nothing(target, tmp_path):
    """With every fault mixed, sent = answered + named failures, and the server's count agrees."""
    faults = ["/ok", "/reset", "/half", "/close", "/last", "/nonsense", "/after/20", "/status/500", "/hang"]
    _, result, spans = send(plan_for(target, faults, rate=300, over="2s", timeout_s=0.5), tmp_path)
    assert result.offered == result.sent == 600 == len(spans)
    assert target.total == 600
    by_name = spans.groupby(["name", "outcome"], observed=True).size()
    for path, outcome in zip(faults[:4], ["answered", "reset", "closed", "closed"], strict=True):
        assert by_name[path].to_dict() == {outcome: target.asked[path]}
    assert by_name["/hang"].to_dict() == {"timeout": target.asked["/hang"]}


def test_the_same_seed_asks_for_the_same(target, tmp_path):
    """Endpoints, random values and due times repeat; ids never do."""
    endpoints = (Endpoint("a", "/ok?n=${random:1:1000000}"), Endpoint("b", "/ok?u=${uuid}"))
    asked = []
    for _ in range(2):
        target.requests.clear()
        _, _, spans = send(plan_for(target, endpoints, rate=40, seed=7, max_connections=1), tmp_path)
        offsets = spans["scheduled_ns"] - spans["scheduled_ns"].iloc[0]
        asked.append(([url for _, url, _, _ in target.requests], offsets.tolist(), set(spans["trace_id"])))
    assert asked[0][:2] == asked[1][:2]
    assert not asked[0][2] & asked[1][2]
