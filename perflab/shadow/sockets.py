"""The last net: sockets that no covered driver or client opened are closed to marked work.

Marked work may not connect, and may not send on a socket that this process connected, unless a hook that
has already decided is doing it (`scope.permit`). So a driver nobody hooked fails closed when it talks
through Python's sockets, pooled and TLS connections included. Drivers that talk through C are known by name,
and the preflight refuses a run while one is imported (`perflab.shadow.drivers`).

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
    for name in ("send", "sendall", "sendmsg", "sendfile"):
        setattr(socket_class, name, _guard_send(getattr(socket_class, name)))
    socket_class.sendto = _guard_sendto(socket_class.sendto, module)


def hook_ssl(module: Any) -> None:
    """Guard TLS sockets, which send past the methods of plain ones; ``module`` is ``ssl``."""
    socket_class = module.SSLSocket
    for name in ("send", "sendall", "write", "sendfile"):
        setattr(socket_class, name, _guard_send(getattr(socket_class, name)))
    create = socket_class._create.__func__

    @functools.wraps(create)
    def attached_create(cls: Any, sock: Any, *arguments: Any, **options: Any) -> Any:
        peer = _connected.get(sock)  # wrapping takes the connection out of this socket
        if peer is not None and scope.current() is not None and not scope.permitted():
            scope.refuse(peer, "a driver or client that perflab does not cover tried to begin TLS")
        wrapped = create(cls, sock, *arguments, **options)
        if peer is not None:
            _connected[wrapped] = peer
        return wrapped

    socket_class._create = classmethod(attached_create)


def allow(address: str) -> None:
    """Let every code reach one ``host:port``: the collector, which is no store."""
    _allowed.add(address)


def release(sock: Any) -> None:
    """Let all that is sent on a connected socket pass: its driver's hook fences the connection itself."""
    _connected.pop(sock, None)


def _guard_connect(method: Callable[..., Any], module: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(sock: Any, address: Any) -> Any:
        if not _is_local_datagram(sock, address, module):
            peer = _written(address)
            if peer not in _allowed:
                if scope.current() is not None and not scope.permitted():
                    scope.refuse(peer, "a driver or client that perflab does not cover tried to connect")
                _remember(sock, peer)
        return method(sock, address)

    return attached


def _guard_send(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(sock: Any, *arguments: Any, **options: Any) -> Any:
        if scope.current() is not None and not scope.permitted():
            peer = _connected.get(sock)
            if peer is not None:
                scope.refuse(peer, "a driver or client that perflab does not cover tried to send")
        return method(sock, *arguments, **options) if options else method(sock, *arguments)

    return attached


def _guard_sendto(method: Callable[..., Any], module: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(sock: Any, data: Any, *where: Any) -> Any:
        if where and scope.current() is not None and not scope.permitted():
            address = where[-1]
            if not _is_local_datagram(sock, address, module):
                scope.refuse(
                    _written(address), "a driver or client that perflab does not cover tried to send"
                )
        return method(sock, data, *where)

    return attached


def _remember(sock: Any, peer: str) -> None:
    try:
        _connected[sock] = peer
    except TypeError:  # a subclass that cannot be hashed or referred to weakly
        scope.process.ledger.step_aside("sockets: a socket that cannot be remembered")


def _is_local_datagram(sock: Any, address: Any, module: Any) -> bool:
    if sock.type != module.SOCK_DGRAM:
        return False
    host = address[0] if isinstance(address, tuple) and address else ""
    return sock.family == getattr(module, "AF_UNIX", None) or (
        isinstance(host, str) and (host.startswith("127.") or host in ("::1", "localhost"))
    )


def _written(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return str(address)
