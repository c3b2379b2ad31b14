"""Faults on MariaDB: marked work errors, production is unchanged, ordinary work is served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attached_service import wait_for
from isolation import faults, inside
from isolation.faults import expect_isolated, expect_ordinary_served, expect_refused
from isolation.mariadb_oracle import ROLE, SHADOW
from isolation.mariadb_stage import MariaStage, maria_stage
from mariadb_server import find_mariadbd
from two_sides import TestRun

OPEN = "SELECT 1 FROM item WHERE note LIKE 'marked, %'"


@pytest.fixture(scope="module")
def stage(needs: Callable[[object, str], None]) -> Iterator[MariaStage]:
    """Set a stage whose shadow is on a server of its own."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    with maria_stage(apart=True) as prepared:
        yield prepared


@pytest.fixture
def run(stage: MariaStage) -> Iterator[TestRun]:
    """Make a run live; whatever a test did to the shadow, it is there again before and afterwards."""
    made = stage.begin_run()
    expect_isolated(stage, made)
    yield made
    made.remove()
    assert stage.oracle.check() == []


def test_the_shadow_server_is_down_and_comes_back(stage: MariaStage, run: TestRun):
    """Down while pools hold connections to it, and down when a connection is opened."""
    faults.stop_shadow(stage, run)


def test_the_shadow_server_was_never_up(needs: Callable[[object, str], None]):
    """Down from the service's start on: ordinary work does not notice."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    with maria_stage(apart=True) as prepared:
        prepared.shadow.stop()
        run = prepared.begin_run()
        expect_refused(prepared, run.mark())


def test_a_table_of_the_shadow_is_gone(stage: MariaStage, run: TestRun):
    """The database is there and the table is not: nobody falls back to production's."""
    stage.in_shadow(f"RENAME TABLE {SHADOW}.item TO mysql.item_aside")
    try:
        expect_refused(stage, run.mark())
    finally:
        stage.in_shadow(f"RENAME TABLE mysql.item_aside TO {SHADOW}.item")
    faults.expect_to_go_on(stage, run)


@pytest.mark.parametrize("how", ["the session", "the server"])
def test_the_shadow_dies_within_a_transaction(stage: MariaStage, run: TestRun, how: str):
    """The rest of the transaction is not done anywhere."""
    mark = run.mark()
    number = stage.service.call(inside.begin_and_keep_mariadb, stage.login, mark)
    if how == "the session":
        stage.in_shadow(f"KILL CONNECTION {number}")
    else:
        stage.shadow.stop()
    assert stage.service.call(inside.go_on_mariadb, mark) in ("OperationalError", "InterfaceError")
    expect_ordinary_served(stage)
    stage.shadow._fixed_port = stage.shadow.port
    stage.shadow.start()
    assert stage.in_shadow(OPEN) == []
    faults.expect_to_go_on(stage, run)


def test_the_run_is_killed_within_a_transaction(stage: MariaStage, run: TestRun):
    """What was open is not committed: the commit is refused."""
    mark = run.mark()
    stage.service.call(inside.begin_and_keep_mariadb, stage.login, mark)
    run.kill()
    assert stage.service.call(inside.go_on_mariadb, mark) == "ShadowError"
    assert stage.in_shadow(OPEN) == []


@pytest.mark.parametrize(
    ("fault", "mending"),
    [
        (f"ALTER USER {ROLE} ACCOUNT LOCK", f"ALTER USER {ROLE} ACCOUNT UNLOCK"),
        (f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {ROLE}", "{rights}"),
        (f"REVOKE INSERT ON `{SHADOW}`.* FROM {ROLE}".replace("_shadow", "\\_shadow"), "{rights}"),
        (f"ALTER USER {ROLE} IDENTIFIED BY 'changed'", f"ALTER USER {ROLE} IDENTIFIED BY 'secret'"),
        (f"DROP USER {ROLE}", "{login};{rights}"),
    ],
    ids=["no login", "no rights", "no right to insert", "another password", "no user"],
)
def test_the_shadow_login_is_revoked(stage: MariaStage, run: TestRun, fault: str, mending: str):
    """Its sessions are ended, too, so that every pool connects anew."""
    made = stage.in_shadow(f"SHOW CREATE USER {ROLE}")[0][0]
    rights = ";".join(text for (text,) in stage.in_shadow(f"SHOW GRANTS FOR {ROLE}"))
    faults.take_rights(stage, run, fault, mending.format(login=made, rights=rights))


@pytest.fixture
def small_disk(needs: Callable[[object, str], None]) -> Iterator[Path]:
    """Mount a file system of 4 MB."""
    with faults.small_disk(needs) as disk:
        yield disk


def test_the_disk_of_the_shadow_is_full(stage: MariaStage, run: TestRun, small_disk: Path):
    """Shadow work that must write more than there is room for fails; ordinary work does not notice."""
    # Given a table of the shadow on a small disk
    stage.in_shadow(f"CREATE TABLE filler (line text) DATA DIRECTORY = '{small_disk}'")
    try:
        # When marked work writes more than the disk takes, then it fails, and the rest goes on
        faults.fill_disk(stage, run, "is full")
    finally:
        stage.in_shadow("DROP TABLE filler")


def test_the_list_of_live_runs_is_gone(stage: MariaStage, run: TestRun):
    """Without a fresh list no mark is believed, five seconds later at the most."""
    faults.hide_control(stage, run)


@pytest.mark.parametrize("name", ["twin_for", "confirm", "keep_shadow", "admit"])
def test_a_decision_of_the_agent_raises(stage: MariaStage, run: TestRun, name: str):
    """Connecting as marked work fails; nothing is sent anywhere."""
    faults.break_hook(stage, run, name)


def test_the_service_is_killed_with_shadow_work_open(needs: Callable[[object, str], None]):
    """A service that dies commits nothing of what it had begun."""
    needs(find_mariadbd(), "mariadbd (the system's package mariadb-server)")
    with maria_stage(apart=True) as prepared:
        own = prepared.begin_run()
        prepared.service.call(inside.begin_and_keep_mariadb, prepared.login, own.mark())
        process = prepared.service._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        sessions = f"SELECT 1 FROM information_schema.processlist WHERE user = '{ROLE}'"
        wait_for(
            lambda: prepared.in_shadow(OPEN) == [] and prepared.in_shadow(sessions) == [],
            "the server has ended its session",
        )
        assert prepared.oracle.check() == []
