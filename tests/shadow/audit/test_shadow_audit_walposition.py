"""Positions in a real PostgreSQL's log."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from perflab.errors import ShadowError
from perflab.shadow.audit.walposition import clock_difference_ns, present_position, read_lsn


def test_positions_grow_and_the_clock_is_ours(make_database: Callable[[str], str]) -> None:
    """What is written moves the position on; a position that is not there is an error."""
    with psycopg.connect(make_database("CREATE TABLE t (a int)"), autocommit=True) as session:
        before = present_position(session)
        session.execute("INSERT INTO t VALUES (1)")
        assert before < present_position(session) <= read_lsn(session, "SELECT pg_current_wal_insert_lsn()")
        assert abs(clock_difference_ns(session)) < 50_000_000
        with pytest.raises(ShadowError, match="slot is gone"):
            read_lsn(session, "SELECT NULL")
