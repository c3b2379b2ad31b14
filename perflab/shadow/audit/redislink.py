"""The connection of a Redis replica: log in, ask to join, pass over the snapshot, receive the stream.

See "Redis replication" in the server's manual; the snapshot's two forms are told apart by its first
line: ``$<length>`` from disk, ``$EOF:<mark>`` straight from the forked child.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

from perflab.errors import ShadowError


class ReplicaLink:
    """A replica's connection: a few questions first, then the stream.

    Parameters
    ----------
    url : str
        ``redis://``, ``rediss://`` or ``unix://``, with the login.

    Raises
    ------
    ShadowError
        If the server refuses the login.
    OSError
        If it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        from redis.connection import parse_url

        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py leaves it so
        if "path" in options:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(5)
            self._socket.connect(options["path"])
        else:
            host, port = options.get("host", "localhost"), int(options.get("port", 6379))
            self._socket = socket.create_connection((host, port), timeout=5)
            if url.startswith("rediss:"):
                context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
                if options.get("ssl_cert_reqs") == "none":
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
        self._pending = bytearray()
        if options.get("password"):
            login = [options["username"]] if options.get("username") else []
            answer = self.ask("AUTH", *login, options["password"])
            if answer != "+OK":
                raise ShadowError(f"production's Redis refuses the audit login: {answer[1:]}")

    def ask(self, *words: str) -> str:
        """Send a command and return the first line of its answer, type sign included."""
        self._send(*words)
        return self._line(time.monotonic() + 30)

    def skip_snapshot(self, until: float) -> None:
        """Read over the snapshot in front of the stream, of known length or ended by a mark."""
        head = self._line(until)
        if not head.startswith("$"):
            raise ShadowError(f"production's Redis did not send a snapshot but {head[:60]!r}")
        if head.startswith("$EOF:"):
            mark, tail = head[5:].encode(), b""
            while True:
                data = tail + self._some(until)
                at = data.find(mark)
                if at >= 0:
                    self._pending[:0] = data[at + len(mark) :]
                    break
                tail = data[-len(mark) :]
        else:
            left = int(head[1:])
            while left:
                data = self._some(until)
                self._pending[:0] = data[left:]
                left -= min(left, len(data))
        self.acknowledge()

    def receive(self) -> bytes:
        """Return what has come in, b"" after half a second of silence."""
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            return data
        self._socket.settimeout(0.5)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return b""
        if not data:
            raise OSError("the server closed the connection")
        return data

    def acknowledge(self) -> None:
        """Say that we live and have nothing."""
        self._send("REPLCONF", "ACK", "0")

    def close(self) -> None:
        """Leave; what is being received ends at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, *words: str) -> None:
        encoded = [word.encode() for word in words]
        self._socket.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )

    def _line(self, until: float) -> str:
        """Read a line, passing over the empty ones that keep the link alive."""
        while True:
            while self._pending.startswith((b"\n", b"\r")):
                del self._pending[0]
            end = self._pending.find(b"\r\n")
            if end >= 0:
                line = bytes(self._pending[:end]).decode("utf-8", "replace")
                del self._pending[: end + 2]
                return line
            held = bytes(self._pending)
            self._pending.clear()
            self._pending += held + self._some(until)

    def _some(self, until: float) -> bytes:
        while True:
            data = self.receive()
            if data:
                return data
            if time.monotonic() > until:
                raise ShadowError("production's Redis did not answer the audit in time")
