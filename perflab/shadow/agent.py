"""The agent: what `perflab attach` puts into a service's process before the service's own code runs.

It starts tracing (OpenTelemetry's SDK and OTLP exporter), reads the list of live runs, installs the hooks
of `perflab.shadow.drivers` and reports to the controller twice a second. It must never take a service down:
what it cannot do on behalf of ordinary work it leaves, and says so.
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
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

import perflab
from perflab.config import Outbound, Secret, Store
from perflab.shadow import drivers, outbound, redis, scope, sockets, sql
from perflab.shadow.control import ControlReader
from perflab.shadow.ledger import Ledger
from perflab.shadow.scope import process
from perflab.shadow.stores import read_twins

CONFIG_VARIABLE = "PERFLAB_AGENT"
REPORT_EVERY_S = 0.5
_log = logging.getLogger("perflab.shadow")


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `perflab attach` tells the agent, as JSON in the environment; secrets only by reference."""

    service: str
    control: str
    control_key: Secret
    collector: str
    sample_ratio: float = 0.01
    services: dict[str, tuple[str, ...]] = {}
    stores: tuple[Store, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    shadow_consumer: bool = False
    disabled: tuple[str, ...] = ()


class _MarkedAlways(Sampler):
    """Record all marked work; of ordinary work what its parent says, else a share."""

    def __init__(self, ratio: float) -> None:
        self._ordinary = ParentBased(TraceIdRatioBased(ratio))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
    ) -> SamplingResult:
        if scope.current() is None:
            return self._ordinary.should_sample(parent_context, trace_id, name, kind, attributes, links)
        state = trace.get_current_span(parent_context).get_span_context().trace_state
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return "PerflabMarkedAlways"


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
    config = msgspec.json.decode(config_text, type=AgentConfig)
    process.service = config.service
    process.shadow_consumer = config.shadow_consumer
    process.ledger = Ledger()
    process.control = ControlReader(config.control, config.control_key.read().encode())
    provider = _tracing(config)
    process.tracer = provider.get_tracer("perflab", perflab.__version__)
    addresses = {address: name for name, listed in config.services.items() for address in listed}
    outbound.set_peers(outbound.Peers(addresses, {peer.address: peer for peer in config.outbound}))
    sql.set_twins(read_twins(config.stores, "postgresql"))
    redis.set_twins(read_twins(config.stores, "redis"))
    sockets.allow(config.collector)
    reporter = _Reporter(config)
    process.control.start()
    reporter.start()
    drivers.install(config.disabled)
    os.register_at_fork(after_in_child=lambda: _after_fork(reporter))
    atexit.register(reporter.send)


def _tracing(config: AgentConfig) -> TracerProvider:
    for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # no collector between runs is no news
    resource = Resource(
        {
            "service.name": config.service,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "telemetry.sdk.language": "python",
        }
    )
    provider = TracerProvider(sampler=_MarkedAlways(config.sample_ratio), resource=resource)
    exporter = OTLPSpanExporter(endpoint=f"http://{config.collector}/v1/traces", timeout=2)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=32768, schedule_delay_millis=400, max_export_batch_size=1024
        )
    )
    return provider


def _after_fork(reporter: _Reporter) -> None:
    process.ledger = Ledger()
    process.control.start()
    reporter.start()


class _Reporter:
    """Ships the ledger to the controller; what could not be delivered is kept for the next time."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._identity = ""
        self._sequence = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        self._identity = uuid.uuid4().hex
        threading.Thread(target=self._forever, name="perflab-report", daemon=True).start()

    def send(self) -> None:
        """Send one report now; a controller that is not there is no error."""
        with self._lock:
            report = process.ledger.take()
            try:
                self._post(report)
            except (OSError, http.client.HTTPException):
                process.ledger.give_back(report)

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
            "control": {
                "age_s": min(process.control.age_s, 1e9),
                "live": sorted(process.control.live or {}),
                "problem": process.control.problem,
            },
            **report,
        }
        host, _, port = self._config.collector.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=2)
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
                self.send()
