"""What a real MariaDB says of its binlog."""

from __future__ import annotations

from contextlib import closing

from audited_maria import execute
from mariadb_server import MariaServer

from perflab.shadow.audit.mariadbserver import (
    check_server,
    clock_difference_ns,
    file_number,
    free_server_id,
    position,
)


def test_a_server_as_it_should_be(mariadb: MariaServer) -> None:
    """Nothing is hidden, the position moves on, the clock is ours, the replica's id is nobody's."""
    with closing(mariadb.connect()) as session:
        assert check_server(session, "shop") == []
        before = position(session)
        execute(session, "FLUSH BINARY LOGS")
        after = position(session)
        assert (file_number(after[0]), after[1]) > (file_number(before[0]), before[1])
        assert abs(clock_difference_ns(session)) < 50_000_000
        assert free_server_id(session) >= 1 << 31
        assert free_server_id(session) != free_server_id(session)
