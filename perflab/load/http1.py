"""HTTP/1.1 as bytes: write a request, read an answer. No sockets here (RFC 9112)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from perflab.errors import LoadError
from perflab.traffic.request import Request

MAX_HEAD_BYTES = 64 * 1024
"""Longer answer heads are malformed; a server that never ends its headers is found out."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of a body that must be judged, at most this much is kept or unpacked; a longer one is malformed."""

_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_NUMBER = re.compile(rb"\d{1,18}")
_KEEP_ALIVE = re.compile(rb"timeout\s*=\s*(\d{1,6})", re.IGNORECASE)


class MalformedAnswerError(LoadError):
    """The bytes are no HTTP/1.1 answer; the text says why."""


def write_request(request: Request, host: bytes, extra: bytes) -> bytes:
    r"""Return the bytes of a request.

    Parameters
    ----------
    request : Request
        What to send.
    host : bytes
        Value of ``host``, unless the request brings its own.
    extra : bytes
        Whole header lines, each ended by CRLF.

    Examples
    --------
    >>> write_request(Request("GET", b"/", (), b""), b"a:80", b"")
    b'GET / HTTP/1.1\r\nhost: a:80\r\n\r\n'
    """
    lines = [request.method.encode("ascii"), b" ", request.path, b" HTTP/1.1\r\n"]
    if all(name != b"host" for name, _ in request.headers):
        lines += (b"host: ", host, b"\r\n")
    for name, value in request.headers:
        lines += (name, b": ", value, b"\r\n")
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d\r\n" % len(request.body))
    lines += (extra, b"\r\n", request.body)
    return b"".join(lines)


class AnswerReader:
    """Reads one answer from the bytes of a connection.

    Parameters
    ----------
    method : str
        Method of the request; an answer to ``HEAD`` has no body.
    keep_body : bool
        Whether `body` is wanted; without it a body is only counted.

    Attributes
    ----------
    status : int
        HTTP status, 0 until the head is complete.
    body_bytes : int
        Bytes of the body as sent.
    reusable : bool
        Whether the connection may carry another request after this answer.
    idle_limit_s : int
        What the server says it keeps an idle connection for (``Keep-Alive: timeout``); -1 = it says nothing.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_encoding",
        "_keep_body",
        "_left",
        "_method",
        "_parts",
        "_step",
        "body_bytes",
        "idle_limit_s",
        "reusable",
        "status",
    )

    def __init__(self, method: str, keep_body: bool) -> None:
        self._method = method
        self._keep_body = keep_body
        self._buffer = b""
        self._at = 0  # what lies before it in the buffer has been read
        self._parts: list[bytes] = []
        self._encoding = b""
        self._left = 0
        self._step: Callable[[AnswerReader], bool | None] = AnswerReader._read_head
        self.status = 0
        self.body_bytes = 0
        self.reusable = False
        self.idle_limit_s = -1

    def feed(self, data: bytes) -> bool:
        """Take bytes as they arrive and return whether the answer is complete.

        Raises
        ------
        MalformedAnswerError
            If the bytes are no answer.
        """
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        while True:
            more = self._step(self)
            if more is None:
                return False
            if more:
                if self._at < len(self._buffer):
                    self.reusable = False  # something nobody asked for follows the answer
                return True

    def feed_eof(self) -> bool:
        """Take the end of the connection and return whether that completes the answer."""
        return self._step is AnswerReader._read_until_closed

    def body(self) -> bytes:
        """Return the body, unpacked if it was sent packed.

        Raises
        ------
        MalformedAnswerError
            If it cannot be unpacked, or is too long to be judged.
        """
        raw = b"".join(self._parts)
        if not self._encoding or self._encoding == b"identity" or not raw:
            return raw
        if self._encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise MalformedAnswerError(f"content-encoding {self._encoding.decode('latin-1')!r} is not known")
        try:
            unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, told by the data
            plain = unpacker.decompress(raw, MAX_BODY_BYTES)
        except zlib.error as error:
            raise MalformedAnswerError(f"the body cannot be unpacked: {error}") from error
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise MalformedAnswerError("the packed body is cut short or too long to be judged")
        return plain

    # Each step returns None (more bytes are needed), False (go on with the next step) or True (complete).

    def _read_head(self) -> bool | None:
        end = self._buffer.find(b"\r\n\r\n", self._at)
        if end < 0:
            head = self._buffer[self._at :]
            if len(head) > MAX_HEAD_BYTES:
                raise MalformedAnswerError(f"headers are longer than {MAX_HEAD_BYTES} bytes")
            if not b"HTTP/1.".startswith(head[:7]):
                raise MalformedAnswerError(f"the answer begins with {head[:16]!r}, not with HTTP/1.1")
            return None
        first, *lines = self._buffer[self._at : end].split(b"\r\n")
        self._at = end + 4
        status = _STATUS.fullmatch(first)
        if not status:
            raise MalformedAnswerError(f"the status line is {first[:40]!r}")
        headers: dict[bytes, list[bytes]] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if not header:
                raise MalformedAnswerError(f"{line[:40]!r} is no header")
            headers.setdefault(header[1].lower(), []).append(header[2])
        code = int(status[2])
        if code == 101 or code < 100:
            raise MalformedAnswerError(f"status {code} was not asked for")
        if code < 200:
            return False  # an interim answer; the real one follows
        self.status = code
        return self._begin_body(headers, is_1_1=status[1] == b"1")

    def _begin_body(self, headers: dict[bytes, list[bytes]], *, is_1_1: bool) -> bool | None:
        connection = b",".join(headers.get(b"connection", ())).lower()
        self.reusable = b"close" not in connection if is_1_1 else b"keep-alive" in connection
        if limit := _KEEP_ALIVE.search(b",".join(headers.get(b"keep-alive", ()))):
            self.idle_limit_s = int(limit[1])
        self._encoding = b",".join(headers.get(b"content-encoding", ())).strip().lower()
        if self._method == "HEAD" or self.status in (204, 304):
            return True
        if codings := b",".join(headers.get(b"transfer-encoding", ())).strip().lower():
            if codings != b"chunked":
                raise MalformedAnswerError(f"transfer-encoding {codings.decode('latin-1')!r} is not known")
            self._step = AnswerReader._read_chunk_size
            return False
        lengths = {part.strip() for line in headers.get(b"content-length", ()) for part in line.split(b",")}
        if not lengths:
            self.reusable = False
            self._step = AnswerReader._read_until_closed
            return False
        length = lengths.pop()
        if lengths or not _NUMBER.fullmatch(length):
            raise MalformedAnswerError("content-length is no number, or says two things")
        self._left = int(length)
        self._step = AnswerReader._read_length
        return False

    def _read_length(self) -> bool | None:
        self._take_body()
        return True if self._left == 0 else None

    def _read_until_closed(self) -> bool | None:
        self._left = len(self._buffer) - self._at
        self._take_body()
        return None

    def _read_chunk_size(self) -> bool | None:
        line = self._line()
        if line is None:
            return None
        size = _CHUNK.fullmatch(line)
        if not size:
            raise MalformedAnswerError(f"{line[:40]!r} is no chunk size")
        self._left = int(size[1], 16)
        self._step = AnswerReader._read_chunk if self._left else AnswerReader._read_trailer
        return False

    def _read_chunk(self) -> bool | None:
        self._take_body()
        if self._left:
            return None
        if len(self._buffer) - self._at < 2:
            return None
        if not self._buffer.startswith(b"\r\n", self._at):
            raise MalformedAnswerError("a chunk is longer than its size")
        self._at += 2
        self._step = AnswerReader._read_chunk_size
        return False

    def _read_trailer(self) -> bool | None:
        line = self._line()
        if line is None:
            return None
        return not line

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > MAX_HEAD_BYTES:
                raise MalformedAnswerError("a line of a chunked body does not end")
            return None
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    def _take_body(self) -> None:
        part = self._buffer[self._at : self._at + self._left]
        self._at += len(part)
        self._left -= len(part)
        self.body_bytes += len(part)
        if self._keep_body and part:
            if self.body_bytes > MAX_BODY_BYTES:
                raise MalformedAnswerError(f"the body to be judged is longer than {MAX_BODY_BYTES} bytes")
            self._parts.append(part)
