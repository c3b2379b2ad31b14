"""The receiver fed by the OpenTelemetry SDK's own exporter, in this process and in another."""

import asyncio
import json
import subprocess
import sys

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace import Status as SpanStatus

from perflab.trace.collector import Collector
from perflab.trace.store import read_spans, sort_spans
from perflab.trace.tree import link


def _provider(service):
    return TracerProvider(resource=Resource({"service.name": service, "host.name": f"{service}-host"}))


def _work(provider, requests):
    """Make spans as an instrumented service would; keep no more of them than the SDK does."""
    tracer = provider.get_tracer("test")
    for number in range(requests):
        with tracer.start_as_current_span("GET /", kind=SpanKind.SERVER) as top:
            top.set_attribute("number", number)
            top.set_attribute("tags", ["a", "b"])
            if number % 2:
                top.set_attribute("user_agent.synthetic.type", "test")
            with tracer.start_as_current_span("SELECT stock", kind=SpanKind.CLIENT) as call:
                call.set_attribute("ratio", 0.5)
                if number % 3 == 0:
                    call.set_status(SpanStatus(StatusCode.ERROR, "deadlock"))
            links = [Link(top.get_span_context(), {"why": "queue"})]
            tracer.start_span("send mail", kind=SpanKind.PRODUCER, links=links).end()


def _expected(finished):
    """Return what the receiver must have made of the SDK's own spans: a second way to the same rows."""
    rows = []
    for span in finished:
        attributes = {
            key: list(value) if isinstance(value, tuple) else value for key, value in span.attributes.items()
        }
        is_shadow = attributes.pop("user_agent.synthetic.type", "") == "test"
        if span.status.status_code is StatusCode.ERROR:
            attributes["otel.status_description"] = span.status.description
        rows.append(
            {
                "trace_id": f"{span.context.trace_id:032x}",
                "span_id": span.context.span_id,
                "parent_span_id": span.parent.span_id if span.parent else 0,
                "service": span.resource.attributes["service.name"],
                "name": span.name,
                "kind": span.kind.name.lower(),
                "status": span.status.status_code.name.lower(),
                "host": span.resource.attributes["host.name"],
                "start_ns": span.start_time,
                "duration_ns": span.end_time - span.start_time,
                "scheduled_ns": 0,
                "shadow": is_shadow,
                "outcome": "",
                "links": [
                    {
                        "trace_id": f"{item.context.trace_id:032x}",
                        "span_id": f"{item.context.span_id:016x}",
                        "attributes": dict(item.attributes),
                    }
                    for item in span.links
                ],
                "attributes": attributes,
            }
        )
    return sorted(rows, key=lambda row: (row["trace_id"], row["start_ns"], row["span_id"]))


def _rows(table):
    rows = table.to_dict("records")
    for row in rows:
        row["links"] = json.loads(row["links"] or "[]")
        row["attributes"] = json.loads(row["attributes"] or "{}")
    return rows


@pytest.mark.parametrize("compression", [Compression.Gzip, Compression.Deflate, Compression.NoCompression])
def test_the_real_sdk_exporter_to_parquet(tmp_path, compression):
    """Spans of three OpenTelemetry SDKs, exported over HTTP, are in the files as the SDKs had them."""
    # Given
    finished = InMemorySpanExporter()

    def export(url, service):
        exporter = OTLPSpanExporter(f"{url}/v1/traces", compression=compression, timeout=10)
        provider = _provider(service)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=20))
        provider.add_span_processor(SimpleSpanProcessor(finished))
        _work(provider, 30)
        provider.shutdown()

    async def collect():
        async with Collector("127.0.0.1:0", spans_dir=tmp_path / "spans", memory_spans=50) as collector:
            services = ("gateway", "stock", "payment")
            await asyncio.gather(*(asyncio.to_thread(export, collector.url, name) for name in services))
            assert await collector.wait_quiet(quiet_s=0.05, timeout_s=10)
            return collector, collector.spans()

    # When
    collector, spans = asyncio.run(collect())
    # Then
    expected = _expected(finished.get_finished_spans())
    assert len(expected) == 270
    assert _rows(read_spans(tmp_path)) == expected
    assert _rows(sort_spans(spans)) == expected
    assert _rows(sort_spans(collector.spans())) == expected
    assert (collector.received.spans, collector.received.refused, collector.received.lost) == (270, 0, 0)
    assert len(list((tmp_path / "spans").iterdir())) > 1
    assert (link(spans).roots, link(spans).orphans) == (90, 0)


def test_an_exporter_in_another_process(tmp_path):
    """A service in its own process, told the address by the standard environment variable, is received."""
    # Given
    program = """if True:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        for number in range(100):
            provider.get_tracer("t").start_span(f"work {number}").end()
        provider.shutdown()
        """

    async def collect():
        async with Collector("127.0.0.1:0", spans_dir=tmp_path) as collector:
            settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "child"}
            run = (sys.executable, "-c", program)
            await asyncio.to_thread(subprocess.run, run, check=True, env=settings, timeout=60)
            assert collector.received.spans == 100

    # When
    asyncio.run(collect())
    # Then
    spans = read_spans(tmp_path)
    assert set(spans["name"]) == {f"work {number}" for number in range(100)}
    assert set(spans["service"]) == {"child"}
