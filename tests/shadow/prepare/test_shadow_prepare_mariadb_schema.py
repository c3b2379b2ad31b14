"""What of a MariaDB schema is in its shadow, and with whose rights it runs there."""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest
from maria_shop import PASSWORD, PRODUCTION, SHADOW, USER, ask, enter, server_with_a_shop
from mariadb_server import MariaServer

from perflab.shadow.prepare.mariadb import PreparedMariadb, drop_mariadb, prepare_mariadb


@pytest.fixture(scope="module")
def made(mariadb: MariaServer) -> Iterator[tuple[MariaServer, PreparedMariadb]]:
    with server_with_a_shop(mariadb) as server:
        yield server, prepare_mariadb(server.admin_url, PRODUCTION, SHADOW, USER, PASSWORD)
        drop_mariadb(server.admin_url, SHADOW, USER)


def _tables(server: MariaServer, database: str) -> dict[str, str]:
    with server.connect(database) as session:
        return {
            name: ask(session, f"SHOW CREATE TABLE `{name.replace('`', '``')}`")[0][1]
            for name, kind in ask(session, "SHOW FULL TABLES")
            if kind not in ("VIEW", "SEQUENCE")
        }


def test_tables_are_production_s(made: tuple[MariaServer, PreparedMariadb]) -> None:
    """Columns, keys, checks, partitions, versions, odd names; comments are not rewritten."""
    # Given
    server, _ = made
    import re

    theirs, ours = _tables(server, PRODUCTION), _tables(server, SHADOW)
    # Then
    assert set(ours) - set(theirs) == {"_perflab"}
    for name, text in theirs.items():
        expected = text.replace(f"`{PRODUCTION}`.`numbers`", f"`{SHADOW}`.`numbers`")
        lines = [line for line in expected.splitlines() if "of_theirs" not in line]
        found = [re.sub(r" AUTO_INCREMENT=\d+|,$", "", line) for line in ours[name].splitlines()]
        assert found == [re.sub(r" AUTO_INCREMENT=\d+|,$", "", line) for line in lines], name
    assert f"COMMENT 'see {PRODUCTION}.orders'" in ours["orders"]


def test_what_is_left_out_is_listed(made: tuple[MariaServer, PreparedMariadb]) -> None:
    """A reference to another database, a broken view, what takes the server's locks: nothing else."""
    assert sorted(line.partition(":")[0] for line in made[1].stripped) == [
        "procedure alone",
        "reference of_theirs of table line",
        "view broken",
        "view locking",
    ]
    assert made[1].shared == ()


def test_what_runs_runs_as_the_shadow_login(made: tuple[MariaServer, PreparedMariadb]) -> None:
    """Views, procedures and triggers that name production work in the shadow, with its rights alone."""
    server, _ = made
    with enter(server, SHADOW) as session:
        ask(session, "CALL add_order(7)")
        assert ask(session, "SELECT total, note FROM orders") == [(7, f"{USER}@%")]
        assert ask(session, "SELECT who FROM log") == [(f"{USER}@%",)]
        assert ask(session, "SELECT total FROM aa_second") == [(7,)]
        assert ask(session, "SELECT doubled(4)") == [(8,)]
        for reaching in ("CALL reaching()", "SELECT * FROM across"):
            with pytest.raises(pymysql.MySQLError, match=r"denied|invalid"):
                ask(session, reaching)
    with server.connect(PRODUCTION) as session:
        assert ask(session, "SELECT count(*) FROM orders") == [(3,)]
        assert ask(session, "SELECT count(*) FROM log") == [(0,)]
        definers = ask(
            session,
            f"SELECT definer FROM information_schema.routines WHERE routine_schema = '{SHADOW}'"
            f" UNION SELECT definer FROM information_schema.triggers WHERE trigger_schema = '{SHADOW}'"
            f" UNION SELECT definer FROM information_schema.events WHERE event_schema = '{SHADOW}'"
            f" UNION SELECT definer FROM information_schema.views WHERE table_schema = '{SHADOW}'",
        )
        assert definers == [(f"{USER}@%",)]


def test_events_are_switched_off(made: tuple[MariaServer, PreparedMariadb]) -> None:
    """An event is there to be looked at, and does not run by itself."""
    with made[0].connect() as session:
        states = ask(
            session,
            "SELECT event_schema, status FROM information_schema.events WHERE event_name = 'tidy' ORDER BY 1",
        )
    assert states == [(PRODUCTION, "ENABLED"), (SHADOW, "DISABLED")]
