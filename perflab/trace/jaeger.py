"""Jaeger's JSON to span columns: what its query service, its UI and its tools export.

A trace is an object with ``spans`` and the ``processes`` they name, or a bare span carries its ``process``.
The form is that of Jaeger's own ``model/json``; OpenTracing's tags become OpenTelemetry's fields as its
translator does it. Tags are read once per distinct text: many spans of a service carry the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perflab.trace.jaeger_json import (
    BROKEN_TRACE,
    LOGS,
    SPAN,
    TRACE,
    JaegerProcess,
    JaegerSpan,
    Tagged,
    TagReader,
    told,
    typed,
)
from perflab.trace.otlp import Batch

_HOSTS = ("host.name", "hostname", "host", "ip")
_INSTANCE = "service.instance.id"
_FAILED = {"error.kind": "exception.type", "message": "exception.message"}
_MAX_NS = 2**63 - 1
_MAX_US = _MAX_NS // 1000
_COLUMNS = (
    "trace_id", "span_id", "parent_span_id", "service", "name", "kind", "status", "host", "start_ns",
    "duration_ns", "shadow", "links", "attributes",
)  # fmt: skip
_Row = list[Any]
_SPAN_ID, _PARENT_ID, _SERVICE, _KIND = 1, 2, 3, 5
_OF_SERVERS = 0x5E12_FE2A_11CE_0001
"""Makes a server's id of its client's."""
_TEXT = msgspec.json.Encoder()


@dataclass
class JaegerReader:
    """Collects the spans of traces.

    Attributes
    ----------
    batch : Batch
        The spans' columns, and what was refused.
    shared_ids : int
        Server spans that shared their id with the client's, as Zipkin writes them, and got one of their own.
    inferred_kinds : int
        Spans that say nothing of their kind and are server spans since their parent is of another service, or
        client spans since all their children are.
    """

    batch: Batch = field(default_factory=Batch)
    shared_ids: int = 0
    inferred_kinds: int = 0
    _tags: TagReader = field(default_factory=TagReader, repr=False)

    def add_trace(self, content: bytes | msgspec.Raw, where: str) -> None:
        """Read a trace.

        Parameters
        ----------
        content : bytes or msgspec.Raw
            Its JSON. Spans that cannot be used are refused and counted, the others are read.
        where : str
            Where it stands, for what is said of refused spans.

        Raises
        ------
        msgspec.DecodeError
            If it is no trace at all.
        """
        where += ".spans"
        spans: list[tuple[int, JaegerSpan]]
        try:
            whole = TRACE.decode(content)
            spans = list(enumerate(whole.spans))
            self._add(spans, where, whole.trace_id, whole.processes or {})
        except msgspec.ValidationError:
            trace = BROKEN_TRACE.decode(content)
            spans = self._usable(trace.spans, where)
            self._add(spans, where, trace.trace_id, trace.processes or {})

    def add_spans(self, contents: Iterable[bytes | msgspec.Raw], where: str) -> None:
        """Read bare spans, each of which carries its process, as span stores dump them."""
        by_trace: dict[str | None, list[tuple[int, JaegerSpan]]] = {}
        for at, span in self._usable(contents, where):
            by_trace.setdefault(span.trace_id, []).append((at, span))
        for of_trace in by_trace.values():
            self._add(of_trace, where, None, {})

    def _usable(self, contents: Iterable[bytes | msgspec.Raw], where: str) -> list[tuple[int, JaegerSpan]]:
        """Decode spans one by one, with their places; refuse those that are none."""
        spans = []
        for at, content in enumerate(contents):
            try:
                spans.append((at, SPAN.decode(content)))
            except msgspec.ValidationError as error:
                self.batch.refuse(f"{where}[{at}]", str(error))
        return spans

    def _add(
        self,
        spans: list[tuple[int, JaegerSpan]],
        where: str,
        trace_id: str | None,
        processes: dict[str, JaegerProcess],
    ) -> None:
        """Read the spans of one trace."""
        rows: list[_Row] = []
        at_hand = _AtHand(trace_id, processes)
        for at, span in spans:
            try:
                rows.append(self._read(span, at_hand))
            except ValueError as error:
                self.batch.refuse(f"{where}[{at}]", str(error))
        if not rows:
            return
        self.shared_ids += _split_shared_ids(rows)
        self.inferred_kinds += _infer_kinds(rows)
        for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True):
            self.batch.columns[name] += values

    def _read(self, span: JaegerSpan, at_hand: _AtHand) -> _Row:
        """Return a span's row; what is as usual is read right here, since this runs once per span."""
        tagged = self._tags.read(span.tags)
        service, host, instance = at_hand.processes.get(span.process_id) or at_hand.process(span)
        trace = at_hand.traces.get(span.trace_id) or at_hand.trace(span.trace_id)
        text, start, duration = tagged.text, span.start_time, span.duration
        if instance is not None or span.warnings or tagged.status == "error":
            text = _with_more(tagged, instance, span)
        parent, links, references = 0, "", span.references
        if references or span.parent_span_id:
            one = references[0] if references and len(references) == 1 and not span.parent_span_id else None
            if one is not None and one.trace_id == span.trace_id and one.ref_type == "CHILD_OF":
                parent = _read_id(one.span_id, "reference")
            else:
                parent, links = _read_references(span, trace, at_hand)
        start_ns = start * 1000 if type(start) is int and 0 < start < _MAX_US else _read_start(start)
        duration_ns = (
            duration * 1000 if type(duration) is int and 0 <= duration < _MAX_US else _read_time(duration)
        )
        return [
            trace, _read_id(span.span_id, "span id"), parent, service, span.operation_name, tagged.kind,
            tagged.status, host, start_ns, duration_ns, tagged.is_shadow, links, text,
        ]  # fmt: skip


class _AtHand:
    """What the spans of one trace have in common, each read once: ``traces``, ``processes`` by name."""

    def __init__(self, trace_id: str | None, processes: dict[str, JaegerProcess]) -> None:
        self._trace_id, self._processes = trace_id, processes
        self.traces: dict[str | None, str] = {}
        self.processes: dict[str | None, tuple[str, str, Any]] = {}

    def trace(self, text: str | None) -> str:
        """Return a trace id in 32 hex digits; the trace's own where a span has none."""
        if text not in self.traces:
            self.traces[text] = _read_trace_id(text or self._trace_id)
        return self.traces[text]

    def process(self, span: JaegerSpan) -> tuple[str, str, Any]:
        """Return service, host and instance of a span."""
        if span.process is not None:
            return _read_process(span.process)
        name = span.process_id
        if name is None or name not in self._processes:
            raise ValueError(f"there is no process {name!r} among {sorted(self._processes)[:5]}")
        self.processes[name] = _read_process(self._processes[name])
        return self.processes[name]


def _read_process(process: JaegerProcess) -> tuple[str, str, Any]:
    tags = {tag.key: typed(tag) for tag in process.tags or ()}
    host = next((str(tags[name]) for name in _HOSTS if tags.get(name)), "")
    return process.service_name or "unknown_service", host, tags.get(_INSTANCE)


def _with_more(tagged: Tagged, instance: Any, span: JaegerSpan) -> str:
    """Return the attributes with what else is known: the instance, warnings, what names a failure."""
    members = [tagged.text[1:-1]] if tagged.text else []
    more: dict[str, Any] = {} if instance is None else {_INSTANCE: instance}
    if span.warnings:
        more["jaeger.warnings"] = span.warnings
    if tagged.status == "error":
        for log in LOGS.decode(bytes(span.logs)) or ():
            for tag in log.fields or ():
                name = _FAILED.get(tag.key, tag.key if tag.key.startswith("exception.") else "")
                if name in ("exception.type", "exception.message"):
                    more.setdefault(name, tag.value)
    members += [told(name, value) for name, value in more.items() if f'"{name}":' not in tagged.text]
    return f"{{{','.join(members)}}}" if members else ""


def _read_references(span: JaegerSpan, trace_id: str, at_hand: _AtHand) -> tuple[int, str]:
    """Return the parent's id and the links.

    The parent is the first span of this trace that this one is a child of; if there is none, the first that
    it follows from, which stays a link, too: nobody waits for it. All other references are links.
    """
    references = span.references
    if not references:
        return (_read_id(span.parent_span_id, "parent span id") if _is_id(span.parent_span_id) else 0), ""
    told = [
        (
            at_hand.trace(one.trace_id or span.trace_id),
            _read_id(one.span_id, "reference"),
            one.ref_type.upper(),
        )
        for one in references
    ]
    here = [at for at, one in enumerate(told) if one[0] == trace_id]
    parent_at = next((at for at in here if told[at][2] == "CHILD_OF"), here[0] if here else None)
    parent = _read_id(span.parent_span_id, "parent span id") if _is_id(span.parent_span_id) else 0
    if parent_at is not None and not parent:
        parent = told[parent_at][1]
    links = [
        {"attributes": {"opentracing.ref_type": kind.lower()}, "span_id": f"{linked:016x}", "trace_id": trace}
        for at, (trace, linked, kind) in enumerate(told)
        if at != parent_at or kind != "CHILD_OF"
    ]
    return parent, _TEXT.encode(links).decode() if links else ""


def _read_trace_id(text: str | None) -> str:
    """Return 32 hex digits; ids of 64 bits, or without leading zeros, are filled up."""
    full = (text or "").rjust(32, "0").lower()
    if len(full) != 32 or not int(full, 16):
        raise ValueError(f"trace id {text!r} is not up to 32 hex digits other than zero")
    return full


def _read_id(text: str | None, what: str) -> int:
    number = int(text or "0", 16)
    if not 0 < number < 2**64:
        raise ValueError(f"{what} {text!r} is not up to 16 hex digits other than zero")
    return number


def _is_id(text: str | None) -> bool:
    return bool(text) and bool(text.strip("0")) if text else False


def _read_start(value: float | str | None) -> int:
    start_ns = _read_time(value, "startTime")
    if start_ns <= 0:
        raise ValueError(f"startTime {value!r} is no time in microseconds since 1970")
    return start_ns


def _read_time(value: float | str | None, what: str = "duration") -> int:
    """Return microseconds as nanoseconds."""
    if value is None:
        raise ValueError(f"{what} is missing")
    if isinstance(value, str):
        value = int(value) if value.lstrip("-").isdigit() else float(value)
    number = value * 1000 if isinstance(value, int) else round(value * 1000)
    if abs(number) > _MAX_NS:
        raise ValueError(f"{what} {value!r} is out of range")
    return number


def _split_shared_ids(rows: list[_Row]) -> int:
    """Give server spans that share their client's id one of their own, and its children; return how many."""
    ids = {row[_SPAN_ID] for row in rows}
    if len(ids) == len(rows):
        return 0
    clients = {row[_SPAN_ID] for row in rows if row[_KIND] == "client"}
    new_ids: dict[int, int] = {}
    for row in rows:
        if row[_KIND] == "server" and row[_SPAN_ID] in clients and row[_SPAN_ID] not in new_ids:
            new = row[_SPAN_ID] ^ _OF_SERVERS
            while new in ids or not new:
                new = (new + 1) % 2**64
            ids.add(new)
            new_ids[row[_SPAN_ID]] = new
    servers = 0
    for row in rows:
        if row[_KIND] == "server" and row[_SPAN_ID] in new_ids:
            row[_PARENT_ID], row[_SPAN_ID] = row[_SPAN_ID], new_ids[row[_SPAN_ID]]
            servers += 1
        elif row[_PARENT_ID] in new_ids:
            row[_PARENT_ID] = new_ids[row[_PARENT_ID]]
    return servers


def _infer_kinds(rows: list[_Row]) -> int:
    """Fill in the kinds of spans that say nothing of it; return how many are more than internal."""
    missing = [row for row in rows if not row[_KIND]]
    if not missing:
        return 0
    service_of = {row[_SPAN_ID]: row[_SERVICE] for row in rows}
    calls: dict[int, bool] = {}
    for row in rows:
        parent = row[_PARENT_ID]
        if parent in service_of:
            calls[parent] = calls.get(parent, True) and service_of[parent] != row[_SERVICE]
    inferred = 0
    for row in missing:
        if service_of.get(row[_PARENT_ID], row[_SERVICE]) != row[_SERVICE]:
            row[_KIND] = "server"
        else:
            row[_KIND] = "client" if calls.get(row[_SPAN_ID], False) else "internal"
        inferred += row[_KIND] != "internal"
    return inferred
