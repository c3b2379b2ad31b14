"""What one connection's open transaction of ordinary work has written: the claim the audit will look for.

Rows are counted per table and operation, as production's change stream will show them; what a rollback
to a savepoint takes back is taken back here. Pure: no driver, no clock.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field

from perflab.shadow.sql.statement import Statement

OPAQUE = "opaque"


@dataclass(slots=True)
class Tally:
    """Rows written since the transaction began; ``opaque`` when something cannot be counted."""

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    opaque: bool = False
    _savepoints: list[tuple[str, dict[tuple[str, str], int], bool]] = field(default_factory=list)

    def note(self, statement: Statement, rows: int) -> None:
        """Count what a statement did that went well; ``rows`` below 0 is a count the driver cannot tell."""
        if statement.writes == "no" and not statement.ends:
            return
        if statement.ends == "savepoint":
            self.save(statement.savepoint)
        elif statement.ends == "rollback to":
            self.take_back(statement.savepoint)
        elif statement.ends == "release":
            self.release(statement.savepoint)
        elif statement.writes == "opaque" or (statement.writes == "rows" and rows < 0):
            self.opaque = True
        elif statement.writes == "rows" and rows:
            key = (statement.table, statement.row_operation)
            self.rows[key] = self.rows.get(key, 0) + rows

    def save(self, savepoint: str) -> None:
        """Set a savepoint; a name set twice hides the earlier one, as in SQL."""
        self._savepoints.append((savepoint, dict(self.rows), self.opaque))

    def take_back(self, savepoint: str) -> None:
        """Forget what was written since a savepoint; one that is not known leaves the count unsure."""
        for at in range(len(self._savepoints) - 1, -1, -1):
            name, rows, opaque = self._savepoints[at]
            if name == savepoint:
                self.rows, self.opaque = dict(rows), opaque
                del self._savepoints[at + 1 :]
                return
        self.opaque = self.opaque or bool(self.rows)

    def release(self, savepoint: str) -> None:
        """Forget a savepoint and those set after it; what was written stays."""
        for at in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[at][0] == savepoint:
                del self._savepoints[at:]
                return

    def drop(self) -> None:
        """Forget everything: the transaction was rolled back."""
        self.rows, self.opaque, self._savepoints = {}, False, []

    def take(self) -> str:
        """Return the fingerprint of a transaction that was committed, ``""`` if it wrote nothing."""
        if not self.rows and not self.opaque and not self._savepoints:
            return ""
        fingerprint = OPAQUE if self.opaque else _written(tuple(sorted(self.rows.items())))
        self.drop()
        return fingerprint


@functools.lru_cache(1024)
def _written(rows: tuple[tuple[tuple[str, str], int], ...]) -> str:
    if not rows:
        return ""
    return json.dumps([[table, operation, count] for (table, operation), count in rows])
