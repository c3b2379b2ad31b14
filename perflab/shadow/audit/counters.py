"""What remains where production's log cannot be read: counters, sessions, and a look at new rows.

The rows each table gained, changed and lost, as the server counts them, minus those the agents claimed; the
shadow login's sessions on production while the run went on; and rows with a higher primary key than at the
start, searched for canaries by small, bounded SELECTs. It finds what is plain to see and proves
nothing: a store that was watched like this is never *proven*.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perflab.errors import ShadowError

from .attribution import Change, Claim
from .pgoutput import RowChange
from .tables import read_entries

_ROWS_AT_ONCE = 500
_ROWS_AT_THE_END = 20_000
_POLL_S = 1.0
_SETTLED_S = 1.5
_SETTLE_WITHIN_S = 5.0
_NOT_CHECKED = (
    (
        "which transaction changed what: only each table's counts of rows were compared with the agents'"
        " claims, and they"
        " count what was rolled back too and come up to ten seconds late"
    ),
    "canaries in rows that were changed, and in new rows of tables without a single integer as primary key",
)
LIMITS = (
    (
        "only new rows were searched for canaries, by their primary key; what was watched like this is"
        " never proven"
    ),
)


@dataclass(slots=True)
class KeyedTable:
    """A table whose new rows can be found by their key; ``last`` is the highest one at the start."""

    name: str
    columns: tuple[str, ...]
    key: str
    last: int
    seen: int = 0


class Counters(Protocol):
    """What a server can be asked without a log. Each question is bounded by a statement timeout."""

    def connect(self) -> None:
        """Log in."""

    def notes(self) -> list[str]:
        """Say what this server does not count."""

    def counts(self) -> dict[tuple[str, str], int]:
        """Return rows counted so far by ``schema.table`` and operation."""

    def keyed_tables(self) -> list[KeyedTable]:
        """Return the tables whose new rows can be found."""

    def newer(self, table: KeyedTable, above: int, most: int) -> list[tuple[int, tuple[str | None, ...]]]:
        """Return rows with a higher key: the key, and the values as text."""

    def shadow_sessions(self) -> int:
        """Return how many sessions of the shadow's login are on production now."""

    def operation(self, named: str) -> str:
        """Return what this server counts an operation as."""

    def close(self) -> None:
        """Log out."""


class CounterCapture:
    """A change stream in name only: differences of counters.

    Parameters
    ----------
    counters : Counters
        Asks the server.
    on_row : callable
        Called with each new row, when it was seen, and its key; returns whether it held a canary.
    is_shadow : callable
        Tells whether a table, ``schema.table``, is the shadow's.
    """

    unit = "rows"
    removed_by_server = 0

    def __init__(
        self,
        counters: Counters,
        on_row: Callable[[RowChange, int, str, str], bool],
        is_shadow: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.not_checked: list[str] = []
        self.limits = list(LIMITS)
        self.shadow_changes = 0
        self._counters, self._on_row, self._is_shadow = counters, on_row, is_shadow
        self._before: dict[tuple[str, str], int] = {}
        self._after: dict[tuple[str, str], int] | None = None
        self._tables: list[KeyedTable] = []
        self._claimed: Counter[tuple[str, str]] = Counter()
        self._counted: Counter[tuple[str, str]] = Counter()
        self._sessions = 0
        self._found: set[tuple[str, int]] = set()
        self._ended_ns = 0

    def open(self) -> None:
        """Read the counters as they are.

        Raises
        ------
        ShadowError
            If the server does not let the audit in.
        """
        self._counters.connect()
        self.not_checked += [*_NOT_CHECKED, *self._counters.notes()]
        self._tables = [table for table in self._counters.keyed_tables() if not self._is_shadow(table.name)]
        self._before = self._counters.counts()

    def poll(self) -> bool:
        """Look for sessions of the shadow login, and for new rows with canaries; within a second."""
        self._sessions = max(self._sessions, self._counters.shadow_sessions())
        until = time.monotonic() + _POLL_S
        for table in list(self._tables):
            if time.monotonic() > until:
                return False
            keys = self._search(table, max(table.last, table.seen), _ROWS_AT_ONCE)
            table.seen = max([table.seen, *keys])
        return True

    def end(self) -> None:
        """Note when the window ended; the counters are read when they have settled."""
        self._ended_ns = self._ended_ns or time.time_ns()

    def drain(self, deadline_s: float) -> None:
        """Wait until the counters stand still, or time is up; look at all new rows once more."""
        self.end()
        until = time.monotonic() + min(deadline_s, _SETTLE_WITHIN_S)
        counts, since = self._counters.counts(), time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < _SETTLED_S:
            time.sleep(0.25)
            latest = self._counters.counts()
            if latest != counts:
                counts, since = latest, time.monotonic()
        self._after = counts
        for table in list(self._tables):  # keys are given out in order, and committed in another
            if len(self._search(table, table.last, _ROWS_AT_THE_END)) == _ROWS_AT_THE_END:
                self.not_checked.append(
                    f"canaries in new rows of {table.name} that were committed late, beyond the first"
                    f" {_ROWS_AT_THE_END:,}"
                )
        self._sessions = max(self._sessions, self._counters.shadow_sessions())
        if self._sessions:
            self.not_checked.append(
                f"what {self._sessions} sessions of the shadow login did, which were on production"
                f" during the run"
            )

    def claims(self, rows: Sequence[dict[str, Any]]) -> list[Claim]:
        """Add up what the agents claimed; return a claim for each count, as far as both agree in it.

        A claim that cannot tell what was changed is not counted.

        Raises
        ------
        ShadowError
            If the counters were not read to the end.
        """
        if self._after is None:
            raise ShadowError("the counters were not read to the end")
        opaque = 0
        for row in rows:
            entries = read_entries(row["fingerprint"])
            opaque += entries is None
            for table, operation, count in entries or ():
                name = str(table).rpartition(".")[2].lower()
                self._claimed[name, self._counters.operation(str(operation))] += int(count)
        if opaque:
            self.not_checked.append(
                f"what {opaque} transactions changed of which the agents know only the time: counters"
                f" have none"
            )
        for (table, operation), count in self._after.items():
            if not self._is_shadow(table):
                gained = max(count - self._before.get((table, operation), 0), 0)
                self._counted[table.rpartition(".")[2].lower(), operation] += gained
        return [Claim(_agreed(key), self._ended_ns, self._ended_ns) for key in sorted(self._counted)]

    def changes(self) -> list[Change]:
        """Return what both agree in, table by table, and what they differ by."""
        made = []
        for key in sorted({*self._counted, *self._claimed}):
            table, operation = key
            seen, claimed = self._counted[key], self._claimed[key]
            what = f"{operation} {table}: production counted {seen}, the agents {claimed}"
            if min(seen, claimed):
                made.append(Change(self._ended_ns, (_agreed(key),), min(seen, claimed), where=table))
            if seen != claimed:
                made.append(Change(self._ended_ns, ("differs",), abs(seen - claimed), where=table, what=what))
        return made

    def close(self) -> None:
        """Log out; again does nothing."""
        self._counters.close()

    def _search(self, table: KeyedTable, above: int, most: int) -> list[int]:
        """Search new rows of a table and return their keys; one that takes too long is left alone then."""
        try:
            rows = self._counters.newer(table, above, most)
        except ShadowError as error:
            self.not_checked.append(f"canaries in new rows of {table.name}: {error}")
            self._tables.remove(table)
            return []
        now_ns = time.time_ns()
        for key, values in rows:
            if (table.name, key) in self._found:
                continue
            if self._on_row(RowChange(table.name, "insert", values), now_ns, "", f"{table.key} = {key}"):
                self._found.add((table.name, key))
        return [key for key, _ in rows]


def _agreed(key: tuple[str, str]) -> str:
    return f"{key[1]} {key[0]}"
