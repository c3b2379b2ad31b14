"""The proof of isolation on real servers: it holds, and what breaks it is found."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
import redis
from audited_system import CANARY, PREFIX, RUN, TRACE_ID, System, left_in_production, poll_for

from perflab.config import Secret, Store
from perflab.shadow.audit import Audit


def test_a_clean_run_is_proven(system: System) -> None:
    """Real users write, marked work writes to the shadows: everything is accounted for, both are proven."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit:
        audit.start()

        # When
        with (
            psycopg.connect(application.url) as session,
            redis.Redis.from_url(application.redis_url) as client,
        ):
            for _ in range(5):
                application.order(session)
            application.command(client, "SET", "cart:1", "x", key="cart:1")
        with (
            psycopg.connect(system.shadow_url) as shadow,
            redis.Redis.from_url(system.shadow_redis_url) as client,
        ):
            shadow.execute("INSERT INTO orders (note) VALUES (%s)", (CANARY,))
            client.set(f"{PREFIX}cart:1", CANARY)
        assert audit.poll() == []
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    shop, cache = proof["stores"]
    assert (proof["seen"], proof["proven"], proof["leaks"]) == (2, 2, [])
    assert shop["reasons"] == shop["not_checked"] == cache["reasons"] == cache["not_checked"] == []
    assert shop["changes"] == {
        "unit": "transactions", "seen": 5, "attributed": 5, "opaque": 0, "expired": 0, "unattributed": 0,
        "background": 0,
        "examples": [],
    }  # fmt: skip
    assert cache["changes"]["attributed"] == cache["changes"]["seen"] == 1
    assert cache["shadow_changes"] == 1
    assert shop["login_refused"]["tried"] == shop["login_refused"]["refused"] == 2
    assert "permission denied for database" in shop["login_refused"]["how"]
    assert cache["login_refused"]["tried"] == cache["login_refused"]["refused"] == 6
    assert shop["marked_sessions"] == {"on_shadow": 3, "elsewhere": 0}
    assert shop["canaries"] == {"sent": 1, "hits": 0}
    json.dumps(proof)


def test_a_marked_row_in_production_is_a_leak_that_names_its_request(system: System) -> None:
    """A canary in a table or a key of production is found by poll, with table, trace and row."""
    # Given
    with Audit(system.stores, RUN) as audit:
        audit.start()
        began_ns = time.time_ns()

        # When
        with psycopg.connect(system.application.url) as session:
            session.execute("INSERT INTO orders (note) VALUES (%s)", (f"for {CANARY}",))
        with redis.Redis.from_url(system.application.redis_url) as client:
            client.hset(f"cart:{CANARY}", "item", "1")
        found = poll_for(audit, 2)
        seconds = (time.time_ns() - began_ns) / 1e9
        proof = audit.finish([], system.sessions, {"shop": 1, "cache": 1})

    # Then
    assert seconds < 2
    assert [
        (leak.store, leak.where, leak.trace_id, leak.what)
        for leak in sorted(found, key=lambda leak: leak.store)
    ] == [
        ("cache", "cart", TRACE_ID, "HSET"),
        ("shop", "orders", TRACE_ID, "insert"),
    ]
    assert {leak["evidence"] for leak in proof["leaks"]} == {
        f"(1, for {CANARY})", f"HSET cart:{CANARY} item 1",
    }  # fmt: skip
    assert proof["proven"] == 0
    assert [store["canaries"]["hits"] for store in proof["stores"]] == [1, 1]
    assert "1 changes of production carry a canary of this run" in proof["stores"][0]["reasons"]


def test_four_busy_threads_leave_nothing_unattributed(system: System) -> None:
    """Five hundred transactions each of four threads, claimed as they go, are all attributed."""
    # Given
    application = system.application

    def work(number: int) -> None:
        with (
            psycopg.connect(application.url) as session,
            redis.Redis.from_url(application.redis_url) as client,
        ):
            for step in range(500):
                if step % 3:
                    application.order(session)
                else:
                    statement = f"UPDATE stock SET left_over = 5 WHERE id IN ({number + 2}, {number + 6})"
                    application.transaction(session, statement, ("stock", "update", 2))
                application.command(client, "INCR", f"n:{step % 10}", key=f"n:{step % 10}")

    with Audit(system.stores, RUN) as audit:
        audit.start()

        # When
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert audit.poll() == []
            threads[0].join(0.1)
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    for store in proof["stores"]:
        assert store["changes"]["seen"] == store["changes"]["attributed"] == 2000
        assert store["proven"]


def test_what_happens_after_the_end_needs_no_claim(system: System) -> None:
    """Real users go on writing while the agents' last claims come in."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit:
        audit.start()
        with (
            psycopg.connect(application.url) as session,
            redis.Redis.from_url(application.redis_url) as client,
        ):
            application.order(session)

            # When
            audit.end()
            session.execute("DELETE FROM stock WHERE id = 10")
            session.commit()
            client.set("late", "1")
            proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    assert [store["changes"]["seen"] for store in proof["stores"]] == [1, 0]
    assert proof["proven"] == 2


def test_one_stores_failure_does_not_stop_the_others(system: System, secret: Callable[[str], Secret]) -> None:
    """A store without an audit login, an unreachable one, and one nobody described are not checked."""
    # Given
    shop, cache = system.stores
    stores = (
        Store("blind", "postgresql", shop.production, shop.shadow),
        Store(
            "gone",
            "redis",
            "redis://127.0.0.1:1/0",
            secret("redis://u:p@127.0.0.1:1/0"),
            secret("redis://127.0.0.1:1/0"),
        ),
        cache,
    )
    with Audit(stores, RUN) as audit:
        audit.start()

        # When
        audit.poll()
        marked = [
            {"store": name, "shadow": True, "marked_calls": 1} for name in ("blind", "gone", "cache", "mongo")
        ]
        proof = audit.finish([], marked, 1)

    # Then
    rows = {row["name"]: row for row in proof["stores"]}
    assert (proof["seen"], proof["proven"]) == (4, 1)
    assert rows["cache"]["proven"]
    assert "no audit login" in rows["blind"]["not_checked"][0]
    assert "cannot be read" in rows["gone"]["not_checked"][0]
    assert "whether production refuses the shadow login" in rows["gone"]["not_checked"][1]
    assert "does not describe it" in rows["mongo"]["not_checked"][0]


def test_nothing_is_left_even_when_finish_raises(system: System) -> None:
    """Slots and publications are gone after close, whatever happened before; closing again does nothing."""
    # Given
    audit = Audit(system.stores, RUN)
    audit.start()
    assert left_in_production(system) == (2, 1)

    # When
    with pytest.raises(ValueError, match="not a number"):
        audit.finish([], [{"store": "shop", "marked_calls": "not a number"}], 1)
    audit.close()
    audit.close()

    # Then
    assert left_in_production(system) == (0, 0)
