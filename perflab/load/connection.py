"""Kept connections: one exchange at a time on each, checked out oldest first.

No task and no future per request: a connection calls back when its exchange has ended. Nothing is sent
twice: a request on a kept connection that the server was just closing ends as ``closed`` or ``reset``,
because nobody can know whether it was worked on.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from perflab.errors import LoadError, TargetRefused
from perflab.load.egress import Address, AllowList
from perflab.load.http1 import AnswerReader, MalformedAnswerError
from perflab.units import NS_PER_MS, NS_PER_S

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
_SURELY_OPEN_NS = 50 * NS_PER_MS
_GONE = select.POLLIN | select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Origin(NamedTuple):
    """Where a connection goes to, and whether it is TLS."""

    address: Address
    tls: bool


class ConnectFailedError(LoadError):
    """No connection was made.

    Parameters
    ----------
    outcome : str
        ``refused``, ``connect_timeout``, ``reset``, ``unreachable``, ``tls_failed``, ``target_refused``, or
        ``missed`` where this machine and not the target is the reason.
    reason : str
        What the system said.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(f"{outcome}: {reason}")
        self.outcome = outcome
        self.reason = reason


class Exchange:
    """One request on its way and what comes back.

    Parameters
    ----------
    data : bytes
        The request.
    reader : AnswerReader
        Reads the answer.
    ended : callable
        Called once with outcome (``answered``, ``closed``, ``reset``, ``malformed``) and reason.
    """

    __slots__ = ("data", "ended", "first_ns", "reader")

    def __init__(self, data: bytes, reader: AnswerReader, ended: Callable[[str, str], None]) -> None:
        self.data = data
        self.reader = reader
        self.ended = ended
        self.first_ns = 0


class Connection(asyncio.Protocol):
    """One connection; made by `Connections`."""

    __slots__ = ("_exchange", "_home", "_transport", "idle_limit_ns", "idle_since_ns", "origin")

    def __init__(self, home: Connections, origin: Origin) -> None:
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self.origin = origin
        self.idle_since_ns = 0
        self.idle_limit_ns = home.idle_ns

    @property
    def is_open(self) -> bool:
        """Whether it is connected and not being closed."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange) -> None:
        """Begin an exchange; the connection must be idle."""
        assert self._transport is not None
        self._exchange = exchange
        self._transport.write(exchange.data)

    def abort(self) -> None:
        """Close at once, without calling back; it is off the count at once too."""
        self._exchange = None
        self._home.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def is_usable(self, now_ns: int) -> bool:
        """Whether another request may be sent on it."""
        transport = self._transport
        if transport is None or not self.is_open:
            return False
        idle_ns = now_ns - self.idle_since_ns
        if idle_ns > self.idle_limit_ns:
            return False
        if idle_ns < _SURELY_OPEN_NS or self.origin.tls:
            return True
        poll = select.poll()  # the loop may not have seen yet that the server closed
        poll.register(transport.get_extra_info("socket").fileno(), _GONE)
        return not poll.poll(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        exchange = self._exchange
        if exchange is None:  # nobody asked
            self.abort()
            return
        if not exchange.first_ns:
            exchange.first_ns = time.monotonic_ns()
        try:
            complete = exchange.reader.feed(data)
        except MalformedAnswerError as error:
            self._end(exchange, "malformed", str(error))
        else:
            if complete:
                self._end(exchange, "answered", "")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        exchange, self._exchange = self._exchange, None
        self._home.forget(self)
        if exchange is None:
            return
        if exc is None and exchange.reader.feed_eof():
            exchange.ended("answered", "")
        elif exc is None:
            exchange.ended("closed", "closed half way" if exchange.first_ns else "closed without an answer")
        else:
            exchange.ended("reset", str(exc) or type(exc).__name__)

    def _end(self, exchange: Exchange, outcome: str, reason: str) -> None:
        self._exchange = None
        if outcome == "answered" and exchange.reader.reusable:
            if exchange.reader.idle_limit_s >= 0:
                stated_ns = (exchange.reader.idle_limit_s - 1) * NS_PER_S
                self.idle_limit_ns = min(self.idle_limit_ns, max(stated_ns, 0))
            self._home.give_back(self)
        else:
            self.abort()
        exchange.ended(outcome, reason)


class Connections:
    """All connections of a generator.

    Parameters
    ----------
    allowed : AllowList
        Pinned; every connection is made to, and checked against, its addresses.
    bound : int
        Connections at one time, those being made included.
    connect_timeout_s, idle_s : float
        See `perflab.load.plan.Plan`.

    Attributes
    ----------
    made : int
        Connections opened so far.
    open : int
        Connections there are now, those being made included.
    """

    def __init__(self, allowed: AllowList, bound: int, connect_timeout_s: float, idle_s: float) -> None:
        self.made = 0
        self.open = 0
        self.idle_ns = round(idle_s * NS_PER_S)
        self._allowed = allowed
        self._bound = bound
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, deque[Connection]] = {}
        self._all: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection, the one idle for longest; None if there is none."""
        idle = self._idle.get(origin)
        now_ns = time.monotonic_ns()
        while idle:
            connection = idle.popleft()
            if connection.is_usable(now_ns):
                return connection
            connection.abort()
        return None

    def reserve(self) -> bool:
        """Take the place of one more connection, for `connect`; return whether there was one.

        An idle connection to elsewhere is closed if that makes room.
        """
        if self.open >= self._bound:
            idle = next((idle for idle in self._idle.values() if idle), None)
            if idle is None:
                return False
            idle.popleft().abort()
        self.open += 1
        return True

    async def connect(self, origin: Origin) -> Connection:
        """Open a connection in a place that was reserved; the place is given up if there is none.

        Raises
        ------
        ConnectFailedError
            If there is none in the end; it names the outcome.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connect(origin)
        except TimeoutError as error:
            raise ConnectFailedError("connect_timeout", f"after {self._connect_timeout_s:g} s") from error
        except TargetRefused as error:
            raise ConnectFailedError("target_refused", str(error)) from error
        except ConnectionRefusedError as error:
            raise ConnectFailedError("refused", str(origin.address)) from error
        except ssl.SSLError as error:
            raise ConnectFailedError("tls_failed", str(error)) from error
        except ConnectionError as error:
            raise ConnectFailedError("reset", str(error) or "while connecting") from error
        except OSError as error:
            outcome = "missed" if error.errno in _OURS else "unreachable"
            raise ConnectFailedError(outcome, error.strerror or str(error)) from error
        finally:
            if connection is None:
                self.open -= 1
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange is over."""
        connection.idle_since_ns = time.monotonic_ns()
        self._idle.setdefault(connection.origin, deque()).append(connection)

    def forget(self, connection: Connection) -> None:
        """Take a closed connection off the count; once is enough."""
        if connection in self._all:
            self._all.discard(connection)
            self.open -= 1
            idle = self._idle.get(connection.origin)
            if idle and connection in idle:
                idle.remove(connection)

    def close(self) -> None:
        """Close all at once."""
        for connection in tuple(self._all):
            connection.abort()

    async def _connect(self, origin: Origin) -> Connection:
        peers = self._allowed.peers(origin.address)
        turn = self.made % len(peers)
        failure: OSError | None = None
        for peer in peers[turn:] + peers[:turn]:
            try:
                return await self._connect_to(origin, peer)
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        raise failure or OSError(f"{origin.address} has no address")

    async def _connect_to(self, origin: Origin, peer: Address) -> Connection:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in peer.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, (peer.host, peer.port))
            reached = sock.getpeername()
            self._allowed.require_peer(origin.address, reached)
            if sock.getsockname() == reached:  # TCP's simultaneous open: a port of ours that met itself
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        except BaseException:
            sock.close()
            raise
        tls: dict[str, Any] = (
            {"ssl": self._context(), "server_hostname": origin.address.host} if origin.tls else {}
        )
        _, connection = await loop.create_connection(lambda: Connection(self, origin), sock=sock, **tls)
        if not connection.is_open:  # its end came before we did
            raise ConnectionResetError(errno.ECONNRESET, "closed as soon as it was made")
        connection.idle_since_ns = time.monotonic_ns()
        self.made += 1
        self._all.add(connection)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
