"""A real HTTP server on 127.0.0.1 that counts what it is asked and misbehaves as the path says."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import secrets
import socket
import struct
import threading
import time
from collections import Counter

import pytest

from perflab.load.plan import MarkKey
from perflab.shadow.mark import RunKey, new_tag

_LENGTH = re.compile(rb"content-length: (\d+)")


class Target:
    """The server, in a thread of its own.

    ``/ok`` answers at once, ``/id`` with ``{"id": n}``, ``/status/503`` with that status, ``/after/200`` in
    200 ms, ``/freeze/1000`` stops the whole server for 1,000 ms; ``/reset /close /half /nonsense /hang
    /endless /chunked /gzip /last`` do what they say (``last``: answers and closes); ``/moved`` redirects.
    """

    def __init__(self):
        self.asked = Counter()
        self.requests = []
        self.freezes = []
        self.connections = 0
        self.sessions = []
        self.last_s = 0.0  # time.monotonic() of the newest request
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="target", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def total(self):
        return sum(self.asked.values())

    def stop(self):
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Session(self), "127.0.0.1", 0, backlog=1024)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.close()


class _Session(asyncio.Protocol):
    def __init__(self, target):
        self.target = target
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.target.connections += 1
        self.target.sessions.append(self)

    def data_received(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer and not self.transport.is_closing():
            head, rest = self.buffer.split(b"\r\n\r\n", 1)
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            self.answer(head.decode("latin-1"), rest[:size])

    def answer(self, head, body):
        method, url, _ = head.split("\r\n")[0].split(" ")
        path = url.partition("?")[0]
        what, _, argument = path.strip("/").partition("/")
        self.target.asked[path] += 1
        self.target.last_s = time.monotonic()
        self.target.requests.append((method, url, head, body))
        getattr(self, f"do_{what}")(argument)

    def send(self, status=200, body=b"ok", headers=b""):
        length = b"" if b"chunked" in headers else b"content-length: %d\r\n" % len(body)
        self.transport.write(b"HTTP/1.1 %d X\r\n%s%s\r\n%s" % (status, length, headers, body))

    def do_ok(self, _):
        self.send()

    def do_id(self, _):
        self.send(201, json.dumps({"id": f"n/{self.target.asked['/id']}"}).encode())

    def do_use(self, _):
        self.send()

    def do_status(self, status):
        self.send(int(status))

    def do_after(self, ms):
        asyncio.get_running_loop().call_later(int(ms) / 1000, self.send)

    def do_freeze(self, ms):
        began = time.time_ns()
        time.sleep(int(ms) / 1000)  # the fault itself, not a wait
        self.target.freezes.append((began, time.time_ns()))
        self.send()

    def do_reset(self, _):
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def do_close(self, _):
        self.transport.close()

    def do_half(self, _):
        self.transport.write(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nhalf")
        self.transport.close()

    def do_nonsense(self, _):
        self.transport.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    def do_hang(self, _):
        pass

    def do_endless(self, _):
        self.transport.write(b"HTTP/1.1 200 X\r\n" + b"x: y\r\n" * 20_000)

    def do_chunked(self, _):
        self.send(200, b'2\r\n{"\r\n7\r\nid": 1}\r\n0\r\n\r\n', b"transfer-encoding: chunked\r\n")

    def do_gzip(self, _):
        self.send(200, gzip.compress(b'{"id": 1}'), b"content-encoding: gzip\r\n")

    def do_last(self, _):
        self.send(headers=b"connection: close\r\n")
        self.transport.close()

    def do_moved(self, _):
        self.send(302, headers=b"location: http://127.0.0.2:1/\r\n")


@pytest.fixture
def target():
    """Start a server for this test alone."""
    server = Target()
    yield server
    server.stop()


@pytest.fixture
def run_key():
    """Return the key of a run that is live for ten minutes."""
    return RunKey(new_tag(), secrets.token_bytes(32), int(time.time()) + 86_400)


@pytest.fixture
def mark(run_key):
    """Return the same, as a plan carries it."""
    return MarkKey.of(run_key)
