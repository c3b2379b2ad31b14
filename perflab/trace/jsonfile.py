"""Files of traces in JSON, of whatever form: Jaeger's or OTLP, one object, a list, or one a line.

The form is told from what is inside, not from the name; files may be gzipped. They are read trace by trace:
besides the text only the columns are held.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pandas as pd

from perflab.errors import SpanFormatError
from perflab.trace.jaeger import JaegerReader
from perflab.trace.otlp import JSON, batch_table, decode_batch

_GZIP = b"\x1f\x8b"
_LIST = msgspec.json.Decoder(list[msgspec.Raw])

_Part = msgspec.Raw | msgspec.UnsetType
Watch = Callable[[int, int], None]


class _Form(msgspec.Struct):
    """The fields that tell one form from another."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    spans: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    span_id: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="spanID")
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    resource_spans: msgspec.Raw | msgspec.UnsetType = msgspec.field(
        default=msgspec.UNSET, name="resourceSpans"
    )
    source: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_source")


class _Answer(msgspec.Struct):
    """What Jaeger's query service answers."""

    data: list[msgspec.Raw]


_ANSWER = msgspec.json.Decoder(_Answer)
_ANSWER_BEGINS = re.compile(rb'\s*\{\s*"data"\s*:\s*\[')
_TRACE_BEGINS = re.compile(rb'\s*\{\s*("traceID"\s*:\s*"[^"]*"\s*,\s*)?"spans"\s*:')
_FORM = msgspec.json.Decoder(_Form)


@dataclass(frozen=True, eq=False)
class TraceFile:
    """What was read from a file.

    Attributes
    ----------
    spans : pandas.DataFrame
        A span table, in the order of the file.
    refused : int
        Spans that cannot be used.
    reason : str
        Where the first of them stands and what is wrong with it.
    shared_ids, inferred_kinds : int
        As of `perflab.trace.jaeger.JaegerReader`.
    """

    spans: pd.DataFrame
    refused: int
    reason: str
    shared_ids: int
    inferred_kinds: int

    @property
    def counts(self) -> dict[str, int]:
        """How many spans were read, refused and changed."""
        return {
            "spans": len(self.spans),
            "traces": len(self.spans["trace_id"].array.unique()),
            "refused": self.refused,
            "shared_ids": self.shared_ids,
            "inferred_kinds": self.inferred_kinds,
        }


def is_json(path: Path) -> bool:
    """Tell whether a file begins as JSON does, gzipped or not."""
    with path.open("rb") as file:
        begin = file.read(4096)
    if begin.startswith(_GZIP):
        try:
            begin = zlib.decompressobj(31).decompress(begin, 4096)
        except zlib.error:
            return False
    return begin.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read_json(path: str | Path, *, watch: Watch | None = None) -> TraceFile:
    """Read a file of traces.

    Parameters
    ----------
    path : str or Path
        Jaeger's query or UI JSON, a list of its traces or spans, OTLP/JSON, or any of these a line; perhaps
        gzipped.
    watch : callable, optional
        Called now and then with how many bytes of the text are done, and of how many.

    Returns
    -------
    TraceFile
        Spans that cannot be used are counted. Of Jaeger's logs and OTLP's events only what names a failure is
        kept; Jaeger's flags are not.

    Raises
    ------
    SpanFormatError
        If it cannot be read, is cut short, is no JSON, or JSON of another form; the message says where.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SpanFormatError(f"{path} cannot be read: {error}") from error
    reader, otlp = JaegerReader(), []
    refused, reason, where = 0, "", ""
    try:
        with _without_collecting():
            for where, form, texts in _parts(content.removeprefix(b"\xef\xbb\xbf"), watch):
                if form == "trace":
                    reader.add_trace(texts[0], where)
                elif form == "span":
                    reader.add_spans(texts, where)
                else:
                    batch = decode_batch(bytes(texts[0]), JSON)
                    refused, reason = refused + batch.refused, reason or batch.reason
                    otlp.append(batch)
    except SpanFormatError as error:
        raise SpanFormatError(f"{path}: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SpanFormatError(f"{path}, {where}: {error}") from error
    return TraceFile(
        spans=batch_table([reader.batch, *otlp]),
        refused=refused + reader.batch.refused,
        reason=reader.batch.reason or reason,
        shared_ids=reader.shared_ids,
        inferred_kinds=reader.inferred_kinds,
    )


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep the garbage collector from looking through millions of values none of which is in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parts(content: bytes, watch: Watch | None) -> Iterator[tuple[str, str, list[msgspec.Raw]]]:
    """Cut a file into traces, requests or spans: where each stands, its form, its text."""
    spans: list[msgspec.Raw] = []
    done = 0
    for where, raw in _documents(content):
        for place, form, text in _split(where, raw):
            if form == "span":
                spans.append(text)
            else:
                yield place, form, [text]
            if watch:
                done += len(memoryview(text))
                watch(min(done, len(content)), len(content))
    if spans:
        yield "spans", "span", spans


def _documents(content: bytes) -> Iterator[tuple[str, msgspec.Raw]]:
    """Return the parts of an answer, the one document there is, or that of each line."""
    if _ANSWER_BEGINS.match(content):
        try:
            traces = _ANSWER.decode(content).data
        except msgspec.DecodeError:
            traces = None  # what is wrong with it is told below
        if traces is not None:
            yield from ((f"data[{at}]", raw) for at, raw in enumerate(traces))
            return
    try:
        whole = msgspec.json.decode(content, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        lines = content.splitlines()
        if len(lines) < 2 or not _is_whole(lines[0]):
            raise SpanFormatError(f"this is no JSON: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield f"line {number}", msgspec.json.decode(line, type=msgspec.Raw)
                except msgspec.DecodeError as wrong:
                    raise SpanFormatError(f"line {number} is no JSON: {wrong}") from wrong
        return
    yield "", whole


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _split(where: str, raw: msgspec.Raw) -> Iterator[tuple[str, str, msgspec.Raw]]:
    """Take a document apart by its form."""
    if _TRACE_BEGINS.match(raw):
        yield where or "the trace", "trace", raw
        return
    text = bytes(raw).lstrip()
    dot = f"{where}." if where else ""
    if text.startswith(b"["):
        for at, one in enumerate(_LIST.decode(text)):
            yield from _split(f"{where}[{at}]", one)
        return
    if not text.startswith(b"{"):
        raise SpanFormatError(f"{where or 'the file'} is {text[:20]!r}, neither a trace nor a span")
    form = _FORM.decode(text)
    if isinstance(form.resource_spans, msgspec.Raw):
        yield where or "the request", "otlp", raw
    elif isinstance(form.result, msgspec.Raw):
        yield from _split(f"{dot}result", form.result)
    elif isinstance(form.data, msgspec.Raw):
        yield from _split(f"{dot}data", form.data)
    elif isinstance(form.spans, msgspec.Raw):
        yield where or "the trace", "trace", raw
    elif isinstance(form.span_id, msgspec.Raw):
        yield where or "the span", "span", raw
    elif isinstance(form.source, msgspec.Raw):
        yield from _split(f"{dot}_source", form.source)
    else:
        fields = list(msgspec.json.decode(text))[:10]
        raise SpanFormatError(
            f"{where or 'the file'} is JSON with the fields {fields}; expected are Jaeger's (data, or spans "
            "and processes) or OTLP's (resourceSpans)"
        )
