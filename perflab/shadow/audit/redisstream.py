"""Read the stream a Redis server sends its replicas: every write, in order, as commands.

Pure: bytes go in, commands and blocks come out. `perflab.shadow.audit.redisreplica` brings the bytes. The
stream shows effects, not calls: a script comes as the writes it made inside MULTI/EXEC, BLPOP as LPOP,
EXPIRE as PEXPIREAT, an expired key as DEL. So only the keys tell which call made which write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from perflab.errors import ShadowError
from perflab.shadow.rediskeys import KeySpec, UnknownKeys, key_positions, written_keys

EVERYTHING = "*"
"""Key of a command that changes a whole database."""

_ARGUMENT_KEPT = 256 * 1024
_NEIGHBOURHOOD = 128
_WHOLE = frozenset({"FLUSHALL", "FLUSHDB", "SWAPDB", "FUNCTION"})
_NO_CHANGE = frozenset({"PING", "REPLCONF", "SELECT", "MULTI", "EXEC", "SCRIPT", "WAIT", "CLIENT", "DISCARD"})
_MESSAGES = frozenset({"PUBLISH", "SPUBLISH"})
_AFTER_STORE = frozenset({"SORT", "GEORADIUS", "GEORADIUSBYMEMBER"})
_REMOVALS = frozenset({"DEL", "UNLINK"})


@dataclass(frozen=True, slots=True)
class Write:
    """One command of the stream.

    ``keys`` are those it changes, as text (UTF-8, other bytes as surrogates); for a message to a
    channel, the channel. ``message`` says it is such a message, ``removal`` that it only removes keys.
    Its arguments are not kept.
    """

    name: str
    keys: tuple[str, ...]
    message: bool
    removal: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Writes one client made at once: a single command, or all of a MULTI or script.

    ``offset`` is the position in the stream just after it; ``database`` -1 when the stream has not said
    yet which one it is.
    """

    database: int
    writes: tuple[Write, ...]
    offset: int


class CommandParser:
    """Cut the byte stream into commands.

    Of an argument longer than 256 KiB the head is kept, and the neighbourhood of ``needle`` if it occurs
    in the rest.

    Parameters
    ----------
    needle : bytes
        What is searched in long arguments; at most 64 bytes.
    """

    def __init__(self, needle: bytes = b"") -> None:
        self.consumed = 0
        self._needle = needle
        self._buffer = bytearray()
        self._missing = 0
        self._arguments: list[bytes] = []
        self._long_left = 0
        self._head, self._tail, self._near = bytearray(), b"", b""

    def feed(self, data: bytes) -> list[tuple[tuple[bytes, ...], int]]:
        """Take bytes; return the commands they complete, each with the stream position after it.

        Raises
        ------
        ShadowError
            If the bytes are not what a master sends.
        """
        self._buffer += data
        found: list[tuple[tuple[bytes, ...], int]] = []
        at = 0
        while True:
            at, whole = self._step(at)
            if whole is None:
                break
            if whole:
                found.append((whole, self.consumed))
        del self._buffer[:at]
        return found

    def _step(self, at: int) -> tuple[int, tuple[bytes, ...] | None]:
        """Take the next line or argument; return where it ends, and a whole command, () or None."""
        buffer = self._buffer
        if self._long_left:
            return self._take_long(at)
        end = buffer.find(b"\r\n", at)
        if not self._missing:
            if buffer[at : at + 1] == b"\n":  # a keepalive
                self.consumed += 1
                return at + 1, ()
            if end < 0:
                return at, None
            if buffer[at] != 0x2A:
                raise ShadowError(f"the replication stream has {bytes(buffer[at : at + 20])!r} for a command")
            self._missing, self._arguments = _number(buffer[at + 1 : end]), []
            self.consumed += end + 2 - at
            return end + 2, ()
        if end < 0:
            return at, None
        if buffer[at] != 0x24:
            raise ShadowError(f"the replication stream has {bytes(buffer[at : at + 20])!r} for an argument")
        length = _number(buffer[at + 1 : end])
        start = end + 2
        if length > _ARGUMENT_KEPT:
            self._long_left, self._head, self._tail, self._near = length + 2, bytearray(), b"", b""
            self.consumed += start - at
            return start, ()
        if len(buffer) < start + length + 2:
            return at, None
        self.consumed += start + length + 2 - at
        return start + length + 2, self._take(bytes(buffer[start : start + length]))

    def _take(self, argument: bytes) -> tuple[bytes, ...]:
        self._arguments.append(argument)
        self._missing -= 1
        return () if self._missing else tuple(self._arguments)

    def _take_long(self, at: int) -> tuple[int, tuple[bytes, ...] | None]:
        part = bytes(self._buffer[at : at + self._long_left])
        if not part:
            return at, None
        self._long_left -= len(part)
        self.consumed += len(part)
        self._head += part[: _ARGUMENT_KEPT - len(self._head)]
        window = self._tail + part
        where = window.find(self._needle) if self._needle and not self._near else -1
        if where >= 0:
            self._near = window[where : where + _NEIGHBOURHOOD]
        elif 0 < len(self._near) < _NEIGHBOURHOOD:
            self._near += part[: _NEIGHBOURHOOD - len(self._near)]
        self._tail = window[-_NEIGHBOURHOOD:]
        if self._long_left:
            return at + len(part), ()
        return at + len(part), self._take(bytes(self._head) + self._near)


class Blocks:
    """Put commands together into blocks, following SELECT, MULTI and EXEC.

    Parameters
    ----------
    table : mapping
        Key positions from the server's COMMAND (`perflab.shadow.rediskeys.read_table`).
    on_write : callable
        Called with each write and all words of its command, as soon as they are there.
    """

    def __init__(
        self, table: Mapping[str, KeySpec], on_write: Callable[[Write, tuple[bytes, ...]], None]
    ) -> None:
        self._table = table
        self._on_write = on_write
        self._database = -1
        self._open: list[Write] | None = None

    def feed(self, arguments: tuple[bytes, ...], offset: int) -> Block | None:
        """Take one command; return the block it completes, if it changes anything."""
        name = arguments[0].decode("latin-1").upper()
        if name == "SELECT" and len(arguments) > 1:
            self._database = _number(arguments[1])
        elif name == "MULTI":
            self._open = []
        elif name == "EXEC":
            writes, self._open = self._open or [], None
            return Block(self._database, tuple(writes), offset) if writes else None
        elif name not in _NO_CHANGE:
            write = read_write(arguments, self._table)
            self._on_write(write, arguments)
            if self._open is None:
                return Block(self._database, (write,), offset)
            self._open.append(write)
        return None


def read_write(arguments: Sequence[bytes], table: Mapping[str, KeySpec]) -> Write:
    """Tell which keys a command of the stream changes; where nobody knows, its first argument is taken."""
    name = arguments[0].decode("latin-1").upper()
    return Write(name, tuple(_keys(name, arguments, table)), name in _MESSAGES, name in _REMOVALS)


def _keys(name: str, arguments: Sequence[bytes], table: Mapping[str, KeySpec]) -> list[str]:
    if name in _WHOLE or len(arguments) < 2:
        return [EVERYTHING]
    if name in _MESSAGES:
        return [_text(arguments[1])]
    if name == "XGROUP":
        return [_text(arguments[2])] if len(arguments) > 2 else [EVERYTHING]
    if name in _AFTER_STORE:
        words = [word.upper() for word in arguments]
        targets = [
            arguments[at + 1]
            for at, word in enumerate(words[:-1])
            if at > 1 and word in (b"STORE", b"STOREDIST")
        ]
        return [_text(target) for target in targets[-1:]] or [_text(arguments[1])]
    try:
        keys = written_keys(arguments)
        if not keys:
            keys = [_text(arguments[at]) for at in key_positions(arguments, table)]
    except (UnknownKeys, ValueError, IndexError):
        keys = []
    return keys or [_text(arguments[1])]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _number(digits: bytes | bytearray) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ShadowError(
            f"the replication stream has {bytes(digits[:20])!r} where a number belongs"
        ) from None
