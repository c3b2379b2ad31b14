"""Pools of psycopg 2 and SQLAlchemy's over it, checked out by marked and ordinary work in turn."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg2.pool
import pytest
import sqlalchemy
from attached_service import Service, attempt, forget, is_refused, kept, marked, noted, poll
from sqlalchemy.pool import NullPool, QueuePool
from two_sides import Sides, TestRun

WHO = "SELECT current_database(), session_user"
ADD = "INSERT INTO item (note) VALUES ('{note}')"
THREADS, TURNS = 3, 8
Mark = dict[str, Any] | None


def _pool_turn(pool: Any, note: str) -> list[str]:
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(WHO)
            who = cursor.fetchone()
            cursor.execute(ADD.format(note=note))
        return list(who)
    finally:
        pool.putconn(connection)


def _engine_turn(engine: Any, note: str) -> list[str]:
    with engine.begin() as connection:
        who = connection.execute(sqlalchemy.text(WHO)).one()
        connection.execute(sqlalchemy.text(ADD.format(note=note)))
    return list(who)


def take_turns(kind: str, dsn: str, marks: list[dict[str, Any]]) -> Any:
    """Let threads check out in turn as marked and ordinary work; count what they met."""
    met: Counter[str] = Counter()

    def work(number: int, turn: Callable[[str], list[str]]) -> None:
        for at in range(TURNS):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                met[" ".join(["marked" if mark else "ordinary", *turn(f"{number} {at}")])] += 1

    def all_work(turn: Callable[[str], list[str]]) -> None:
        threads = [threading.Thread(target=work, args=(number, turn)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    if kind == "psycopg2":
        pool = psycopg2.pool.ThreadedConnectionPool(1, THREADS, dsn)
        all_work(lambda note: _pool_turn(pool, note))
        pool.closeall()
    else:
        pools: dict[str, Any] = {
            "queue": {"poolclass": QueuePool, "pool_pre_ping": True},
            "null": {"poolclass": NullPool},
        }
        engine = sqlalchemy.create_engine(
            dsn.replace("postgresql://", "postgresql+psycopg2://"), **pools[kind]
        )
        all_work(lambda note: _engine_turn(engine, note))
        engine.dispose()
    return met


@pytest.mark.parametrize("kind", ["psycopg2", "queue", "null"])
def test_pools_never_mix(kind: str, service: Service, sides: Sides, run: TestRun) -> None:
    """Threads that are marked every other time meet their own side each time, and write only there."""
    # When
    met = service.call(take_turns, kind, sides.app, [run.mark() for _ in range(THREADS)])
    # Then
    half = THREADS * TURNS // 2
    assert met == {"marked both_shadow both_role": half, "ordinary both_shop both_app": half}
    for side, odd in (("production", 0), ("shadow", 1)):
        expected = {
            f"{number} {at}" for number in range(THREADS) for at in range(TURNS) if (at + number) % 2 == odd
        }
        assert set(sides.notes(side)) == expected


def use_keys(dsn: str, mark: dict[str, Any]) -> Any:
    pool = psycopg2.pool.SimpleConnectionPool(1, 2, dsn)
    ordinary = pool.getconn("key")
    with marked(mark):
        shadow = pool.getconn("key")
        same = pool.getconn("key") is shadow
        other = pool.getconn()
        full = attempt(pool.getconn)
        pool.putconn(other, close=True)
        shadow.cursor().execute("INSERT INTO item (note) VALUES ('given back unfinished')")
    pool.putconn(shadow, "key")  # by ordinary work: a cleanup of the framework
    with marked(mark):
        again = pool.getconn()
        kept_open = again is shadow
        status = again.info.transaction_status
    pool.putconn(ordinary)
    reused = pool.getconn() is ordinary
    pool.closeall()
    with marked(mark):
        closed = attempt(pool.getconn)
    return [same, ordinary is shadow, full, kept_open, status, reused, closed, shadow.closed, ordinary.closed]


def test_a_twin_has_keys_and_limits_of_its_own(service: Service, sides: Sides, run: TestRun) -> None:
    """A key means one connection on each side; what is given back goes where it came from, rolled back."""
    said = service.call(use_keys, sides.app, run.mark())
    assert said == [
        True, False, "PoolError: connection pool exhausted", True, 0, True,
        "PoolError: connection pool is closed", 1, 1,
    ]  # fmt: skip
    assert sides.notes("shadow") == []


def make_pool_while_marked(dsn: str, mark: dict[str, Any]) -> Any:
    forget()
    with marked(mark):
        pool = psycopg2.pool.SimpleConnectionPool(2, 2, dsn)
        connection = pool.getconn()
        with connection.cursor() as cursor:
            cursor.execute(WHO)
            who = list(cursor.fetchone())
        pool.putconn(connection)
    ordinary = _pool_turn(pool, "user")
    pool.closeall()
    return [who, ordinary, noted("step_aside")]


def test_a_pool_made_by_marked_work_is_everybody_s(service: Service, sides: Sides, run: TestRun) -> None:
    """What a service makes at its first request serves real users with production afterwards."""
    who, ordinary, aside = service.call(make_pool_while_marked, sides.app, run.mark())
    assert who == [sides.shadow_database, sides.shadow_role]
    assert ordinary == [sides.production_database, "both_app"]
    assert aside == []


class Particular(psycopg2.pool.SimpleConnectionPool):
    """A pool that cannot be made again from its settings."""

    def __init__(self, dsn: str) -> None:
        super().__init__(1, 2, dsn)


def use_particular(dsn: str, mark: dict[str, Any]) -> Any:
    with contextlib.closing(contextlib.ExitStack()):
        pool = Particular(dsn)
        with marked(mark):
            return attempt(pool.getconn)


def test_a_pool_that_cannot_be_twinned_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Marked work gets no connection from it."""
    assert is_refused(service.call(use_particular, sides.app, run.mark()), "no twin of a Particular")


def give_back_when_killed(mark: dict[str, Any]) -> Any:
    poll()
    pool, connection = kept.pop("pool"), kept.pop("connection")
    with marked(mark):
        said = [attempt(pool.getconn), attempt(lambda: pool.putconn(connection))]
    pool.closeall()
    return said


def keep_from_pool(dsn: str, mark: dict[str, Any]) -> None:
    kept["pool"] = psycopg2.pool.SimpleConnectionPool(1, 2, dsn)
    with marked(mark):
        kept["connection"] = kept["pool"].getconn()
        kept["connection"].cursor().execute("SELECT 1")


def test_a_killed_run_gives_back_and_gets_nothing(service: Service, sides: Sides, run: TestRun) -> None:
    """Giving back rolls back, which is always allowed."""
    service.call(keep_from_pool, sides.app, run.mark())
    run.kill()
    refused, back = service.call(give_back_when_killed, run.mark())
    assert is_refused(refused, "the run is not live any more")
    assert back is None
