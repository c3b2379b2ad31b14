"""The receiver over real HTTP: answers, refusals, limits, losses, and what it leaves behind."""

import asyncio
import gzip
import json
import socket
import zlib

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from perflab.errors import ConfigError, PerflabError, TraceError
from perflab.trace.collector import Collector
from perflab.trace.tree import link

_PROTOBUF = "application/x-protobuf"


def _body(*span_ids, trace=1):
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = part.scope_spans.add()
    for span_id in span_ids:
        scope.spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=span_id.to_bytes(8, "big"),
            name="work",
            start_time_unix_nano=1000 + span_id,
            end_time_unix_nano=2000 + span_id,
        )
    return request.SerializeToString()


async def _post(url, body, content_type=_PROTOBUF, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Content-Type": content_type, **headers}) as answer,
    ):
        return answer.status, await answer.read(), answer.content_type


async def _post_traces(collector, body, content_type=_PROTOBUF, **headers):
    return await _post(f"{collector.url}/v1/traces", body, content_type, **headers)


def test_answers_in_the_same_encoding():
    """All accepted is an empty answer, refused spans a partial success, in protobuf as in JSON."""

    async def ask():
        async with Collector("127.0.0.1:0") as collector:
            good = await _post_traces(collector, _body(1, 2))
            partial = await _post_traces(collector, _body(3, 0, 0))
            span = {"traceId": "01" * 16, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
            spans = [{**span, "spanId": "00" * 7 + "07"}, {**span, "spanId": ""}]
            text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
            in_json = await _post_traces(collector, text, "application/json; charset=utf-8")
            empty = await _post_traces(collector, "{}", "application/json")
            return good, partial, in_json, empty, collector.received, collector.spans()

    # When
    good, partial, in_json, empty, received, spans = asyncio.run(ask())
    # Then
    assert good == (200, b"", _PROTOBUF)
    told = ExportTraceServiceResponse.FromString(partial[1]).partial_success
    assert (partial[0], partial[2], told.rejected_spans) == (200, _PROTOBUF, 2)
    assert "spans[1]: span id '0000000000000000'" in told.error_message
    assert in_json[0] == 200
    assert json.loads(in_json[1])["partialSuccess"]["rejectedSpans"] == "1"
    assert (empty[0], json.loads(empty[1]), empty[2]) == (200, {}, "application/json")
    assert sorted(spans["span_id"]) == [1, 2, 3, 7]
    assert (received.spans, received.batches, received.refused, received.malformed) == (4, 4, 3, 0)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status", "words"),
    [
        (b"\x0a\xff", _PROTOBUF, "", 400, "OTLP/protobuf body of 2 bytes"),
        (b"{", "application/json", "", 400, "truncated"),
        (b"hello", "text/plain", "", 415, "send application/x-protobuf or application/json, not text/plain"),
        (_body(1), _PROTOBUF, "zstd", 415, "Content-Encoding 'zstd'"),
        (b"no gzip", _PROTOBUF, "gzip", 400, "no gzip"),
        (gzip.compress(_body(1, 2))[:-9], _PROTOBUF, "gzip", 400, "cut short"),
        (gzip.compress(b"\0" * 3_000_000), _PROTOBUF, "gzip", 413, "larger than 2000000 bytes"),
        (b"\0" * 2_000_001, _PROTOBUF, "", 413, "larger than 2000000 bytes"),
    ],
    ids=["no protobuf", "no json", "text", "zstd", "no gzip", "cut short", "large unzipped", "large"],
)
def test_bad_requests_are_refused_and_the_receiver_goes_on(body, content_type, encoding, status, words):
    """Each fault has its status and says what is wrong; the next good request is accepted."""

    async def ask():
        async with Collector("127.0.0.1:0", max_body_bytes=2_000_000) as collector:
            headers = {"Content_Encoding": encoding} if encoding else {}
            bad = await _post_traces(collector, body, content_type, **headers)
            good = await _post_traces(collector, zlib.compress(_body(1)), Content_Encoding="deflate")
            return bad, good, collector.received.spans

    # When
    (bad_status, answer, answer_type), good, spans = asyncio.run(ask())
    # Then
    assert bad_status == status
    is_protobuf = answer_type == _PROTOBUF
    told = Status.FromString(answer).message if is_protobuf else json.loads(answer)["message"]
    assert words in told
    assert is_protobuf == (content_type == _PROTOBUF)
    assert (good[0], spans) == (200, 1)


def test_large_bodies_and_many_at_once():
    """Bodies decoded beside the event loop and many concurrent senders lose nothing and double nothing."""

    async def ask():
        async with Collector("127.0.0.1:0") as collector:
            bodies = [_body(*range(1, 5001), trace=trace) for trace in range(1, 9)]
            bodies += [_body(1, 2, trace=trace) for trace in range(9, 60)]
            answers = await asyncio.gather(*(_post_traces(collector, body) for body in bodies))
            return {answer[0] for answer in answers}, collector.spans()

    # When
    statuses, spans = asyncio.run(ask())
    # Then
    assert statuses == {200}
    assert len(spans) == 8 * 5000 + 51 * 2
    assert link(spans).duplicates == 0


def test_routes_of_the_caller():
    """Further paths are answered by the caller's functions, in JSON; their errors are answered 400."""

    def refuse(body):
        raise PerflabError(f"cannot take {body!r}")

    async def ask():
        taken = []
        routes = {
            "/v1/agents": lambda body: {"length": len(body)},
            "/v1/quiet": taken.append,
            "/v1/ready": lambda _: b'{"raw": true}',
            "/v1/refuse": refuse,
        }
        async with Collector("127.0.0.1:0", routes) as collector:
            url = collector.url
            answers = [
                await _post(f"{url}/v1/agents", gzip.compress(b"12345"), Content_Encoding="gzip"),
                await _post(f"{url}/v1/quiet", b"x"),
                await _post(f"{url}/v1/ready", b""),
                await _post(f"{url}/v1/refuse", b"y"),
                await _post(f"{url}/v1/unknown", b""),
            ]
            return [(status, body) for status, body, _ in answers], taken, collector.received.batches

    # When
    answers, taken, batches = asyncio.run(ask())
    # Then
    assert [status for status, _ in answers] == [200, 200, 200, 400, 404]
    assert [json.loads(body) for _, body in answers[:3]] == [{"length": 5}, {}, {"raw": True}]
    assert json.loads(answers[3][1])["message"] == "cannot take b'y'"
    assert (taken, batches) == ([b"x"], 0)


def test_questions_of_the_caller():
    """More paths can be asked by GET; each is answered with what its function returns then."""
    # Given a receiver that is asked for a list
    listed = [1]

    async def ask():
        async with (
            Collector("127.0.0.1:0", None, {"/v1/list": lambda: listed}) as collector,
            aiohttp.ClientSession() as session,
        ):
            listed.append(2)
            # When it is asked
            async with session.get(f"{collector.url}/v1/list") as answer:
                return answer.status, await answer.json()

    # Then it says what there is
    assert asyncio.run(ask()) == (200, [1, 2])


def test_a_taken_address_is_said_and_a_closed_one_is_free():
    """Who listens second is told the address and what to do; after the first closes, it can."""

    async def ask():
        async with Collector("127.0.0.1:0") as first:
            second = Collector(first.address)
            with pytest.raises(
                TraceError, match=rf"{first.address} is taken .* ss -ltnp .*collector"
            ) as caught:
                await second.start()
            await _post_traces(first, _body(1))
        async with second:
            assert second.address == first.address
            await _post_traces(second, _body(2))
        return caught.value.exit_code, first.spans(), second.address, asyncio.all_tasks()

    # When
    exit_code, spans, address, tasks = asyncio.run(ask())
    # Then
    assert exit_code == 3
    assert spans["span_id"].tolist() == [1]
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    assert len(tasks) == 1  # the one that asked


@pytest.mark.parametrize("address", ["", "4318", "localhost", ":4318", "host:", "host:x", "h:70000"])
def test_addresses_that_are_none(address):
    """What cannot be listened on is refused before anything starts."""
    with pytest.raises(ConfigError, match="no address to listen on"):
        Collector(address)


def test_a_host_that_is_not_here():
    """An address of another machine is named with the system's reason."""
    with pytest.raises(TraceError, match=r"cannot listen on 192\.0\.2\.1:0"):
        asyncio.run(Collector("192.0.2.1:0").start())


def test_wait_quiet_waits_for_the_last_and_gives_up_in_time():
    """It is not quiet while spans keep coming, and it is a little after they stop."""

    async def ask():
        async with Collector("127.0.0.1:0") as collector:
            stop = asyncio.Event()

            async def send():
                while not stop.is_set():
                    await _post_traces(collector, _body(1))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                noisy = await collector.wait_quiet(quiet_s=5.0, timeout_s=0.3)
                sent = collector.received.batches
                stop.set()
            return noisy, sent, await collector.wait_quiet(quiet_s=0.05, timeout_s=10)

    noisy, sent, quiet = asyncio.run(ask())
    assert (noisy, quiet) == (False, True)
    assert sent > 0


def test_spans_that_cannot_be_written_are_counted_and_raised_at_the_end(tmp_path):
    """With its directory unwritable the receiver goes on answering; at the end the loss is raised."""
    # Given
    (tmp_path / "file").write_text("in the way")

    async def ask():
        collector = Collector("127.0.0.1:0", spans_dir=tmp_path / "file" / "spans", memory_spans=10)
        await collector.start()
        answers = [await _post_traces(collector, _body(*range(1, 6), trace=n)) for n in range(1, 13)]
        held = len(collector.spans())
        with pytest.raises(TraceError, match=r"60 of 60 received spans are lost: .*file/spans") as caught:
            await collector.close()
        return {status for status, _, _ in answers}, held, collector.received.lost, caught.value.exit_code

    # When
    statuses, held, lost, exit_code = asyncio.run(ask())
    # Then
    assert (statuses, lost, exit_code) == ({200}, 60, 3)
    assert 0 < held <= 25


def test_a_failure_to_write_does_not_hide_the_callers_error(tmp_path):
    """An exception of the caller's passes through, with the loss as a note."""
    (tmp_path / "file").write_text("in the way")

    async def ask():
        async with Collector("127.0.0.1:0", spans_dir=tmp_path / "file" / "spans") as collector:
            await _post_traces(collector, _body(1))
            raise KeyError("the caller's own")

    with pytest.raises(KeyError) as caught:
        asyncio.run(ask())
    assert "1 of 1 received spans are lost" in caught.value.__notes__[0]
