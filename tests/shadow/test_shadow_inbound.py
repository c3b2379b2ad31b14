"""Requests that arrive: judged by all their carriers, and served untouched when something of ours fails."""

from __future__ import annotations

import contextvars
import gc
import time
import weakref

import pytest
from attached_stage import trace_id
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from perflab.shadow import inbound, scope
from perflab.shadow.control import ControlList, ControlReader, LiveRun, encode, run_key
from perflab.shadow.inbound import Refused, begin, claims, receive
from perflab.shadow.ledger import Ledger
from perflab.shadow.mark import RunKey, mint
from perflab.shadow.scope import process

KEY = b"inbound"
RUN = LiveRun(0x4242, "run", "key", int(time.time()) + 86_400, accepted=("shop: driver fine is not covered",))


class Broken:
    """A reader of the control list that fails whatever it is asked."""

    def __getattr__(self, name: str):
        raise RuntimeError("broken")


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def run(tmp_path, spans: InMemorySpanExporter):
    """Make this process look attached, without a hook, and return the key of its live run."""
    control = tmp_path / "control.json"
    control.write_bytes(encode(ControlList(time.time(), (RUN,)), KEY))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    before = dict(vars(process))
    process.service, process.ledger, process.tracer = "shop", Ledger(), provider.get_tracer("test")
    process.control = ControlReader(str(control), KEY)
    process.control.poll()
    yield run_key(KEY, RUN)
    vars(process).clear()
    vars(process).update(before)


def apart(function, *arguments):
    """Run in a context of its own, as a server runs a request."""
    return contextvars.copy_context().run(function, *arguments)


def headers(run: RunKey, *names: str) -> dict[str, str]:
    carried = mint(run, 77).headers(5)
    return {name: carried[name] for name in names or carried}


@pytest.mark.parametrize("names", [(), ("traceparent",), ("tracestate",), ("baggage",)])
def test_a_mark_is_received_by_any_carrier(run: RunKey, names: tuple[str, ...]):
    """Whichever carriers are left, the work is marked with the same token and counted."""
    shadow = receive(headers(run, *names))[1]
    assert shadow is not None
    assert (shadow.tag, shadow.token) == (run.tag, mint(run, 77).token)
    assert process.ledger.take()["marks"] == {"marked": 1}


@pytest.mark.parametrize(
    "bent",
    [
        lambda whole: f"{whole},{whole}",
        str.upper,
        lambda whole: f"{whole[:36]}{'0' * 16}-01",
        lambda whole: f"ff{whole[2:]}",
        lambda whole: whole[:35],
    ],
    ids=["twice", "capitals", "no parent", "version", "cut off"],
)
def test_a_mark_is_received_by_a_traceparent_a_hop_has_bent(run: RunKey, bent):
    """What is no traceparent any more may still hold a trace-id that was made for a run: it affirms."""
    shadow = receive({"traceparent": bent(headers(run)["traceparent"])})[1]
    assert shadow is not None
    assert shadow.tag == run.tag
    assert receive({"traceparent": bent(f"00-{run.tag:04x}{'7' * 28}-{'7' * 16}-01")})[1] is None


def test_a_token_beside_its_member_is_a_claim(run: RunKey):
    """A whole token that is no member of its own any more is refused; who only speaks of perflab is not."""
    token = mint(run, 77).token
    for bent in (f"x=1;perflab={token}", f"tenant@perflab={token}"):
        with pytest.raises(Refused, match="malformed"):
            receive({"tracestate": bent})
    assert receive({"tracestate": "x=perflab", "baggage": "perflab"})[1] is None


def test_who_speaks_of_perflab_is_served_within_an_application_too(run: RunKey):
    """An application within another is asked with the same headers, which were judged already."""
    spoken = {"baggage": "team=perflab"}

    def serve() -> object:
        begin("GET", "/", spoken, "outer")
        return begin("GET", "/", spoken, "inner")

    assert apart(serve) is None


def test_the_parent_and_foreign_baggage_are_received(run: RunKey):
    """The caller's span becomes the parent, and other vendors' tracestate stays with it."""
    sent = headers(run) | {"tracestate": f"vendor=a,{headers(run)['tracestate']}"}
    parent, _ = receive(sent)
    span = otel.get_current_span(parent).get_span_context()
    assert (f"{span.trace_id:032x}", span.span_id) == (trace_id(sent), 5)
    assert span.trace_state["vendor"] == "a"


@pytest.mark.parametrize(
    "headers_", [{}, {"traceparent": "garbage"}, {"baggage": "perf=1", "tracestate": "é"}]
)
def test_requests_without_a_claim_are_ordinary(run: RunKey, headers_: dict[str, str]):
    """No claim, no mark, nothing counted."""
    assert receive(headers_)[1] is None
    assert process.ledger.take()["marks"] == {}


def test_refused_marks_are_counted_by_reason(run: RunKey):
    """A refused claim says why, to the caller and to the controller."""
    for _ in range(2):
        with pytest.raises(Refused, match="malformed"):
            receive({"tracestate": "perflab=nonsense"})
    assert process.ledger.take()["marks"] == {"refused: malformed": 2}


def test_a_hole_refuses_marks_unless_the_run_accepts_it(run: RunKey):
    """A process with a hole refuses marked requests by the hole's name; an accepted one is none."""
    process.ledger.uncovered.add("fine")
    assert receive(headers(run))[1] is not None
    process.ledger.hooks["psycopg"] = {"state": "off", "version": "3", "reason": ""}
    process.ledger.uncovered.add("pg8000")
    with pytest.raises(Refused) as refused:
        receive(headers(run))
    assert str(refused.value) == (
        "this process would not isolate it: shop: driver pg8000 is not covered; shop: hook psycopg is off"
    )
    assert receive({})[1] is None


def test_what_fails_on_a_request_without_a_claim_steps_aside(run: RunKey):
    """A broken control list serves ordinary requests as if we were not there, and is counted."""
    process.control = Broken()
    assert apart(begin, "GET", "/", {"traceparent": headers(run)["traceparent"]}) is None
    assert apart(begin, "GET", "/", {"baggage": "user=1"}) is None
    assert process.ledger.take()["stepped_aside"] == {"inbound: judge": 2}


@pytest.mark.parametrize("carrier", ["tracestate", "baggage"])
def test_what_fails_on_a_request_with_a_claim_refuses_it(run: RunKey, carrier: str):
    """What cannot be judged and claims a mark fails closed."""
    process.control = Broken()
    with pytest.raises(Refused, match="could not be judged"):
        apart(begin, "GET", "/", headers(run, carrier))


def test_a_broken_tracer_steps_aside_but_keeps_the_mark(run: RunKey):
    """Without a span the request is still served, and marked work is still marked."""
    process.tracer = Broken()  # type: ignore[assignment]

    def serve():
        served = begin("GET", "/", headers(run))
        served.route("/x")
        served.end(ValueError("as usual"))
        return scope.current()

    assert apart(serve).tag == run.tag
    assert process.ledger.take()["stepped_aside"] == {"inbound: span": 1}


def test_an_error_that_cannot_be_written_does_not_replace_the_services_own(run: RunKey):
    """Ending a span never raises, whatever the service raised."""

    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def serve():
        begin("GET", "/", {}).end(UnspeakableError())

    # WHEN it ends: nothing is raised, and the request is counted as any other
    apart(serve)
    assert process.ledger.take()["unmarked"]["errors"] == 1


def test_real_users_are_counted_once_and_marked_ones_never(run: RunKey):
    """A request that ends twice counts once; failures count as errors; shadow requests do not count."""

    def serve(sent: dict[str, str], status: int, error: Exception | None):
        served = begin("GET", "/", sent)
        served.status = status
        served.end(error)
        served.end()

    apart(serve, {}, 200, None)
    apart(serve, {}, 503, None)
    apart(serve, {}, 0, OSError())
    apart(serve, headers(run), 500, None)
    counted = process.ledger.take()["unmarked"]
    assert sum(counted["latency"].values()) == 3
    assert counted["errors"] == 2


def test_spans_say_what_was_served(run: RunKey, spans: InMemorySpanExporter):
    """Route, path, status and error stand on the span; marked ones say that they are a test's."""

    def serve(sent: dict[str, str], path: str, status: int, error: Exception | None):
        served = begin("GET", path, sent)
        served.route("/x/{id}")
        served.status = status
        served.end(error)

    apart(serve, {}, "/x/\ud800", 200, None)
    apart(serve, headers(run), "/x/2", 503, None)
    apart(serve, {}, "/x/3", 0, ValueError("no"))
    seen = [
        (span.name, dict(span.attributes), span.status.status_code.name)
        for span in spans.get_finished_spans()
    ]
    common = {"http.request.method": "GET", "http.route": "/x/{id}"}
    assert seen == [
        ("GET /x/{id}", {**common, "url.path": "/x/?", "http.response.status_code": 200}, "UNSET"),
        (
            "GET /x/{id}",
            {
                **common,
                "url.path": "/x/2",
                "http.response.status_code": 503,
                "error.type": "503",
                "user_agent.synthetic.type": "test",
            },
            "ERROR",
        ),
        ("GET /x/{id}", {**common, "url.path": "/x/3", "error.type": "ValueError"}, "ERROR"),
    ]


def test_a_request_within_a_request_belongs_to_it(run: RunKey):
    """An embedded application's call is part of the outer request: no second span, and its mark stays."""

    def serve(sent: dict[str, str], inner: dict[str, str]):
        begin("GET", "/outer", sent)
        return begin("GET", "/inner", inner), scope.current()

    nested, shadow = apart(serve, headers(run), {})
    assert nested is None
    assert shadow.tag == run.tag
    assert apart(serve, {}, {}) == (None, None)
    with pytest.raises(Refused, match="within an ordinary request"):
        apart(serve, {}, headers(run))


def test_a_request_after_a_request_in_one_context_is_its_own(run: RunKey):
    """A server that serves all from one task leaves no mark behind."""

    def serve():
        before = inbound.standing()
        begin("GET", "/", headers(run)).end()
        inbound.leave(before)
        after = scope.current(), otel.get_current_span().get_span_context().is_valid
        second = begin("GET", "/", {})
        return after, second is not None, scope.current()

    assert apart(serve) == ((None, False), True, None)


@pytest.mark.parametrize("names", [(), ("traceparent",)], ids=["begins here", "comes from elsewhere"])
def test_a_span_that_is_left_out_has_ids_once_it_is_asked(run: RunKey, names: tuple[str, ...]):
    """Whoever asks is told the same, it is the caller's trace where there is one, and it says unsampled."""
    # Given that no ordinary trace is recorded, and an ordinary caller or none
    process.sample_bound = 0
    sent = dict.fromkeys(names, f"00-{'7' * 32}-{'5' * 16}-01")

    def serve():
        begin("GET", "/", sent)
        return [otel.get_current_span().get_span_context() for _ in range(2)], scope.left_out()

    # When the running span is asked twice
    (first, second), left_out = apart(serve)
    # Then it has ids, once
    assert first is second
    assert left_out
    assert first.is_valid
    assert not first.trace_flags.sampled
    assert not names or f"{first.trace_id:032x}" == "7" * 32


def test_a_request_leaves_nothing_to_the_garbage_collector(run: RunKey):
    """What is kept of a request is gone with its context: no circle of references is left."""
    gc.disable()
    try:
        served = weakref.ref(apart(begin, "GET", "/", {}))
        assert served() is None
    finally:
        gc.enable()


def test_claims_are_what_speaks_of_a_mark():
    """Any word of ours in a token carrier is a claim; a trace-id alone is not."""
    assert claims({"tracestate": "a=b,perflab=x"})
    assert claims({"baggage": "perflab"})
    assert not claims({"traceparent": "00-1-2-01", "baggage": "user=7"})


def test_the_answer_to_a_refused_mark_says_why():
    """The body is JSON and names the reason."""
    assert inbound.refusal(Refused("expired")) == (
        b'{"error": "perflab: this request claims to be shadow traffic and was refused: expired"}'
    )


def test_a_copy_is_refused_and_another_call_is_not(run: RunKey):
    """The same mark below the same span is served once; below another span, or as a message, again."""
    sent = headers(run)
    assert receive(sent)[1] is not None
    for copy in (sent, headers(run, "traceparent"), headers(run, "traceparent", "baggage")):
        with pytest.raises(Refused, match="replayed"):
            receive(copy)
    assert receive(mint(run, 77).headers(6))[1] is not None
    assert receive(sent, waited=True)[1] is not None
    assert process.ledger.take()["marks"] == {"marked": 3, "refused: replayed": 3}


def test_a_message_may_be_older_than_its_token_lives(run: RunKey):
    """A server refuses an old token, a consumer takes it and goes on with a fresh one."""
    old = mint(run, 78, time.time() - 1_000).headers(5)
    with pytest.raises(Refused, match="expired"):
        receive(old)
    shadow = receive(old, waited=True)[1]
    assert shadow is not None
    assert receive({"tracestate": f"perflab={shadow.token}"})[1] is not None
