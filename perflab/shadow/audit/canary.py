"""Find marked payloads where they must not be: in what production gained.

Marked requests carry canaries, texts ``plc-<run id>-<trace id>``. One of them in a row or a key of
production is a leak, and names the request that made it.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from .pgoutput import RowChange
from .redisreplica import family
from .redisstream import Write

LEAKS_KEPT = 1000
_EVIDENCE_CHARACTERS = 500
_VALUE_CHARACTERS, _BEFORE_CHARACTERS = 200, 60
_SMALL_NUMBER = re.compile(r"-?[0-9]{1,9}")


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
        The row or command, cut to 500 characters. Of a row only the value with the canary is shown, and
        numbers
        of up to nine digits; the others are real users' for all we know, and only their lengths are told.
    transaction : str
        The transaction's id (PostgreSQL) or GTID (MariaDB), ``""`` where there is none.
    position : str
        Where it stands in the change stream: an LSN, a binlog's file and offset.
    found_ns : int
        When the audit found it (Unix ns).
    """

    store: str
    where: str
    trace_id: str
    what: str
    time_ns: int
    evidence: str
    transaction: str = ""
    position: str = ""
    found_ns: int = 0

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

    def row(self, change: RowChange, time_ns: int, transaction: str = "", position: str = "") -> bool:
        """Search a row of a table, or the text of a statement; return whether there was a canary.

        Parameters
        ----------
        change : RowChange
            What was changed.
        time_ns : int
            When (Unix ns).
        transaction, position : str
            What is kept as evidence of where it stands in the change stream.
        """
        for value in change.values:
            if value is not None:
                trace_id = self._search(value)
                if trace_id is not None:
                    shown = ", ".join(self._masked(item) for item in change.values)
                    where = change.table.removeprefix("public.")
                    self._add(
                        Leak(
                            self._store, where, trace_id, change.operation, time_ns, f"({shown})",
                            transaction, position,
                        )
                    )  # fmt: skip
                    return True
        return False

    def command(self, write: Write, words: tuple[bytes, ...], time_ns: int) -> None:
        """Search a Redis command with all its words."""
        for word in words:
            trace_id = self._search(word.decode("utf-8", "replace"))
            if trace_id is not None:
                shown = " ".join(word[:200].decode("utf-8", "backslashreplace") for word in words)
                self._add(Leak(self._store, family(write.keys[0]), trace_id, write.name, time_ns, shown))
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

    def _masked(self, value: str | None) -> str:
        """Show a value with a canary, NULL and small numbers; tell only the length of another."""
        if value is None:
            return "NULL"
        if self._search(value) is not None:
            at = max(value.lower().find(self._text), value.lower().find(self._hex))
            begin = max(at - _BEFORE_CHARACTERS, 0)
            return value[begin : begin + _VALUE_CHARACTERS]
        return value if _SMALL_NUMBER.fullmatch(value) else f"<{len(value)} characters>"

    def _add(self, leak: Leak) -> None:
        leak = replace(leak, evidence=leak.evidence[:_EVIDENCE_CHARACTERS], found_ns=time.time_ns())
        with self._lock:
            self.hits += 1
            if len(self.leaks) < LEAKS_KEPT:
                self.leaks.append(leak)
                self._new.append(leak)


def _from_hex(digits: str) -> str:
    return bytes.fromhex(re.match(r"(?:[0-9a-f]{2})*", digits)[0]).decode("latin-1")  # type: ignore[index]  # matches ""
