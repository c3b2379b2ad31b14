"""Reading answers from bytes."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.load.http1 import AnswerReader, MalformedAnswerError, write_request
from perflab.traffic.request import Request


def read(data, method="GET", pieces=None, eof=False):
    reader = AnswerReader(method, keep_body=True)
    done = False
    for piece in pieces or [data]:
        done = reader.feed(piece)
    return reader, done or (eof and reader.feed_eof())


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=7\r\n\r\n"
    b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)


@pytest.mark.parametrize(
    ("data", "method", "status", "body", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok", True),
        (b"HTTP/1.1 200\r\ncontent-length:2\r\nConnection: Close\r\n\r\nok", "GET", 200, b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 200, b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", "GET", 200, b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", 200, b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "POST", 204, b"", True),
        (b"HTTP/1.1 304 \r\nContent-Length: 9\r\n\r\n", "GET", 304, b"", True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx",
            "POST",
            201,
            b"x",
            True,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "GET", 200, b"ok", True),
        (CHUNKED, "GET", 200, b"abc0123456789", True),
    ],
)
def test_whole_answers(data, method, status, body, reusable):
    """Every way an answer can end is understood, in one piece and byte by byte."""
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader, done = read(data, method, pieces)
        assert done
        assert (reader.status, reader.body(), reader.reusable) == (status, body, reusable)


def test_bytes_after_an_answer_make_the_connection_useless():
    """What nobody asked for would be taken for the next answer."""
    reader, done = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 ")
    assert done
    assert (reader.body(), reader.reusable) == (b"ok", False)


def test_a_body_without_length_ends_with_the_connection():
    """Only there does the end of the connection complete an answer."""
    reader, done = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", eof=True)
    assert done
    assert (reader.body(), reader.reusable) == (b"all of it", False)
    assert not read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", eof=True)[1]
    assert not read(b"HTTP/1.1 200 OK\r\n", eof=True)[1]
    assert not read(b"", eof=True)[1]
    assert read(CHUNKED)[0].idle_limit_s == 7


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    ],
)
def test_what_is_no_answer_is_told(data):
    """Nonsense is malformed, not a hang."""
    with pytest.raises(MalformedAnswerError):
        read(data)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
def test_cuts_change_nothing(body, cuts):
    """However the bytes are cut, the body is the same."""
    # Given a chunked answer of chunks of seven bytes
    chunks = [body[at : at + 7] for at in range(0, len(body), 7)]
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    # When it arrives in pieces
    pieces = []
    rest = data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    reader, done = read(data, pieces=[piece for piece in [*pieces, rest] if piece])
    # Then it is read whole
    assert done
    assert reader.body() == body


@given(st.binary(max_size=400))
def test_noise_never_breaks_the_reader(noise):
    """Any bytes are an answer, half of one, or malformed."""
    reader = AnswerReader("GET", keep_body=True)
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\n" + noise)
        reader.feed_eof()
    except MalformedAnswerError:
        pass


def test_packed_bodies_are_unpacked_and_bounded():
    """Packed bodies, gzip and deflate, are read; a bomb and a torn one are malformed."""

    def answer(encoding, body):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
        return read(head % (encoding, len(body)) + body)[0]

    assert answer(b"gzip", gzip.compress(b"hello")).body() == b"hello"
    assert answer(b"deflate", zlib.compress(b"hello")).body() == b"hello"
    assert answer(b"identity", b"hello").body() == b"hello"
    for encoding, body in [
        (b"br", b"x"),
        (b"gzip", b"no gzip"),
        (b"gzip", gzip.compress(b"hello")[:-4]),
        (b"gzip", gzip.compress(b"\0" * 20_000_000)),
    ]:
        with pytest.raises(MalformedAnswerError):
            answer(encoding, body).body()


def test_requests_are_written():
    """Host and length are the engine's; a request may bring its own host."""
    request = Request("POST", b"/a?b", ((b"x", b"1"),), b"body")
    assert write_request(request, b"h:1", b"t: 2\r\n") == (
        b"POST /a?b HTTP/1.1\r\nhost: h:1\r\nx: 1\r\ncontent-length: 4\r\nt: 2\r\n\r\nbody"
    )
    assert b"content-length: 0" in write_request(Request("POST", b"/", (), b""), b"h", b"")
    own = write_request(Request("GET", b"/", ((b"host", b"shop"),), b""), b"h:1", b"")
    assert own == b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"
