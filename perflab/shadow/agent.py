"""The agent: what `perflab attach` puts into a service's process before the service's own code runs.

It starts tracing (OpenTelemetry's SDK and OTLP exporter), reads the list of live runs, installs the hooks
of `perflab.shadow.drivers` and reports to the controller twice a second. It must never take a service down:
what it cannot do on behalf of ordinary work it leaves, and says so. Its own threads run outside every
request and pass the socket guard.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased

import perflab
from perflab.config import Store
from perflab.shadow import drivers, lingering, outbound, scope, sockets
from perflab.shadow.agentconfig import AgentConfig, read_agent_config, split_address
from perflab.shadow.control import ControlReader
from perflab.shadow.ledger import FORMAT, Ledger
from perflab.shadow.scope import process
from perflab.shadow.stores import read_twins

REPORT_EVERY_S = 0.5
GOODBYE_S = 2.0
"""How long a service that ends may be held up by what is not delivered yet."""

_QUIET = (
    "opentelemetry.exporter",
    "opentelemetry.sdk",
    "opentelemetry.attributes",
    "opentelemetry.baggage.propagation",
    "opentelemetry.trace.span",
)
"""Loggers that would tell a service's log of collectors between runs and of other people's odd headers."""


def start(config_text: str) -> None:
    """Attach this process.

    Parameters
    ----------
    config_text : str
        An `AgentConfig` as JSON.

    Raises
    ------
    msgspec.ValidationError, ConfigError
        If the configuration cannot be used; `perflab attach` checked it before starting the service.
    """
    config = read_agent_config(config_text)
    process.service = config.service
    if config.shadow_consumer:
        scope.consume_shadow()
    process.ledger = Ledger()
    process.control = ControlReader(config.control, lambda: config.control_key.read().encode())
    exporter = _Exporter(config)
    process.tracer = _tracing(config, exporter).get_tracer("perflab", perflab.__version__)
    addresses = {address: name for name, listed in config.services.items() for address in listed}
    outbound.set_peers(outbound.Peers(addresses, {peer.address: peer for peer in config.outbound}))
    sockets.allow(config.collector)
    reporter = _Reporter(config)
    process.control.start(scope.permit)
    reporter.start()
    drivers.install(
        config.disabled,
        {
            "perflab.shadow.sql": lambda _: _tell_sql(config.stores),
            "perflab.shadow.redis": lambda redis: redis.set_twins(read_twins(config.stores, "redis")),
        },
    )
    os.register_at_fork(after_in_child=lambda: _after_fork(reporter, exporter))
    atexit.register(_goodbye, reporter, exporter)


def _tell_sql(stores: Sequence[Store]) -> None:
    from perflab.shadow.sql import session  # a service without a database does not pay for it

    session.read_stores(stores)


class _MarkedAlways(Sampler):
    """Record all marked work; of ordinary work a share, by trace-id, so that all services choose the same.

    What the service's own tracing decided is not followed: who samples all must not have us record all.
    """

    def __init__(self, ratio: float) -> None:
        self._ordinary = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if scope.current() is None:
            return self._ordinary.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )
        state = trace.get_current_span(parent_context).get_span_context().trace_state
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return "PerflabMarkedAlways"


class _Ids(RandomIdGenerator):
    """Random ids; a trace whose recording was decided by its id keeps that id."""

    def generate_trace_id(self) -> int:
        return scope.chosen_trace_id() or super().generate_trace_id()


class _Exporter(SpanExporter):
    """OpenTelemetry's own, past the socket guard, and with a deadline when the service ends."""

    def __init__(self, config: AgentConfig) -> None:
        self._endpoint = f"http://{config.collector}/v1/traces"
        self._exporter: OTLPSpanExporter | None = None
        self.deadline_s = float("inf")

    def start(self) -> None:
        """Begin with connections of its own: a forked child must not write on its parent's."""
        self._exporter = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if time.monotonic() >= self.deadline_s:
            return SpanExportResult.FAILURE
        with scope.permit():
            if self._exporter is None:
                self._exporter = OTLPSpanExporter(
                    endpoint=self._endpoint, timeout=GOODBYE_S, session=_Session()
                )
            return self._exporter.export(spans)

    def shutdown(self) -> None:
        if self._exporter is not None:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK leaves it so


class _Session(requests.Session):
    """Sends to the collector without what the service's environment says of proxies, logins and API keys."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def request(self, *arguments: Any, **options: Any) -> requests.Response:
        headers = options.get("headers") or {}
        kept = {name: value for name, value in headers.items() if name.lower().startswith("content-")}
        options["headers"] = kept
        return super().request(*arguments, **options)


class _Provider(TracerProvider):
    """OpenTelemetry's own, but for what it does in a forked child.

    It looks for the process's resources in an executor then, which hangs the child for ever if
    `concurrent.futures` was imported after the provider was made. Ours do not change by a fork.
    """

    def _handle_fork(self) -> None:
        self._tracers_lock = threading.Lock()


def _tracing(config: AgentConfig, exporter: _Exporter) -> TracerProvider:
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    resource = Resource(
        {
            "service.name": config.service,
            "host.name": socket.gethostname(),
            "telemetry.sdk.language": "python",
        }
    )
    process.sample_bound = TraceIdRatioBased.get_bound_for_rate(config.sample_ratio)
    provider = _Provider(sampler=_MarkedAlways(config.sample_ratio), resource=resource, id_generator=_Ids())
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=32768, schedule_delay_millis=400, max_export_batch_size=1024
        )
    )
    return provider


def _after_fork(reporter: _Reporter, exporter: _Exporter) -> None:
    """Start anew in a forked child what a fork does not carry over: threads, connections, held locks."""
    process.ledger = process.ledger.successor()
    lingering.forget()
    exporter.start()
    process.control.start(scope.permit)
    reporter.start()


def _goodbye(reporter: _Reporter, exporter: _Exporter) -> None:
    """Deliver what can be delivered soon; runs before the tracing's own shutdown."""
    delivered = reporter.send()
    exporter.deadline_s = time.monotonic() + (GOODBYE_S if delivered else 0)


class _Reporter:
    """Ships the ledger to the controller; what could not be delivered is kept for the next time."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._host, self._port = split_address(config.collector, "the collector")

    def start(self) -> None:
        """Report from a thread of its own, as a process of its own (also after a fork)."""
        self._identity = uuid.uuid4().hex
        self._sequence = 0
        self._lock = threading.Lock()
        scope.ordinary(threading.Thread(target=self._forever, name="perflab-report", daemon=True).start)

    def send(self) -> bool:
        """Send one report now; a controller that is not there is no error, only not delivered to."""
        with self._lock:
            report = process.ledger.take()
            try:
                with scope.permit():
                    self._post(report)
            except Exception:
                process.ledger.give_back(report)
                return False
            return True

    def _post(self, report: dict[str, Any]) -> None:
        self._sequence += 1
        body = {
            "process": self._identity,
            "service": self._config.service,
            "shadow_consumer": self._config.shadow_consumer,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "sequence": self._sequence,
            "time_ns": time.time_ns(),
            "agent_version": perflab.__version__,
            "format": FORMAT,
            "control": {
                "age_s": min(process.control.age_s, 1e9),
                "live": sorted(process.control.live or {}),
                "problem": process.control.problem,
            },
            **report,
        }
        connection = http.client.HTTPConnection(self._host, self._port, timeout=GOODBYE_S)
        try:
            connection.request("POST", "/v1/agents", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise OSError(f"the controller answered {answer.status}")
        finally:
            connection.close()

    def _forever(self) -> None:
        while True:
            time.sleep(REPORT_EVERY_S)
            with contextlib.suppress(Exception):  # a report must never end the reporting
                lingering.look()
                self.send()
