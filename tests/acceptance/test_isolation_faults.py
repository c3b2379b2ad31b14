"""Faults on PostgreSQL: marked work errors, production is unchanged, ordinary work is served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attached_service import wait_for
from isolation import faults, inside
from isolation.faults import expect_isolated, expect_ordinary_served, expect_refused
from isolation.postgresql_stage import PostgresStage, postgres_stage
from two_sides import TestRun

from perflab.demo.scratch import scratch_directory


@pytest.fixture(scope="module")
def stage() -> Iterator[PostgresStage]:
    """Set a stage whose shadow is on a server of its own."""
    with scratch_directory() as scratch, postgres_stage(scratch.path, apart=True) as prepared:
        yield prepared


@pytest.fixture
def run(stage: PostgresStage) -> Iterator[TestRun]:
    """Make a run live; whatever a test did to the shadow, it is there again before and afterwards."""
    made = stage.begin_run()
    expect_isolated(stage, made)
    yield made
    made.remove()
    assert stage.oracle.check() == []


def test_the_shadow_database_is_down_and_comes_back(stage: PostgresStage, run: TestRun):
    """Down while pools hold connections to it, and down when a connection is opened."""
    faults.stop_shadow(stage, run)


def test_the_shadow_database_was_never_up():
    """Down from the service's start on: ordinary work does not notice."""
    with scratch_directory() as scratch, postgres_stage(scratch.path, apart=True) as prepared:
        prepared.shadow.stop()
        run = prepared.begin_run()
        expect_refused(prepared, run.mark())


def test_the_shadow_database_dies_within_a_transaction(stage: PostgresStage, run: TestRun):
    """The rest of the transaction is not done anywhere."""
    mark = run.mark()
    pid = stage.service.call(inside.begin_and_keep, stage.url, mark)
    stage.in_shadow(f"SELECT pg_terminate_backend({pid})")
    assert stage.service.call(inside.go_on, mark) in ("OperationalError", "AdminShutdown", "InterfaceError")
    assert stage.in_shadow("SELECT 1 FROM item WHERE note LIKE 'marked, %'") == []
    expect_ordinary_served(stage)


def test_the_run_is_killed_within_a_transaction(stage: PostgresStage, run: TestRun):
    """What was open is not committed: the commit is refused."""
    mark = run.mark()
    stage.service.call(inside.begin_and_keep, stage.url, mark)
    run.kill()
    assert stage.service.call(inside.go_on, mark) == "ShadowError"
    assert stage.in_shadow("SELECT 1 FROM item WHERE note LIKE 'marked, %'") == []


@pytest.mark.parametrize(
    ("fault", "mending"),
    [
        ("ALTER ROLE soak_role NOLOGIN", "ALTER ROLE soak_role LOGIN"),
        ("REVOKE ALL ON item FROM soak_role; ALTER TABLE item OWNER TO postgres",
         "ALTER TABLE item OWNER TO soak_role; GRANT ALL ON item TO soak_role"),
        ("ALTER ROLE soak_role CONNECTION LIMIT 0", "ALTER ROLE soak_role CONNECTION LIMIT -1"),
        ("ALTER ROLE soak_role PASSWORD 'changed'", "ALTER ROLE soak_role PASSWORD 'secret'"),
    ],
    ids=["no login", "no rights", "no connections", "another password"],
)  # fmt: skip
def test_the_shadow_role_is_revoked(stage: PostgresStage, run: TestRun, fault: str, mending: str):
    """Its sessions are ended, too, so that every pool connects anew."""
    faults.take_rights(stage, run, fault, mending)


@pytest.fixture
def small_disk(needs: Callable[[object, str], None]) -> Iterator[Path]:
    """Mount a file system of 4 MB."""
    with faults.small_disk(needs) as disk:
        yield disk


def test_the_disk_of_the_shadow_is_full(stage: PostgresStage, run: TestRun, small_disk: Path):
    """Shadow work that must write more than there is room for fails; ordinary work does not notice."""
    # Given a table of the shadow on a small disk
    home = small_disk / "tablespace"
    home.mkdir(mode=0o700)
    if stage.shadow._account is not None:
        os.chown(home, stage.shadow._account.uid, stage.shadow._account.gid)
    stage.in_shadow(f"CREATE TABLESPACE small LOCATION '{home}'")
    stage.in_shadow("CREATE TABLE filler (line text) TABLESPACE small")
    stage.in_shadow("ALTER TABLE filler OWNER TO soak_role")
    try:
        # When marked work writes more than the disk takes, then it fails, and the rest goes on
        faults.fill_disk(stage, run, "DiskFull")
    finally:
        stage.in_shadow("DROP TABLE filler")
        stage.in_shadow("DROP TABLESPACE small")


def test_the_list_of_live_runs_is_gone(stage: PostgresStage, run: TestRun):
    """Without a fresh list no mark is believed, five seconds later at the most."""
    faults.hide_control(stage, run)


@pytest.mark.parametrize("name", ["twin_for", "confirm", "keep_shadow", "admit"])
def test_a_decision_of_the_agent_raises(stage: PostgresStage, run: TestRun, name: str):
    """Connecting as marked work fails; nothing is sent anywhere."""
    faults.break_hook(stage, run, name)


def test_the_service_is_killed_with_shadow_work_open(stage: PostgresStage, run: TestRun):
    """A service that dies commits nothing of what it had begun."""
    with scratch_directory() as scratch, postgres_stage(scratch.path, apart=True) as prepared:
        own = prepared.begin_run()
        prepared.service.call(inside.begin_and_keep, prepared.url, own.mark())
        process = prepared.service._process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(
            lambda: (
                prepared.in_shadow("SELECT 1 FROM item WHERE note LIKE 'marked, %'") == []
                and prepared.in_shadow("SELECT 1 FROM pg_stat_activity WHERE usename = 'soak_role'") == []
            ),
            "the server has ended its session",
        )
        assert prepared.oracle.check() == []
