"""The receiver: an OTLP/HTTP endpoint that keeps every span it accepted, in bounded memory.

Spans are answered for only after they are held; above a bound they are written to Parquet parts. What
cannot be kept (a full disk) is counted and raised when the collector closes, while the endpoint goes on
answering: the services that export must not suffer because perflab's disk is full.
"""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from aiohttp import web
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from perflab.errors import ConfigError, PerflabError, SpanFormatError, TraceError
from perflab.trace.otlp import JSON, PROTOBUF, Batch, decode_batch
from perflab.trace.spool import Received, Spool

_LARGE_BYTES = 128 * 1024  # bodies above it are decoded beside the event loop
_INVALID_ARGUMENT = 3  # google.rpc.Code

Route = Callable[[bytes], Any]


class Collector:
    """Receives spans by OTLP/HTTP on one address until closed.

    Parameters
    ----------
    address : str
        ``host:port``; port 0 takes a free one (see the attribute).
    routes : mapping of str to callable
        More paths to POST to. Each gets the body (decompressed) and returns something JSON can hold, or
        None for ``{}``; it runs in the event loop and must be quick. A `PerflabError` is answered 400.
    questions : mapping of str to callable, optional
        Paths to GET. Each returns something JSON can hold.
    spans_dir : Path, optional
        Where spans are written, as ``part-00001.parquet`` and so on; parts that are there are kept.
        Left out, all spans stay in memory.
    memory_spans : int
        Spans held before a part is written. While nothing can be written up to twice as many are held.
    max_body_bytes : int
        Largest body, decompressed; larger ones are answered 413.

    Attributes
    ----------
    address : str
        ``host:port`` listened on, the real port once started.
    received : Received
        Counts.

    Examples
    --------
    ::

        async with Collector("127.0.0.1:0", spans_dir=run.path / "spans") as collector:
            ...                                      # exporters send to collector.url + "/v1/traces"
            await collector.wait_quiet(quiet_s=1, timeout_s=10)
            spans = collector.spans()
    """

    def __init__(
        self,
        address: str = "127.0.0.1:4318",
        routes: Mapping[str, Route] | None = None,
        questions: Mapping[str, Callable[[], Any]] | None = None,
        *,
        spans_dir: Path | None = None,
        memory_spans: int = 100_000,
        max_body_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._host, self._port = _split_address(address)
        self.address = address
        self.received = Received()
        self._routes = dict(routes or {})
        self._questions = dict(questions or {})
        self._max_body_bytes = max_body_bytes
        self._spool = Spool(spans_dir, memory_spans, self.received)
        self._runner: web.AppRunner | None = None
        self._last_arrival_s = 0.0
        self._open_requests = 0

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://{self.address}"

    async def start(self) -> None:
        """Begin to listen.

        Raises
        ------
        TraceError
            If the address is taken or cannot be listened on.
        """
        # an exporter's body is decompressed here and not by aiohttp, which accepts a gzip cut short
        app = web.Application(client_max_size=self._max_body_bytes)
        app.router.add_post("/v1/traces", self._take_traces)
        for path, route in self._routes.items():
            app.router.add_post(path, self._route_handler(route))
        for path, question in self._questions.items():
            app.router.add_get(path, _question_handler(question))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0, auto_decompress=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise TraceError(_listen_failure(self._host, self._port, error)) from error
        self._runner = runner
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"{host}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening and free the port; requests under way are answered first."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def close(self) -> None:
        """Stop listening and write what is still in memory.

        Raises
        ------
        TraceError
            If spans could not be written; says how many are lost, and where.
        """
        await self.stop()
        await asyncio.to_thread(self._spool.finish)

    def spans(self) -> pd.DataFrame:
        """Return all spans received so far: a span table, those written to parts included."""
        return self._spool.table()

    async def wait_quiet(self, quiet_s: float, timeout_s: float) -> bool:
        """Wait until no spans have arrived for a while.

        Parameters
        ----------
        quiet_s : float
            How long nothing must arrive, counted from now at the earliest.
        timeout_s : float
            How long to wait for that.

        Returns
        -------
        bool
            Whether it became quiet in time.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            now = loop.time()
            quiet_at = max(began, self._last_arrival_s) + quiet_s
            if now >= quiet_at and not self._open_requests:
                return True
            if now >= began + timeout_s:
                return False
            await asyncio.sleep(max(min(quiet_at, began + timeout_s) - now, 0.01))

    async def __aenter__(self) -> Collector:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except TraceError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    async def _take_traces(self, request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        self._open_requests += 1
        try:
            return await self._take_batch(request)
        finally:
            self._open_requests -= 1
            self._last_arrival_s = loop.time()

    async def _take_batch(self, request: web.Request) -> web.Response:
        media_type = request.content_type
        if media_type not in (PROTOBUF, JSON):
            return _refusal(415, f"send {PROTOBUF} or {JSON}, not {media_type}", media_type)
        try:
            body = await request.read()
            encoding = request.headers.get("Content-Encoding", "")
            work = (body, encoding, media_type, self._max_body_bytes)
            batch = await asyncio.to_thread(_decode, *work) if len(body) > _LARGE_BYTES else _decode(*work)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(413, f"the body is larger than {self._max_body_bytes} bytes", media_type)
        except _Unreadable as error:
            self.received.malformed += 1
            return _refusal(error.status, str(error), media_type)
        if self._spool.add(batch):
            await asyncio.to_thread(self._spool.write_part)
        return _acceptance(batch, media_type)

    def _route_handler(self, route: Route) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            try:
                body = await request.read()
                encoding = request.headers.get("Content-Encoding", "")
                answer = route(_decompress(body, encoding, self._max_body_bytes))
            except web.HTTPRequestEntityTooLarge:
                return _refusal(413, f"the body is larger than {self._max_body_bytes} bytes", JSON)
            except _Unreadable as error:
                return _refusal(error.status, str(error), JSON)
            except PerflabError as error:
                return _refusal(400, str(error), JSON)
            if isinstance(answer, bytes):
                return web.Response(body=answer, content_type=JSON)
            return web.json_response({} if answer is None else answer)

        return handle


def _question_handler(question: Callable[[], Any]) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response(question())

    return handle


class _Unreadable(Exception):  # noqa: N818 - says what the body is
    """A body that cannot be read, and the HTTP status that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def _decode(body: bytes, encoding: str, media_type: str, limit: int) -> Batch:
    try:
        return decode_batch(_decompress(body, encoding, limit), media_type)
    except SpanFormatError as error:
        raise _Unreadable(400, str(error)) from error


def _decompress(body: bytes, encoding: str, limit: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise _Unreadable(415, f"Content-Encoding {encoding!r} is not known here; send gzip, or nothing")
    unpacker = zlib.decompressobj(wbits=47)  # a gzip or a zlib header, whichever is there
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise _Unreadable(400, f"the body is no {encoding}: {error}") from error
    if len(content) > limit:
        raise _Unreadable(413, f"the body is larger than {limit} bytes when decompressed")
    if not unpacker.eof:
        raise _Unreadable(400, f"the {encoding} body is cut short after {len(body)} bytes")
    return content


def _acceptance(batch: Batch, media_type: str) -> web.Response:
    if media_type == JSON:
        told = {"rejectedSpans": str(batch.refused), "errorMessage": batch.reason}
        return web.json_response({"partialSuccess": told} if batch.refused else {})
    answer = ExportTraceServiceResponse()
    if batch.refused:
        answer.partial_success.rejected_spans = batch.refused
        answer.partial_success.error_message = batch.reason
    return web.Response(body=answer.SerializeToString(), content_type=PROTOBUF)


def _refusal(status: int, why: str, media_type: str) -> web.Response:
    if media_type == PROTOBUF:
        body = Status(code=_INVALID_ARGUMENT, message=why).SerializeToString()
        return web.Response(status=status, body=body, content_type=PROTOBUF)
    return web.json_response({"code": _INVALID_ARGUMENT, "message": why}, status=status)


def _split_address(address: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is no address to listen on; write host:port, e.g. 127.0.0.1:4318")
    return host, int(port)


def _listen_failure(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"address {host}:{port} is taken by another process, spans cannot be received there; "
            f"find it with: ss -ltnp 'sport = :{port}', or set another 'collector' for the target "
            "in perflab.toml"
        )
    return f"cannot listen on {host}:{port} for spans: {error}"
