"""Read what production's Redis changed while a run went on, by listening as a replica does.

The audit must not hurt. Where the server has a replication backlog we join at its present position,
which costs it nothing; only otherwise a full synchronisation is asked for, which makes it fork, and only
of a data set that is small. We acknowledge position 0 for ever: WAIT never takes us for a copy of the data.
A server that counts replicas before it takes writes (``min-replicas-to-write``) is left alone. The URL of
a replica is best: its stream is the same.

The login needs ``+psync +replconf +info +command +ping``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError
from perflab.shadow.rediskeys import REMOVED, read_table

from .attribution import Change, Claim
from .redislink import ReplicaLink
from .redisstream import Block, Blocks, CommandParser, Write

if TYPE_CHECKING:
    import redis

_CHANGES_KEPT = 500_000
_FULL_SYNC_MOST_BYTES = 1 << 30
_FULL_SYNC_TIMEOUT_S = 60.0
_SILENCE_S = 90.0
_ACK_EVERY_S = 1.0
_STATS = ("expired_keys", "evicted_keys")
LIMITS = ("messages to channels are searched for canaries, but not attributed: Redis keeps no trace of them",)

OnWrite = Callable[[Write, tuple[bytes, ...], int, bool], None]


class ReplicaStream:
    """The change stream of one Redis server.

    Parameters
    ----------
    url : str
        The audit's login on production's server, or better on a replica of it.
    production : str
        The same login on production's own server; its counters are read there.
    prefix : str
        Prefix of shadow keys; what changes only those is no change of production.
    on_write : callable
        Called from a thread of this object with every write, its words, when it was received (Unix ns)
        and whether it changes production's keys.
    needle : bytes
        What is to be found in arguments too long to keep.

    Attributes
    ----------
    not_checked : list of str
        What could not be seen, in plain words.
    shadow_changes : int
        Commands so far that changed only shadow keys.
    """

    unit = "commands"
    limits = LIMITS

    def __init__(self, url: str, production: str, prefix: str, on_write: OnWrite, needle: bytes) -> None:
        self.not_checked: list[str] = []
        self.shadow_changes = 0
        self._url, self._production = url, production
        self._prefix, self._on_write, self._needle = prefix, on_write, needle
        self._link: ReplicaLink | None = None
        self._client: redis.Redis | None = None
        self._primary: redis.Redis | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure = ""
        self._changes: list[tuple[int, Change]] = []
        self._start_offset = self._offset = self._received_ns = 0
        self._end_offset: int | None = None
        self._removed_before = 0
        self.removed_by_server = 0

    def open(self) -> None:
        """Join the stream; from here on every write is seen.

        Raises
        ------
        ShadowError
            If the server or the login does not allow it; the message says what to change.
        """
        import redis

        try:
            self._client = _client(self._url)
            replication: dict[str, Any] = self._client.info("replication")
            self._primary = self._find_primary(replication)
            self._check_replication(replication)
            self._removed_before = self._removed()
            self._client.response_callbacks.pop("COMMAND", None)
            table = read_table(self._client.execute_command("COMMAND"))  # type: ignore[no-untyped-call]  # redis-py
            self._link = ReplicaLink(self._url)
            self._start_offset = self._offset = self._join(self._link, replication)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise ShadowError(
                f"production's Redis stream cannot be read: {error}; the audit login needs +psync +replconf"
                " +info +command +ping"
            ) from error
        except ShadowError:
            self.close()
            raise
        blocks = Blocks(table, self._note)
        self._thread = threading.Thread(
            target=self._listen, args=(self._link, blocks), name="perflab audit redis", daemon=True
        )
        self._thread.start()

    def poll(self) -> bool:
        """Check that the stream still flows (it is read by a thread).

        Raises
        ------
        ShadowError
            If it broke off: writes since then cannot be had any more.
        """
        if self._failure:
            raise ShadowError(f"production's Redis stream broke off: {self._failure}")
        return True

    def end(self) -> None:
        """Fix the end of the window: what is written after it needs no claim."""
        if self._end_offset is None and self._primary is not None:
            self._end_offset = int(self._primary.info("replication")["master_repl_offset"])

    def drain(self, deadline_s: float) -> None:
        """Read up to the present position and take the server's count of keys it removed by itself.

        Raises
        ------
        ShadowError
            If that was not reached in time, or the stream broke off.
        """
        if self._primary is None:
            return
        self.end()
        target = int(self._primary.info("replication")["master_repl_offset"])
        until = time.monotonic() + deadline_s
        while self._offset < target:
            self.poll()
            if time.monotonic() > until:
                raise ShadowError(
                    f"production's Redis stream stayed {target - self._offset} bytes behind"
                    f" for {deadline_s:g} s"
                )
            self._stopping.wait(0.02)
        self.removed_by_server = max(0, self._removed() - self._removed_before)

    def changes(self) -> list[Change]:
        """Return the writes of the window, oldest first."""
        end = self._end_offset
        return [change for offset, change in self._changes if end is None or offset <= end]

    def claims(self, rows: Sequence[dict[str, Any]]) -> list[Claim]:
        """Read the agents' claims: the fingerprint is the key, and says so if it was only removed."""
        return [
            Claim(
                str(row["fingerprint"]),
                int(row["begin_ns"]),
                int(row["end_ns"]),
                int(row.get("count", 1)),
                background="background" in row,
            )
            for row in rows
        ]

    def close(self) -> None:
        """Leave the stream and end all connections; again does nothing."""
        self._stopping.set()
        if self._link is not None:
            self._link.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        for client in (self._client, self._primary):
            if client is not None:
                client.close()
        self._link = self._client = self._primary = self._thread = None

    def _find_primary(self, replication: dict[str, Any]) -> redis.Redis:
        if replication.get("role") == "master":
            return _client(self._url)
        primary = _client(self._production)
        if primary.info("replication").get("role") != "master":
            raise ShadowError(
                "the store's production address leads to a replica; what it removes by itself is counted"
                " on the primary"
            )
        return primary

    def _check_replication(self, replication: dict[str, Any]) -> None:
        if replication.get("role") == "master" and "min_slaves_good_slaves" in replication:
            raise ShadowError(
                "production takes writes only with enough replicas (min-replicas-to-write), and would"
                " count the audit as one; give the audit the URL of a replica"
            )
        if replication.get("role") != "master" and replication.get("master_link_status") != "up":
            raise ShadowError("the audit's replica has lost its primary")

    def _join(self, link: ReplicaLink, replication: dict[str, Any]) -> int:
        """Attach to the stream; return the position it starts at."""
        link.ask("REPLCONF", "capa", "eof", "capa", "psync2")
        answer = "-no backlog"
        if int(replication.get("repl_backlog_active", 0)):
            offset = int(replication["master_repl_offset"])
            answer = link.ask("PSYNC", str(replication["master_replid"]), str(offset + 1))
            if answer.startswith("+CONTINUE"):
                return offset
        if not answer.startswith("+FULLRESYNC"):
            self._check_size()
            answer = link.ask("PSYNC", "?", "-1")
        words = answer.split()
        if words[0] != "+FULLRESYNC" or len(words) < 3:
            raise ShadowError(
                f"production's Redis does not let the audit listen: {answer[1:]};"
                " the login needs +psync +replconf"
            )
        link.skip_snapshot(time.monotonic() + _FULL_SYNC_TIMEOUT_S)
        return int(words[2])

    def _check_size(self) -> None:
        assert self._client is not None
        used = int(self._client.info("memory")["used_memory"])
        if used > _FULL_SYNC_MOST_BYTES:
            raise ShadowError(
                f"a full synchronisation of {used / 1e9:.1f} GB would make production fork; give the audit"
                " the URL of a replica, or attach a replica first so that there is a backlog to join"
            )

    def _removed(self) -> int:
        assert self._primary is not None
        stats: dict[str, Any] = self._primary.info("stats")
        return sum(int(stats.get(name, 0)) for name in _STATS)

    def _listen(self, link: ReplicaLink, blocks: Blocks) -> None:
        parser = CommandParser(self._needle)
        acknowledged = heard = time.monotonic()
        try:
            while not self._stopping.is_set():
                if time.monotonic() - acknowledged >= _ACK_EVERY_S:
                    link.acknowledge()
                    acknowledged = time.monotonic()
                data = link.receive()
                if not data:
                    if time.monotonic() - heard > _SILENCE_S:
                        raise OSError(f"nothing was heard for {_SILENCE_S:g} s")
                    continue
                heard, self._received_ns = time.monotonic(), time.time_ns()
                for arguments, consumed in parser.feed(data):
                    block = blocks.feed(arguments, self._start_offset + consumed)
                    if block is not None:
                        self._keep(block)
                self._offset = self._start_offset + parser.consumed
        except Exception as error:  # the thread has nobody to raise to: poll and drain raise it
            if not self._stopping.is_set():
                self._failure = str(error) or type(error).__name__

    def _note(self, write: Write, words: tuple[bytes, ...]) -> None:
        self._on_write(write, words, self._received_ns, self._of_production(write))

    def _of_production(self, write: Write) -> bool:
        return not all(key.startswith(self._prefix) for key in write.keys)

    def _keep(self, block: Block) -> None:
        writes = [write for write in block.writes if not write.message]
        mine = [write for write in writes if self._of_production(write)]
        self.shadow_changes += len(writes) - len(mine)
        if not mine:
            return
        if len(self._changes) >= _CHANGES_KEPT:
            note = f"commands beyond the first {_CHANGES_KEPT:,} were not attributed"
            if note not in self.not_checked:
                self.not_checked.append(note)
            return
        keys = dict.fromkeys(key for write in mine for key in write.keys if not key.startswith(self._prefix))
        removed = dict.fromkeys(f"{REMOVED}{key}" for write in mine if write.removal for key in write.keys)
        names = list(dict.fromkeys(write.name for write in mine))
        place = f" in database {block.database}" if block.database > 0 else ""
        change = Change(
            self._received_ns,
            (*keys, *removed),  # a claim of a removal accounts for nothing else
            weight=len(mine),
            expirable=all(write.removal for write in mine),
            where=family(next(iter(keys))),
            what=f"{', '.join(names[:8])} {', '.join(dict.fromkeys(map(family, list(keys)[:8])))}{place}",
        )
        self._changes.append((block.offset, change))


def family(key: str) -> str:
    """Return the text of a key before its first colon: what keys of one kind share.

    Examples
    --------
    >>> family("cart:42:items")
    'cart'
    """
    return key.split(":", 1)[0][:60].encode("utf-8", "backslashreplace").decode()


def _client(url: str) -> redis.Redis:
    import redis

    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
