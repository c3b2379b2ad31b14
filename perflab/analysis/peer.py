"""Who is at the other end of a call that no span came back from: a database, a cache, a queue, a peer.

Read from the attributes of the calling span by OpenTelemetry's names, older names included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

DATABASE, CACHE, QUEUE, EXTERNAL, SERVICE = "database", "cache", "queue", "external", "service"

_CACHES = frozenset({"redis", "valkey", "memcached"})


class _Attributes(msgspec.Struct, frozen=True):
    """What is read of a span's attributes; all else is skipped."""

    system: object = msgspec.field(default="", name="db.system.name")
    older_system: object = msgspec.field(default="", name="db.system")
    namespace: object = msgspec.field(default="", name="db.namespace")
    older_namespace: object = msgspec.field(default="", name="db.name")
    queue: object = msgspec.field(default="", name="messaging.destination.name")
    older_queue: object = msgspec.field(default="", name="messaging.destination")
    peer: object = msgspec.field(default="", name="peer.service")
    address: object = msgspec.field(default="", name="server.address")
    older_address: object = msgspec.field(default="", name="net.peer.name")
    port: object = msgspec.field(default="", name="server.port")


@dataclass(frozen=True, order=True)
class Peer:
    """The other end of a call.

    Attributes
    ----------
    kind : str
        "database", "cache", "queue" or "external".
    name : str
        ``postgresql shop``, ``redis``, ``queue mails``, ``bank``.
    """

    kind: str
    name: str


_DECODER = msgspec.json.Decoder(_Attributes)


def read_peers(attributes: Sequence[str], kinds: Sequence[str], names: Sequence[str]) -> list[Peer]:
    """Return the peer of each calling span.

    Parameters
    ----------
    attributes : sequence of str
        JSON texts, as in the span table.
    kinds, names : sequence of str
        Kind and name of the spans.

    Examples
    --------
    >>> read_peers(['{"db.system.name": "postgresql", "db.namespace": "shop"}'], ["client"], ["SELECT stock"])
    [Peer(kind='database', name='postgresql shop')]
    >>> read_peers(['{"server.address": "bank.example"}', ""], ["client", "producer"], ["POST", "send mails"])
    [Peer(kind='external', name='bank.example'), Peer(kind='queue', name='queue mails')]
    """
    return [_read(*span) for span in zip(attributes, kinds, names, strict=True)]


def queue_name(attributes: str, name: str) -> str:
    """Return a queue's node name, from a PRODUCER or CONSUMER span.

    Examples
    --------
    >>> queue_name("", "process mails"), queue_name('{"messaging.destination.name": "m"}', "x")
    ('queue mails', 'queue m')
    """
    found = _decode(attributes)
    queue = str(found.queue or found.older_queue)
    if not queue:
        words = name.split()
        queue = words[1] if len(words) == 2 else name
    return f"queue {queue}"


def _read(text: str, kind: str, name: str) -> Peer:
    if kind == "producer":
        return Peer(QUEUE, queue_name(text, name))
    found = _decode(text)
    system = str(found.system or found.older_system)
    if system:
        namespace = "" if system in _CACHES else str(found.namespace or found.older_namespace)
        return Peer(CACHE if system in _CACHES else DATABASE, f"{system} {namespace}".strip())
    peer = str(found.peer)
    if not peer:
        peer = str(found.address or found.older_address)
    return Peer(EXTERNAL, peer or f"unknown peer of {name!r}")


def _decode(text: str) -> _Attributes:
    if not text:
        return _Attributes()
    try:
        return _DECODER.decode(text)
    except msgspec.MsgspecError:
        return _Attributes()
