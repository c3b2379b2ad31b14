"""A replica's handshake, against a server that plays a script."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from perflab.errors import ShadowError
from perflab.shadow.audit.redislink import ReplicaLink

MARK = b"0123456789abcdef0123456789abcdef01234567"


@contextmanager
def scripted(*pieces: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one connection: after each thing received, send the next piece; close at the end.

    A piece is sent byte by byte, so that every boundary falls between two packets now and then.
    """
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                heard.append(connection.recv(4096))
                for byte in piece:
                    connection.send(bytes([byte]))
            connection.settimeout(5)
            heard.append(connection.recv(4096))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    thread.join(10)
    listener.close()


@pytest.mark.parametrize(
    "snapshot", [b"$11\r\nREDIS\r\n$5\r\n", b"$EOF:" + MARK + b"\r\nREDIS" + MARK[:39] + b"..." + MARK]
)
def test_the_stream_begins_where_the_snapshot_ends(snapshot: bytes) -> None:
    """Not a byte of the stream is lost, whatever the form of the snapshot and the cut of the packets."""
    # Given
    answer = b"\n\n+FULLRESYNC id 7\r\n\n" + snapshot + b"*1\r\n$4\r\nPING\r\n"
    with scripted(b"+OK\r\n", answer) as (address, heard):
        # When
        link = ReplicaLink(f"redis://user:p%40ss@{address}/0")
        said = link.ask("PSYNC", "?", "-1")
        link.skip_snapshot(time.monotonic() + 5)
        stream = b""
        while len(stream) < 14:
            stream += link.receive()
        link.close()

    # Then
    assert said == "+FULLRESYNC id 7"
    assert stream == b"*1\r\n$4\r\nPING\r\n"
    assert heard[0] == b"*3\r\n$4\r\nAUTH\r\n$4\r\nuser\r\n$4\r\np@ss\r\n"
    assert heard[1] == b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"
    assert heard[2] == b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$1\r\n0\r\n"


def test_a_refused_login_is_an_error() -> None:
    """The server's words are passed on."""
    with (
        scripted(b"-WRONGPASS invalid username-password pair\r\n") as (address, _),
        pytest.raises(ShadowError, match="WRONGPASS"),
    ):
        ReplicaLink(f"redis://user:x@{address}/0")


def test_what_is_no_snapshot_is_an_error() -> None:
    """Instead of skipping it as one."""
    with scripted(b"+FULLRESYNC id 7\r\n*1\r\n") as (address, _):
        link = ReplicaLink(f"redis://{address}/0")
        link.ask("PSYNC", "?", "-1")
        with pytest.raises(ShadowError, match="did not send a snapshot"):
            link.skip_snapshot(time.monotonic() + 5)
        link.close()


def test_a_silent_server_is_not_waited_for_for_ever() -> None:
    """A snapshot that does not come in time is an error."""
    with scripted(b"+FULLRESYNC id 7\r\n") as (address, _):
        link = ReplicaLink(f"redis://{address}/0")
        link.ask("PSYNC", "?", "-1")
        with pytest.raises(ShadowError, match="did not answer the audit in time"):
            link.skip_snapshot(time.monotonic())
        link.close()
