"""The isolation promise under random work on real databases: production changes by ordinary work alone.

``PERFLAB_MARKED_STATEMENTS`` says how many marked statements must go well; ``make soak-isolation`` asks for a
million.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from isolation import mariadb_scripts, scripts
from isolation.machine import Stage, play_until
from isolation.mariadb_kinds import KINDS, REFUSED, ROWS, SELDOM
from isolation.mariadb_stage import MariaStage, maria_stage
from isolation.postgresql_stage import postgres_stage
from mariadb_server import find_mariadbd

from perflab.demo.scratch import scratch_directory

STATEMENTS = int(os.environ.get("PERFLAB_MARKED_STATEMENTS", "20000"))
SHARE_OF_MARIADB = 5
"""One in so many statements is MariaDB's."""


@pytest.mark.timeout(24 * 3600)
def test_postgresql_changes_by_ordinary_work_alone(capsys: pytest.CaptureFixture[str]):
    """Of so many marked statements of every kind, not a row, sequence or large object shows in production."""
    with scratch_directory() as scratch, postgres_stage(scratch.path) as prepared:
        stage = Stage(
            prepared.service,
            prepared.oracle,
            prepared.begin_run,
            prepared.clear_shadow,
            scripts.play,
            [prepared.url, "shadow"],
            {"thread": list(scripts.SYNC), "here": list(scripts.SYNC), "task": list(scripts.ASYNC)},
            {"marked": list(scripts.KINDS), "ordinary": list(scripts.ORDINARY)},
            scripts.SELDOM,
            scripts.REFUSED,
        )
        # When random work is played, production checked after every step
        play_until(stage, STATEMENTS - STATEMENTS // SHARE_OF_MARIADB)
        # Then every kind went well in shadow work at least once, but for those a shadow role may not do
        assert set(scripts.KINDS) - stage.marked_kinds == scripts.REFUSED == {"other database", "role"}
        with capsys.disabled():
            print(_summary("PostgreSQL", stage, prepared.oracle.decoded, _POSTGRESQL_S))


@pytest.fixture(scope="module")
def maria(needs: Callable[[object, str], None]) -> Iterator[MariaStage]:
    """Set a MariaDB with its shadow up."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    with maria_stage() as prepared:
        yield prepared


@pytest.mark.timeout(24 * 3600)
def test_mariadb_changes_by_ordinary_work_alone(maria: MariaStage, capsys: pytest.CaptureFixture[str]):
    """Of so many marked statements of every kind, not a row, sequence or definition shows in production."""
    # Given
    maria.oracle.look()
    ways = list(mariadb_scripts.WAYS)
    stage = Stage(
        maria.service,
        maria.oracle,
        maria.begin_run,
        maria.clear_shadow,
        mariadb_scripts.play_mariadb,
        [maria.login, "shadow"],
        {"thread": ways, "here": ways, "task": ways},
        {"marked": list(KINDS), "ordinary": list(ROWS)},
        SELDOM,
        REFUSED,
    )
    # When random work is played, production checked after every step
    play_until(stage, STATEMENTS // SHARE_OF_MARIADB)
    # Then every kind went well in shadow work at least once, but for those that lead out of it
    assert set(KINDS) - stage.marked_kinds == REFUSED
    # And the service's own pool was refused to marked work when it held a connection of production
    assert any("was opened for production" in said for said in stage.errors)
    with capsys.disabled():
        print(_summary("MariaDB", stage, maria.oracle.decoded, _MARIADB_S))


LEAKS = {
    "INSERT INTO item (note) VALUES ('marked 1')": {"transaction", "rows of marked work are in production"},
    "UPDATE stock SET amount = 7": {"transaction"},
    "BEGIN; INSERT INTO apart (note) VALUES ('marked'); ROLLBACK": {"a table changed"},
    "INSERT INTO apart (note) VALUES ('marked')": {"a table changed", "rows of a table", "transaction"},
    "SELECT NEXTVAL(numbers)": {"a sequence changed", "transaction"},
    "SELECT SETVAL(numbers, 5000)": {"a sequence changed", "transaction"},
    "TRUNCATE scratch": {"transaction"},
    "CREATE INDEX i ON scratch (note)": {"a table changed", "an index changed", "transaction"},
    "CREATE PROCEDURE p() SELECT 1": {"a routine changed", "transaction"},
    "CREATE TRIGGER t BEFORE INSERT ON stock FOR EACH ROW SET @n = 1": {"a trigger changed", "transaction"},
    "CREATE DATABASE soak_more": {"a database changed", "transaction"},
    "GRANT SELECT ON soak_more.* TO soak_app@'%'": {"a right on a database", "transaction"},
    "SET GLOBAL max_connections = 177": {"a global setting changed"},
    "SET sql_log_bin = 0; DELETE FROM apart": {"rows of a table"},
    "DO GET_LOCK('marked 3', 0)": {"a user lock is held"},
    "LOCK TABLES stock READ": {"table stock of production is in use"},
}
"""What marked work must not do in production, and what the oracle says of it (the beginnings)."""


@pytest.mark.parametrize("leak", LEAKS)
def test_the_oracle_of_mariadb_can_fail(maria: MariaStage, leak: str):
    """What the random test asks after every step notices each kind of leak by itself."""
    # Given
    maria.oracle.look()
    assert maria.oracle.check() == []
    # When something is done in production that no ordinary work reported
    with maria.server.connect("soak_shop") as session, session.cursor() as cursor:
        for text in leak.split("; "):
            cursor.execute(text)
        told = maria.oracle.check()
    # Then
    maria.oracle.clear()
    assert {start for start in LEAKS[leak] if any(said.startswith(start) for said in told)} == LEAKS[leak], (
        told
    )
    assert all(said.startswith(tuple(LEAKS[leak])) for said in told), told


_POSTGRESQL_S = "transactions, catalogue, sequences, large objects, notifications, locks, sessions"
_MARIADB_S = "transactions, catalogue, rights, sequences, counters, settings, locks, sessions"


def _summary(what: str, stage: Stage, decoded: int, checked: str) -> str:
    ordinary = sum(count for name, count in stage.done.items() if name.startswith("ordinary "))
    worst = [f"    {count:>7,} {' '.join(said.split())}" for said, count in stage.errors.most_common(8)]
    lines: list[Any] = [
        (
            f"\n{what}: {stage.marked_statements:,} marked statements of {len(stage.marked_kinds)} kinds"
            f" went well, in {stage.plays:,} plays of {stage.number:,} scripts"
        ),
        (
            f"ordinary statements that went well: {ordinary:,}; transactions decoded from production:"
            f" {decoded:,}"
        ),
        "changes of production that were not ordinary work's",
        f"({checked}): 0",
        "statements that did not go well, most frequent first:",
        *worst,
    ]
    return "\n".join(lines)
