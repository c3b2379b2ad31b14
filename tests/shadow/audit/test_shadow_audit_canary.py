"""Canaries, in values of every kind."""

from __future__ import annotations

import psycopg
import pytest
import redis
from audited_system import CANARY, RUN, TRACE_ID, System, poll_for

from perflab.shadow.audit import Audit
from perflab.shadow.audit.canary import CanaryWatch
from perflab.shadow.audit.pgoutput import RowChange


def test_canaries_are_found_in_any_disguise(system: System) -> None:
    """In bytea, in upper case, cut off, in a deleted key, in a message: a leak; another run's: none."""
    # Given
    with psycopg.connect(system.application.url, autocommit=True) as session:
        session.execute("CREATE TABLE files (name text PRIMARY KEY, body bytea)")
        session.execute("INSERT INTO files VALUES (%s, '')", (CANARY,))
        with Audit(system.stores, RUN) as audit:
            audit.start()

            # When
            session.execute("INSERT INTO files VALUES ('a', %s)", (f"..{CANARY}..".encode(),))
            session.execute("INSERT INTO files VALUES (%s, '')", (CANARY.upper(),))
            session.execute("INSERT INTO files VALUES (%s, '')", (CANARY[:20],))
            session.execute("DELETE FROM files WHERE name = %s", (CANARY,))
            session.execute("INSERT INTO files VALUES (%s, '')", (CANARY.replace("run-7", "run-77"),))
            with redis.Redis.from_url(system.application.redis_url) as client:
                client.publish("news", CANARY)
            found = poll_for(audit, 5)

    # Then
    assert sorted((leak.what, leak.trace_id) for leak in found) == [
        ("PUBLISH", TRACE_ID), ("delete", TRACE_ID), ("insert", ""),
        ("insert", TRACE_ID), ("insert", TRACE_ID),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "trace_id"),
    [
        (CANARY, TRACE_ID),
        (f'{{"note": "{CANARY}", "n": 1}}', TRACE_ID),
        (CANARY[:-5], ""),
        (f"plc-{RUN}", ""),
        ("\\x" + CANARY.encode().hex(), TRACE_ID),
        ("\\x00ff" + CANARY[:-5].encode().hex() + "00", ""),
        ("\\x" + f"plc-{RUN}".encode().hex() + "f", ""),
        (f"plc-{RUN}0-{TRACE_ID}", None),
        ("\\x" + f"plc-{RUN}0-{TRACE_ID}".encode().hex(), None),
        (CANARY.encode().hex(), None),
        ("plc-", None),
        ("", None),
        (None, None),
    ],
)
def test_a_value_has_a_canary_of_this_run_or_not(value: str | None, trace_id: str | None) -> None:
    """The run's own canaries are found, whole, cut off, or in bytea; those of run-70 are none of run-7."""
    # Given
    watch = CanaryWatch("shop", RUN)

    # When
    watch.row(RowChange("public.orders", "insert", ("1", value)), 5)

    # Then
    assert [leak.trace_id for leak in watch.take()] == ([] if trace_id is None else [trace_id])
    assert watch.take() == []


def test_leaks_are_bounded_and_hits_are_not() -> None:
    """Beyond the thousandth leak only the count goes on; evidence is cut."""
    # Given
    watch = CanaryWatch("shop", RUN)

    # When
    for number in range(1500):
        watch.row(RowChange("audit.log", "update", (str(number), CANARY + "x" * 2000)), number)

    # Then
    assert (watch.hits, len(watch.leaks), len(watch.take())) == (1500, 1000, 1000)
    assert watch.leaks[0].where == "audit.log"
    assert len(watch.leaks[0].evidence) < 500
