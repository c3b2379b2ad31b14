"""One store's audit on real servers: who made which change, and what forbids "proven"."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import redis
from audited_system import PREFIX, RUN, System, left_in_production, wait_until
from msgspec.structs import replace

from perflab.config import Secret, Store
from perflab.demo.stores import RedisServer
from perflab.shadow.audit import Audit
from perflab.shadow.rediskeys import REMOVED


def test_a_write_nobody_claims_is_listed_and_forbids_proven(system: System) -> None:
    """It is no leak, since it may be a cron job; but the store is not proven, and values stay private."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit:
        audit.start()

        # When
        with (
            psycopg.connect(application.url) as session,
            redis.Redis.from_url(application.redis_url) as client,
        ):
            application.order(session)
            session.execute("UPDATE stock SET left_over = 0 WHERE id = 2")
            session.commit()
            application.command(client, "SET", "cart:1", "x", key="cart:1")
            client.set("cart:2", "private")
            client.delete("cart:1")
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    shop, cache = proof["stores"]
    assert (proof["proven"], proof["leaks"]) == (0, [])
    assert (shop["changes"]["attributed"], shop["changes"]["unattributed"]) == (1, 1)
    assert "update public.stock (1)" in shop["changes"]["examples"][0]["what"]
    assert (cache["changes"]["attributed"], cache["changes"]["unattributed"]) == (1, 2)
    assert "private" not in json.dumps(proof)
    assert shop["reasons"] == [
        "1 of 2 transactions of production are not accounted for by any attached service"
    ]


def test_an_opaque_claim_is_counted_apart(system: System) -> None:
    """What an agent could not tell is covered by its time, and the report can say how much."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit:
        audit.start()

        # When
        with psycopg.connect(application.url, autocommit=True) as session:
            begin_ns = time.time_ns()
            session.execute("DO $$ BEGIN UPDATE stock SET left_over = 1; END $$")
            application.claim("shop", "opaque", begin_ns)
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    assert proof["stores"][0]["changes"]["opaque"] == 1
    assert proof["stores"][0]["proven"]


def test_what_was_written_outside_of_requests_is_counted_apart(system: System) -> None:
    """A background thread may have been handed anything: proven as far as canaries reach, and said so."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit, redis.Redis.from_url(application.redis_url) as client:
        audit.start()

        # When a request writes once, and threads of the service write elsewhere
        with psycopg.connect(application.url, autocommit=True) as session:
            application.order(session)
            application.order(session)
            application.claims[-1]["background"] = True
        application.command(client, "SET", "a", "x", key="a")
        application.claims[-1]["background"] = True
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    shop, cache = proof["stores"]
    assert (shop["changes"]["attributed"], shop["changes"]["background"]) == (2, 1)
    assert (cache["changes"]["attributed"], cache["changes"]["background"]) == (1, 1)
    assert any(
        "1 of 2 transactions were written outside of every request" in limit for limit in shop["limits"]
    )
    assert shop["proven"]


def test_keys_that_expire_need_no_claim(system: System) -> None:
    """Removals up to the server's own count of expired keys are its own doing; one more is not."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit, redis.Redis.from_url(application.redis_url) as client:
        audit.start()

        # When
        for number in range(3):
            application.command(client, "SET", f"s:{number}", "x", "PX", "1", key=f"s:{number}")
            wait_until(lambda number=number: client.get(f"s:{number}") is None)
        application.command(client, "SET", "kept", "x", key="kept")
        client.delete("kept")
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    changes = proof["stores"][1]["changes"]
    assert (changes["attributed"], changes["expired"], changes["unattributed"]) == (4, 3, 1)


def test_a_removal_accounts_for_no_setting(system: System) -> None:
    """What a service removes and somebody else sets at once has no claim, whatever expires meanwhile."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit, redis.Redis.from_url(application.redis_url) as client:
        audit.start()

        # When
        application.command(client, "SET", "a", "x", "PX", "1", key="a")
        wait_until(lambda: client.get("a") is None)
        application.command(client, "SET", "cart:7", "x", key="cart:7")
        application.command(client, "DEL", "cart:7", key=f"{REMOVED}cart:7")
        client.set("cart:7", "leaked")
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    cache = proof["stores"][1]
    changes = cache["changes"]
    assert (changes["attributed"], changes["expired"], changes["unattributed"]) == (3, 1, 1)
    assert changes["examples"][0]["what"] == "SET cart"
    assert not cache["proven"]
    assert any("the server counts as many keys" in limit for limit in cache["limits"])


def test_a_key_that_expires_and_is_set_again_at_once_is_accounted_for(system: System) -> None:
    """As a cache does it: what has no claim is the server's removal, not the setting that follows it."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit, redis.Redis.from_url(application.redis_url) as client:
        audit.start()

        # When
        for _ in range(5):
            application.command(client, "SET", "page:7", "x", "PX", "1", key="page:7")
            wait_until(lambda: client.get("page:7") is None)
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    cache = proof["stores"][1]
    changes = cache["changes"]
    assert (changes["attributed"], changes["expired"], changes["unattributed"]) == (5, 5, 0)
    assert cache["proven"], cache["reasons"]


def test_transactions_scripts_and_blocking_pops_are_attributed_by_key(system: System) -> None:
    """Whatever the stream turns a command into, its key leads to the claim."""
    # Given
    application = system.application
    with Audit(system.stores, RUN) as audit, redis.Redis.from_url(application.redis_url) as client:
        audit.start()

        # When
        begin_ns = time.time_ns()
        with client.pipeline(transaction=True) as pipeline:
            pipeline.incr("m1").incr("m1").set("m2", "x").execute()
        for key in ("m1", "m1", "m2"):
            application.claim("cache", key, begin_ns)
        application.command(
            client,
            "EVAL",
            "redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)",
            2,
            "a",
            "b",
            key="b",
        )
        application.command(client, "SETEX", "c", "100", "x", key="c")
        application.command(client, "INCRBYFLOAT", "f", "0.5", key="f")
        waiting = threading.Thread(
            target=lambda: application.command(
                redis.Redis.from_url(application.redis_url), "BLPOP", "q", 5, key="q"
            )
        )
        waiting.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        application.command(client, "RPUSH", "q", "job", key="q")
        waiting.join()
        proof = audit.finish(application.claims, system.sessions, 1)

    # Then
    cache = proof["stores"][1]
    assert (cache["changes"]["seen"], cache["changes"]["unattributed"]) == (9, 0)
    assert cache["proven"]


@pytest.mark.parametrize(
    ("sessions", "canaries_sent", "reason"),
    [
        ([], 1, "no marked work reached this store: nothing was tested here"),
        (None, 0, "no canary was sent: payloads could not be told from real ones"),
        ([{"shadow": False, "marked_calls": 4}], 1, "4 accesses of marked work were not on the shadow login"),
        (
            [{"shadow": True, "user": "app", "marked_calls": 2}],
            1,
            "2 accesses of marked work were not on the shadow login",
        ),
    ],
)
def test_what_was_not_tested_is_not_proven(
    system: System, sessions: list[dict[str, Any]] | None, canaries_sent: int, reason: str
) -> None:
    """Without marked work, without canaries, or with marked work on another login there is no proof."""
    # Given
    with Audit(system.stores[:1], RUN) as audit:
        audit.start()

        # When
        reported = system.sessions if sessions is None else [{"store": "shop", **row} for row in sessions]
        proof = audit.finish([], reported, canaries_sent)

    # Then
    assert not proof["stores"][0]["proven"]
    assert reason in proof["stores"][0]["reasons"]


def test_a_shadow_login_that_is_let_in_is_not_proven(
    system: System, secret: Callable[[str], Secret], redis_server: RedisServer
) -> None:
    """A login production accepts forbids "proven", for PostgreSQL and for Redis; nothing was written."""
    # Given: the shadow logins are superusers of the same servers
    shop, cache = system.stores
    strong = (
        Store("shop", "postgresql", shop.production, secret(system.application.url), shop.audit),
        Store("cache", "redis", cache.production, secret(redis_server.admin_url), cache.audit, PREFIX),
    )
    with Audit(strong, RUN) as audit:
        audit.start()

        # When
        rows = [{"store": name, "shadow": True, "marked_calls": 1} for name in ("shop", "cache")]
        proof = audit.finish([], rows, 1)

    # Then
    for store in proof["stores"]:
        assert not store["proven"]
        assert "production let the shadow login in" in store["reasons"]
        assert store["login_refused"]["refused"] == 0
        assert store["changes"]["seen"] == 0


def test_a_stream_that_breaks_off_is_not_proven(system: System) -> None:
    """When production ends the audit's session half way, the rest is said to be unchecked."""
    # Given
    with Audit(system.stores, RUN) as audit:
        audit.start()
        with psycopg.connect(system.application.url, autocommit=True) as session:
            session.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                " WHERE database = current_database()"
            )

        # When
        audit.poll()
        proof = audit.finish([], system.sessions, 1)

    # Then
    shop, cache = proof["stores"]
    assert not shop["proven"]
    assert "broke off" in shop["not_checked"][0]
    assert cache["proven"]
    assert left_in_production(system) == (0, 0)


def test_an_audit_that_looks_elsewhere_is_not_proof(
    system: System, secret: Callable[[str], Secret], make_database: Callable[[str], str]
) -> None:
    """Services wrote, and the change stream that is read shows nothing: it is another database's."""
    # Given
    shop = system.stores[0]
    elsewhere = replace(shop, audit=secret(make_database("CREATE TABLE orders (id int PRIMARY KEY)")))
    with Audit([elsewhere], RUN, slack_ns={"postgresql": 0}) as audit:
        audit.start()

        # When
        with psycopg.connect(system.application.url) as session:
            system.application.order(session)
        audit.poll()
        proof = audit.finish(system.application.claims, system.sessions, 1)

    # Then
    row = proof["stores"][0]
    assert not row["proven"]
    assert "does 'audit' in perflab.toml lead to another server or database?" in row["not_checked"][0]


def test_malformed_claims_are_not_proof(system: System) -> None:
    """A claim without an interval makes the attribution unchecked instead of failing the run."""
    with Audit(system.stores[:1], RUN) as audit:
        audit.start()
        proof = audit.finish([{"store": "shop", "fingerprint": "[]"}], system.sessions, 1)
    assert "a malformed claim" in proof["stores"][0]["not_checked"][0]
    assert proof["proven"] == 0
