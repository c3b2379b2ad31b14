"""Redis commands as marked work sends them: every key prefixed, every answer as the caller expects it.

Key positions come from the server's own ``COMMAND`` table. A command whose keys cannot be told is refused;
the shadow's ACL user could not reach an unprefixed key anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYLESS = _words(
    "AUTH HELLO SELECT PING ECHO QUIT RESET CLIENT COMMAND MULTI EXEC DISCARD UNWATCH TIME INFO WAIT "
    "WAITAOF SCRIPT READONLY READWRITE"
)
# what a connection does for its own upkeep; code that does it could leave the shadow's login
_UPKEEP = _words("AUTH HELLO RESET QUIT")
_ALLOWED = {
    "CLIENT": _words("SETNAME GETNAME ID SETINFO INFO"),
    "SCRIPT": _words("LOAD EXISTS"),
}
_CHANNELS = _words("SUBSCRIBE PSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE")
_NUMKEYS_AT = {
    "EVAL": 2, "EVALSHA": 2, "EVAL_RO": 2, "EVALSHA_RO": 2, "FCALL": 2, "FCALL_RO": 2,
    "ZUNION": 1, "ZINTER": 1, "ZDIFF": 1, "ZINTERCARD": 1, "SINTERCARD": 1, "LMPOP": 1, "ZMPOP": 1,
    "BLMPOP": 2, "BZMPOP": 2, "ZUNIONSTORE": 2, "ZINTERSTORE": 2, "ZDIFFSTORE": 2,
}  # fmt: skip
_STORES_AT_1 = frozenset({"ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"})
_AFTER_STORE = frozenset({"SORT", "GEORADIUS", "GEORADIUSBYMEMBER"})
_REMOVING = _words("DEL UNLINK GETDEL")
_WHOLE = frozenset({"FLUSHALL", "FLUSHDB", "SWAPDB"})
EVERYTHING = "*"
"""What a command that changes a whole database is said to write."""
REMOVED = "\x00removed "
"""What comes before the key in a claim of a command that does no more than remove it."""
PUSHES = frozenset({"LPUSH", "RPUSH", "LPUSHX", "RPUSHX"})
POPS = _words("BLPOP BRPOP LPOP RPOP BLMOVE LMOVE BRPOPLPUSH RPOPLPUSH LMPOP BLMPOP")
_WAITING = _words("BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF")
READS = _words(
    "GET MGET GETRANGE SUBSTR STRLEN EXISTS TTL PTTL TYPE KEYS SCAN HGET HMGET HGETALL HEXISTS HKEYS "
    "HVALS HLEN HSCAN HSTRLEN HRANDFIELD LRANGE LLEN LINDEX LPOS SMEMBERS SISMEMBER SMISMEMBER SCARD "
    "SRANDMEMBER SSCAN SINTER SINTERCARD SUNION SDIFF ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE "
    "ZRANGEBYLEX ZREVRANGEBYLEX ZLEXCOUNT ZRANDMEMBER ZSCORE ZMSCORE ZCARD ZCOUNT ZRANK ZREVRANK ZSCAN "
    "ZUNION ZINTER ZDIFF ZINTERCARD XRANGE XREVRANGE XLEN XREAD XINFO XPENDING GETBIT BITCOUNT BITPOS "
    "BITFIELD_RO GEOPOS GEODIST GEOSEARCH GEOHASH GEORADIUS_RO GEORADIUSBYMEMBER_RO SORT_RO OBJECT DUMP "
    "MEMORY RANDOMKEY DBSIZE TOUCH WATCH PUBLISH SPUBLISH EXPIRETIME PEXPIRETIME LCS EVAL_RO EVALSHA_RO "
    "FCALL_RO"
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
    """Read the answer of ``COMMAND``: upper-case name -> where its keys stand.

    A subcommand, which Redis 7 lists inside its container, is named ``XGROUP|CREATE``.
    """
    table = {}
    for row in answer:
        name, flags = _text(row[0]).upper(), {_text(flag) for flag in row[2]}
        table[name] = KeySpec(int(row[3]), int(row[4]), int(row[5]), "movablekeys" in flags)
        if len(row) > 9:
            table.update(read_table(row[9]))
    return table


def name_of(arguments: Sequence[Any]) -> str:
    """Return a command's name in upper case, ``""`` of nothing or of what is no text."""
    words = split(arguments[:1])
    return _text(words[0]).upper() if words and isinstance(words[0], (str, bytes)) else ""


def split(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Split a two-word command name as redis-py passes it (``"OBJECT ENCODING"``) into its words."""
    name = arguments[0] if arguments else ""
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
    if name in ("PUBLISH", "SPUBLISH"):
        return [1]
    if name in _NUMKEYS_AT:
        at = _NUMKEYS_AT[name]
        keys = list(range(at + 1, at + 1 + int(_text(arguments[at]))))
        return [1, *keys] if name in _STORES_AT_1 else keys
    if name in ("XREAD", "XREADGROUP"):
        at = _after_streams(arguments)
        return list(range(at, at + (len(arguments) - at) // 2))
    spec = table.get(name)
    if spec is not None and spec.first == 0 and len(arguments) > 1:
        spec = table.get(f"{name}|{_text(arguments[1]).upper()}", spec)
    if spec is None or spec.movable or spec.first == 0:
        raise UnknownKeys(f"the keys of {name} cannot be told")
    last = len(arguments) + spec.last if spec.last < 0 else spec.last
    return list(range(spec.first, last + 1, spec.step))


def prefixed(
    arguments: Sequence[Any], table: Mapping[str, KeySpec], prefix: str, *, upkeep: bool = False
) -> tuple[Any, ...]:
    """Return a command with all its keys prefixed (patterns and channels too).

    Parameters
    ----------
    arguments, table, prefix
        The command, `read_table` of its server, and what goes before each key.
    upkeep : bool
        Whether a connection sends it on its own account: only then may it log in.

    Raises
    ------
    UnknownKeys
        If its keys cannot be told, or it is none that marked work may send.
    """
    words = list(split(arguments))
    name = name_of(words)
    if not upkeep and (name in _UPKEEP or not _allowed(name, words)):
        raise UnknownKeys(f"{' '.join(map(_text, words[:2]))} concerns the connection or the server")
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix)
    if name in ("KEYS", "PSUBSCRIBE", "PUNSUBSCRIBE"):
        words[1:] = [_join(pattern, word) for word in words[1:]]
    elif name == "SCAN":
        upper = [_text(word).upper() for word in words]
        if "MATCH" in upper:
            at = upper.index("MATCH") + 1
            words[at] = _join(pattern, words[at])
        else:
            words += ["MATCH", f"{pattern}*"]
    else:
        for position in key_positions(words, table):
            words[position] = _join(prefix, words[position])
    return tuple(words)


def enveloped(words: tuple[Any, ...], headers: str) -> tuple[Any, ...]:
    """Wrap the values of a list push with the trace headers, unless they are wrapped already."""
    return words[:2] + tuple(wrapped(value, headers) for value in words[2:])


def wrapped(value: Any, headers: str) -> Any:
    """Wrap one value of a list."""
    head = bytes(value[: len(_ENVELOPE)]) if isinstance(value, (bytes, bytearray)) else b""
    if head == _ENVELOPE.encode() or (isinstance(value, str) and value.startswith(_ENVELOPE)):
        return value
    return _join(f"{_ENVELOPE}{headers}\n", value)


def restored(answer: Any, prefix: str, found: Callable[[str], None]) -> Any:
    """Undo on an answer what was done to the command: strip key prefixes and envelopes.

    Parameters
    ----------
    answer
        As the server gave it, at any depth.
    prefix : str
        What went before each key.
    found : callable
        Called with the headers of each envelope met.
    """
    if isinstance(answer, (list, tuple, set, frozenset)):
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
    """Return the keys an ordinary command may write (what the audit will find in the change stream).

    Raises
    ------
    ValueError
        If the command says how many keys it has and that is no number.
    """
    words = split(arguments)
    name = name_of(words)
    if name in _WHOLE:
        return [EVERYTHING]
    if name in READS or name in _KEYLESS or name in _CHANNELS or len(words) < 2:
        return []
    if name in _NUMKEYS_AT:
        at = _NUMKEYS_AT[name]
        count = int(_text(words[at])) if len(words) > at else 0
        keys = list(words[at + 1 : at + 1 + count]) + ([words[1]] if name in _STORES_AT_1 else [])
    elif name in ("DEL", "UNLINK", "PFMERGE", "PFCOUNT", "SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"):
        keys = list(words[1:])
    elif name in ("MSET", "MSETNX"):
        keys = list(words[1::2])
    elif name in ("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"):
        keys = list(words[1:-1])
    elif name in ("RENAME", "RENAMENX", "LMOVE", "BLMOVE", "RPOPLPUSH", "BRPOPLPUSH", "SMOVE", "COPY"):
        keys = list(words[1:3])
    elif name in ("BITOP", "XGROUP"):
        keys = list(words[2:3])
    elif name == "XREADGROUP":
        at = _after_streams(words)
        keys = list(words[at : at + (len(words) - at) // 2])
    elif name in _AFTER_STORE:
        upper = [_text(word).upper() for word in words]
        stores = [at + 1 for at, word in enumerate(upper[:-1]) if at > 1 and word in ("STORE", "STOREDIST")]
        keys = [words[at] for at in stores[-1:]]
    else:
        keys = [words[1]]
    return [_text(key) for key in keys]


def claimed_keys(arguments: Sequence[Any]) -> list[str]:
    """Return the keys an ordinary command may write, as its claims name them.

    Raises
    ------
    ValueError
        As of `written_keys`.
    """
    lead = REMOVED if name_of(arguments) in _REMOVING else ""
    return [lead + key for key in written_keys(arguments)]


def changed(arguments: Sequence[Any], answer: Any) -> bool:
    """Tell from its answer whether an ordinary command may have changed anything."""
    if answer is not None:
        return True
    words = [_text(word).upper() for word in split(arguments)]
    if words[:1] == ["SET"]:
        return "GET" in words[3:] or not {"NX", "XX"} & set(words[3:])
    return not words or words[0] not in POPS


def waits(arguments: Sequence[Any]) -> bool:
    """Tell whether a command waits for something to come: a blocking pop or read, which is no work."""
    words = split(arguments)
    name = name_of(words)
    if name in ("XREAD", "XREADGROUP"):
        return "BLOCK" in [_text(word).upper() for word in words[: _after_streams(words)]]
    return name in _WAITING


def family(arguments: Sequence[Any]) -> str:
    """Return the span name of a command: its name and the text before the first ``:`` of its key."""
    words = split(arguments)
    name = name_of(words)
    if len(words) < 2 or name in _KEYLESS:
        return name
    at = _NUMKEYS_AT.get(name, 0) + 1
    key = _text(words[at]) if len(words) > at else ""
    return f"{name} {key.split(':', 1)[0][:60]}"


def _allowed(name: str, words: Sequence[Any]) -> bool:
    return name not in _ALLOWED or (len(words) > 1 and _text(words[1]).upper() in _ALLOWED[name])


def _after_streams(words: Sequence[Any]) -> int:
    """Return where the keys of XREAD or XREADGROUP begin; a group may be called "streams" too."""
    first = 4 if name_of(words) == "XREADGROUP" else 1
    for at in range(first, len(words)):
        if _text(words[at]).upper() == "STREAMS":
            return at + 1
    return len(words)


def _join(lead: str, value: Any) -> Any:
    """Put a text before an argument as redis-py would write it; what it refuses is left for it to refuse."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return lead.encode() + bytes(value)
    if isinstance(value, str):
        return lead + value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return lead + repr(value)
    return value


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
