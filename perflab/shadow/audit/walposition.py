"""Where PostgreSQL's write-ahead log stands, and how far the server's clock is from ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from perflab.errors import ShadowError

if TYPE_CHECKING:
    import psycopg


def read_lsn(session: psycopg.Connection[Any], query: Any) -> int:
    """Run a query for one position in the log and return it as a number.

    Raises
    ------
    ShadowError
        If there is none: the slot it was asked of is gone.
    """
    row = session.execute(query).fetchone()
    if row is None or row[0] is None:
        raise ShadowError("the audit's replication slot is gone")
    high, low = str(row[0]).split("/")
    return int(high, 16) << 32 | int(low, 16)


def present_position(session: psycopg.Connection[Any]) -> int:
    """Return the end of the last record written so far.

    Where it fills a page exactly, the server's insert position is already past the next page's header (40
    bytes in the first page of a segment, 24 in others), which nothing flushes before the next record.
    """
    target = read_lsn(session, "SELECT pg_current_wal_insert_lsn()")
    sizes = dict(
        session.execute(
            "SELECT name, setting::bigint FROM pg_settings"
            " WHERE name IN ('wal_block_size', 'wal_segment_size')"
        ).fetchall()
    )
    if target % sizes["wal_segment_size"] == 40:
        return target - 40
    return target - 24 if target % sizes["wal_block_size"] == 24 else target


def clock_difference_ns(session: psycopg.Connection[Any]) -> int:
    """Return what must be added to the server's clock to get ours; the tightest of five round trips."""
    best: tuple[int, int] | None = None
    for _ in range(5):
        before = time.time_ns()
        row = session.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        after = time.time_ns()
        assert row is not None
        trip = (after - before, (before + after) // 2 - int(row[0]) * 1000)
        best = trip if best is None else min(best, trip)
    assert best is not None
    # within half a round trip the clocks are the same for all we know
    return 0 if abs(best[1]) <= best[0] else best[1]
