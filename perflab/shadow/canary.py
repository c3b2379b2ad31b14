"""Find marked payloads where they must not be: in what production gained.

Marked requests carry canaries, texts ``plc-<run id>-<trace id>``. One of them in a row or a key of
production is a leak, and names the request that made it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass
from typing import Any

from .pgoutput import RowChange
from .redisreplica import family
from .redisstream import Write

LEAKS_KEPT = 1000
_EVIDENCE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Leak:
    """Marked work that reached production.

    Parameters
    ----------
    store : str
        Name of the store.
    where : str
        Table (without the schema ``public``) or key family.
    trace_id : str
        32 hex characters, ``""`` when the canary was cut off.
    what : str
        ``insert``, ``update``, ``delete``, or the Redis command.
    time_ns : int
        When it was committed, or received from the stream (Unix ns).
    evidence : str
        The row or command, cut to 500 characters.
    """

    store: str
    where: str
    trace_id: str
    what: str
    time_ns: int
    evidence: str

    def as_row(self) -> dict[str, Any]:
        """Return it as ``isolation.json`` has it."""
        return asdict(self)


class CanaryWatch:
    """Searches one store's changes for one run's canaries, in any case, and in ``bytea`` as hex.

    Parameters
    ----------
    store : str
        Name of the store.
    run_id : str
        Whose canaries.

    Attributes
    ----------
    hits : int
        Changes with a canary; the first 1000 are kept as leaks.
    leaks : list of Leak
    """

    def __init__(self, store: str, run_id: str) -> None:
        self.hits = 0
        self.leaks: list[Leak] = []
        self._store = store
        self._text = f"plc-{run_id}".lower()
        self._hex = self._text.encode().hex()
        self._pattern = re.compile(re.escape(self._text) + r"(?![0-9a-z])(?:-([0-9a-f]{32}))?", re.IGNORECASE)
        self._new: list[Leak] = []
        self._lock = threading.Lock()

    @property
    def needle(self) -> bytes:
        """What a long value is searched for (lower case)."""
        return self._text.encode()

    def row(self, change: RowChange, time_ns: int) -> None:
        """Search a row of a PostgreSQL table."""
        for value in change.values:
            if value is not None:
                trace_id = self._search(value)
                if trace_id is not None:
                    shown = ", ".join("NULL" if item is None else item for item in change.values)
                    where = change.table.removeprefix("public.")
                    self._add(where, trace_id, change.operation, time_ns, f"({shown})")
                    return

    def command(self, write: Write, words: tuple[bytes, ...], time_ns: int) -> None:
        """Search a Redis command with all its words."""
        for word in words:
            trace_id = self._search(word.decode("utf-8", "replace"))
            if trace_id is not None:
                shown = " ".join(word[:200].decode("utf-8", "backslashreplace") for word in words)
                self._add(family(write.keys[0]), trace_id, write.name, time_ns, shown)
                return

    def take(self) -> list[Leak]:
        """Return the leaks found since the last call."""
        with self._lock:
            found, self._new = self._new, []
            return found

    def _search(self, value: str) -> str | None:
        """Return the trace id of the first canary, "" if it is cut off, None if there is none."""
        lower = value.lower()
        if self._text not in lower:
            if not lower.startswith("\\x") or self._hex not in lower:
                return None
            at = lower.index(self._hex)
            lower = _from_hex(lower[at : at + len(self._hex) + 66])
        found = self._pattern.search(lower)
        return None if found is None else found[1] or ""

    def _add(self, where: str, trace_id: str, what: str, time_ns: int, evidence: str) -> None:
        leak = Leak(self._store, where, trace_id, what, time_ns, evidence[:_EVIDENCE_CHARACTERS])
        with self._lock:
            self.hits += 1
            if len(self.leaks) < LEAKS_KEPT:
                self.leaks.append(leak)
                self._new.append(leak)


def _from_hex(digits: str) -> str:
    return bytes.fromhex(re.match(r"(?:[0-9a-f]{2})*", digits)[0]).decode("latin-1")  # type: ignore[index]  # matches ""
