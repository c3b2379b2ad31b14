"""Pools of PyMySQL connections, checked out by marked and ordinary work in turn: they never mix."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from typing import Any

import pymysql
import pytest
import sqlalchemy
from attached_service import Service, attempt, forget, is_refused, marked, noted
from maria_sides import APP, MariaSides
from sqlalchemy.pool import NullPool, QueuePool, SingletonThreadPool
from two_sides import TestRun

WHO = "SELECT DATABASE(), SUBSTRING_INDEX(CURRENT_USER(), '@', 1)"
THREADS, TURNS = 4, 12
ENGINES: dict[str, dict[str, Any]] = {
    "queue": {"poolclass": QueuePool, "pool_size": 2, "pool_pre_ping": True},
    "null": {"poolclass": NullPool},
    "per thread": {"poolclass": SingletonThreadPool, "pool_size": THREADS},
}


def engine_of(login: dict[str, Any], **options: Any) -> Any:
    url = sqlalchemy.URL.create(
        "mysql+pymysql", login["user"], login["password"], login["host"], login["port"], login["database"]
    )
    return sqlalchemy.create_engine(url, **options)


def take_turns(kind: str, login: dict[str, Any], marks: list[dict[str, Any]]) -> Any:
    """Let threads check out in turn as marked and ordinary work; count what they met."""
    met: Counter[str] = Counter()
    forget()
    engine = engine_of(login, **ENGINES[kind])

    def work(number: int) -> None:
        for at in range(TURNS):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark), engine.begin() as connection:
                who = connection.execute(sqlalchemy.text(WHO)).one()
                add = sqlalchemy.text("INSERT INTO item (note) VALUES (:note)")
                connection.execute(add, {"note": f"{kind} {number} {at}"})
                met[" ".join(["marked" if mark else "ordinary", *who])] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    return [met, noted("step_aside"), noted("refuse")]


@pytest.mark.parametrize("kind", ENGINES)
def test_pools_of_sqlalchemy_never_mix(
    kind: str, maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Threads that are marked every other time meet their own side each time, and write only there."""
    # When
    marks = [maria_run.mark() for _ in range(THREADS)]
    met, aside, refused = maria_service.call(take_turns, kind, maria.login, marks)
    # Then
    half = THREADS * TURNS // 2
    assert (aside, refused) == ([], [])
    assert met == {
        f"marked {maria.shadow_database} {maria.shadow_user}": half,
        f"ordinary {maria.production_database} {APP}": half,
    }
    for side, odd in (("production", 0), ("shadow", 1)):
        assert set(maria.notes(side)) == {
            f"{kind} {number} {at}"
            for number in range(THREADS)
            for at in range(TURNS)
            if (at + number) % 2 == odd
        }


def pool_of_one_s_own(login: dict[str, Any], mark: dict[str, Any]) -> list[Any]:
    """Keep connections in a queue, as many services do that use PyMySQL alone."""
    idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def turn() -> Any:
        try:
            connection = idle.get_nowait()
        except queue.Empty:
            connection = pymysql.connect(**login)
        try:
            with connection.cursor() as cursor:
                cursor.execute(WHO)
                return list(cursor.fetchone())
        finally:
            if connection.open:
                idle.put(connection)

    said = [turn()]
    with marked(mark):
        said += [attempt(turn)]
    said += [turn()]
    idle.get_nowait().close()
    with marked(mark):
        said += [turn()]
    said += [attempt(turn), turn()]
    return said


def test_a_pool_of_the_service_s_own_never_mixes_the_sides(
    maria_service: Service, maria: MariaSides, maria_run: TestRun
) -> None:
    """Marked work is refused a real user's connection; a real user takes over a shadow's, and goes on."""
    first, refused, second, on_shadow, taken, third = maria_service.call(
        pool_of_one_s_own, maria.login, maria_run.mark()
    )
    assert first == second == taken == third == [maria.production_database, APP]
    assert is_refused(refused, "kept outside a known pool")
    assert on_shadow == [maria.shadow_database, maria.shadow_user]
