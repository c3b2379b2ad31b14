"""The last net: sockets that no covered driver or client opened are closed to marked work.

Marked work may not connect, and may not send on a socket that this process connected, unless a hook that
has already decided is doing it (`scope.permit`). So a driver nobody hooked fails closed when it talks
through Python's sockets, pooled connections included. Drivers that talk through C are known by name, and
the preflight refuses a run while one is imported (`perflab.shadow.drivers`).

Accepted connections, socket pairs and local datagrams (syslog) are not touched.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope

_allowed: set[str] = set()
_connected: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def hook_socket(module: Any) -> None:
    """Guard every Python socket of this process; ``module`` is ``socket``."""
    socket_class = module.socket
    for name in ("connect", "connect_ex"):
        setattr(socket_class, name, _guard_connect(getattr(socket_class, name), module))
    for name in ("send", "sendall", "sendmsg", "sendfile", "sendto"):
        setattr(socket_class, name, _guard_send(getattr(socket_class, name)))


def allow(address: str) -> None:
    """Let every code reach one ``host:port``: the collector, which is no store."""
    _allowed.add(address)


def _guard_connect(method: Callable[..., Any], module: Any) -> Callable[..., Any]:
    unix, datagram = getattr(module, "AF_UNIX", None), module.SOCK_DGRAM

    @functools.wraps(method)
    def attached(sock: Any, address: Any) -> Any:
        if not (sock.family == unix and sock.type == datagram):
            peer = _written(address)
            if peer not in _allowed:
                if scope.current() is not None and not scope.permitted():
                    scope.refuse(peer, "a driver or client that perflab does not cover tried to connect")
                _connected[sock] = peer
        return method(sock, address)

    return attached


def _guard_send(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(sock: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is not None and not scope.permitted():
            peer = _connected.get(sock)
            if peer is not None:
                scope.refuse(peer, "a driver or client that perflab does not cover tried to send")
        return method(sock, *arguments, **options)

    return attached


def _written(address: Any) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return str(address)
