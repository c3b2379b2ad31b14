"""Redis commands as marked work sends them: every key prefixed, every answer as the caller expects it.

Key positions come from the server's own ``COMMAND`` table. A command whose keys cannot be told is refused;
the shadow's ACL user could not reach an unprefixed key anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYLESS = _words(
    "AUTH HELLO SELECT PING ECHO QUIT RESET CLIENT COMMAND MULTI EXEC DISCARD UNWATCH TIME INFO WAIT "
    "SCRIPT READONLY READWRITE UNSUBSCRIBE PUNSUBSCRIBE "
)
_CHANNELS = frozenset({"SUBSCRIBE", "PSUBSCRIBE"})
_NUMKEYS_AT = {
    "EVAL": 2, "EVALSHA": 2, "EVAL_RO": 2, "EVALSHA_RO": 2, "FCALL": 2, "FCALL_RO": 2,
    "ZUNION": 1, "ZINTER": 1, "ZDIFF": 1, "ZINTERCARD": 1, "SINTERCARD": 1, "LMPOP": 1, "ZMPOP": 1,
    "BLMPOP": 2, "BZMPOP": 2, "ZUNIONSTORE": 2, "ZINTERSTORE": 2, "ZDIFFSTORE": 2,
}  # fmt: skip
_STORES_AT_1 = frozenset({"ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"})
PUSHES = frozenset({"LPUSH", "RPUSH", "LPUSHX", "RPUSHX"})
POPS = frozenset({"BLPOP", "BRPOP", "LPOP", "RPOP", "BLMOVE", "LMOVE", "BRPOPLPUSH", "RPOPLPUSH"})
_WAITING = _words("BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF")
READS = _words(
    "GET MGET GETRANGE STRLEN EXISTS TTL PTTL TYPE KEYS SCAN HGET HMGET HGETALL HEXISTS HKEYS HVALS "
    "HLEN HSCAN HSTRLEN LRANGE LLEN LINDEX LPOS SMEMBERS SISMEMBER SMISMEMBER SCARD SRANDMEMBER "
    "SSCAN SINTER SUNION SDIFF ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZSCORE "
    "ZMSCORE ZCARD ZCOUNT ZRANK ZREVRANK ZSCAN XRANGE XREVRANGE XLEN XREAD XINFO XPENDING GETBIT "
    "BITCOUNT BITPOS PFCOUNT GEOPOS GEODIST GEOSEARCH GEOHASH OBJECT DUMP MEMORY RANDOMKEY DBSIZE "
    "PUBLISH EXPIRETIME PEXPIRETIME LCS "
)
_ENVELOPE = "perflab-envelope 1 "


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Where a command's keys stand: as in Redis' ``COMMAND`` answer."""

    first: int
    last: int
    step: int
    movable: bool


class UnknownKeys(Exception):  # noqa: N818 - an answer, turned into a ShadowError by the hook
    """The keys of a command cannot be told."""


def read_table(answer: Sequence[Any] | Mapping[Any, Any]) -> dict[str, KeySpec]:
    """Read the answer of ``COMMAND``: upper-case name -> where its keys stand."""
    table = {}
    for row in answer:
        name, flags = _text(row[0]).upper(), {_text(flag) for flag in row[2]}
        table[name] = KeySpec(int(row[3]), int(row[4]), int(row[5]), "movablekeys" in flags)
    return table


def split(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Split a two-word command name as redis-py passes it (``"OBJECT ENCODING"``) into its words."""
    name = arguments[0]
    words = name.split() if isinstance(name, (str, bytes)) else [name]
    return (*words, *arguments[1:])


def key_positions(arguments: Sequence[Any], table: Mapping[str, KeySpec]) -> list[int]:
    """Return the indexes of a command's keys.

    Raises
    ------
    UnknownKeys
        If they cannot be told.
    """
    name = _text(arguments[0]).upper()
    if name in _KEYLESS:
        return []
    if name in _CHANNELS:
        return list(range(1, len(arguments)))
    if name == "PUBLISH":
        return [1]
    if name in _NUMKEYS_AT:
        at = _NUMKEYS_AT[name]
        keys = list(range(at + 1, at + 1 + int(_text(arguments[at]))))
        return [1, *keys] if name in _STORES_AT_1 else keys
    if name in ("XREAD", "XREADGROUP"):
        words = [_text(word).upper() for word in arguments]
        at = words.index("STREAMS") + 1
        return list(range(at, at + (len(arguments) - at) // 2))
    spec = table.get(name)
    if spec is None or spec.movable or spec.first == 0:
        raise UnknownKeys(f"the keys of {name} cannot be told")
    last = len(arguments) + spec.last if spec.last < 0 else spec.last
    return list(range(spec.first, last + 1, spec.step))


def prefixed(arguments: Sequence[Any], table: Mapping[str, KeySpec], prefix: str) -> tuple[Any, ...]:
    """Return a command with all its keys prefixed (patterns and channels too).

    Raises
    ------
    UnknownKeys
        If its keys cannot be told.
    """
    words = list(split(arguments))
    name = _text(words[0]).upper()
    if name == "KEYS":
        words[1] = _join(prefix, words[1])
    elif name == "SCAN":
        upper = [_text(word).upper() for word in words]
        if "MATCH" in upper:
            at = upper.index("MATCH") + 1
            words[at] = _join(prefix, words[at])
        else:
            words += ["MATCH", f"{prefix}*"]
    else:
        for position in key_positions(words, table):
            words[position] = _join(prefix, words[position])
    return tuple(words)


def enveloped(words: tuple[Any, ...], headers: str) -> tuple[Any, ...]:
    """Wrap the values of a list push with the trace headers, for the shadow consumer to find."""
    lead = f"{_ENVELOPE}{headers}\n"
    return words[:2] + tuple(_join(lead, value) for value in words[2:])


def restored(answer: Any, prefix: str, found: Callable[[str], None]) -> Any:
    """Undo on an answer what was done to the command: strip key prefixes and envelopes.

    ``found`` is called with the headers of each envelope met.
    """
    if isinstance(answer, (list, tuple)):
        return type(answer)(restored(item, prefix, found) for item in answer)
    if isinstance(answer, dict):
        return {restored(key, prefix, found): restored(value, prefix, found) for key, value in answer.items()}
    if isinstance(answer, bytes):
        return _restored_bytes(answer, prefix.encode(), found)
    if isinstance(answer, str):
        if answer.startswith(prefix):
            return answer[len(prefix) :]
        if answer.startswith(_ENVELOPE):
            headers, _, value = answer[len(_ENVELOPE) :].partition("\n")
            found(headers)
            return value
    return answer


def written_keys(arguments: Sequence[Any]) -> list[str]:
    """Return the keys an ordinary command may write (what the audit will find in the change stream)."""
    words = split(arguments)
    name = _text(words[0]).upper()
    if name in READS or name in _KEYLESS or name in _CHANNELS or len(words) < 2:
        return []
    if name in _NUMKEYS_AT:
        at = _NUMKEYS_AT[name]
        count = int(_text(words[at])) if len(words) > at else 0
        keys = list(words[at + 1 : at + 1 + count]) + ([words[1]] if name in _STORES_AT_1 else [])
    elif name in ("DEL", "UNLINK", "PFMERGE", "SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"):
        keys = list(words[1:])
    elif name in ("MSET", "MSETNX"):
        keys = list(words[1::2])
    elif name in ("BLPOP", "BRPOP"):
        keys = list(words[1:-1])
    elif name in ("RENAME", "RENAMENX", "LMOVE", "BLMOVE", "RPOPLPUSH", "BRPOPLPUSH", "SMOVE", "COPY"):
        keys = list(words[1:3])
    elif name == "BITOP":
        keys = list(words[2:3])
    else:
        keys = [words[1]]
    return [_text(key) for key in keys]


def waits(arguments: Sequence[Any]) -> bool:
    """Tell whether a command waits for something to come: a blocking pop or read, which is no work."""
    words = split(arguments)
    name = _text(words[0]).upper()
    if name in ("XREAD", "XREADGROUP"):
        options = [_text(word).upper() for word in words[1:]]
        return "BLOCK" in options[: options.index("STREAMS")] if "STREAMS" in options else False
    return name in _WAITING


def family(arguments: Sequence[Any]) -> str:
    """Return the span name of a command: its name and the text before the first ``:`` of its key."""
    words = split(arguments)
    name = _text(words[0]).upper()
    if len(words) < 2 or name in _KEYLESS:
        return name
    at = _NUMKEYS_AT.get(name, 0) + 1
    key = _text(words[at]) if len(words) > at else ""
    return f"{name} {key.split(':', 1)[0][:60]}"


def _join(lead: str, value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return lead.encode() + bytes(value)
    return f"{lead}{value}"


def _restored_bytes(answer: bytes, prefix: bytes, found: Callable[[str], None]) -> bytes:
    if answer.startswith(prefix):
        return answer[len(prefix) :]
    envelope = _ENVELOPE.encode()
    if answer.startswith(envelope):
        headers, _, value = answer[len(envelope) :].partition(b"\n")
        found(headers.decode("latin-1"))
        return value
    return answer


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)
