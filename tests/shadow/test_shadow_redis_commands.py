"""Spans and claims of Redis commands: what is work has a span, what production will show has a claim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
from attached_service import Service, attempt, forget, marked, noted, spans
from two_sides import PREFIX, Sides, TestRun

from perflab.shadow.audit.attribution import Claim, attribute
from perflab.shadow.audit.redisreplica import ReplicaStream

Mark = dict[str, Any] | None


def told_spans(url: str, mark: Mark) -> list[Any]:
    forget()
    with redis.Redis.from_url(url) as client, marked(mark):
        client.set("cart:7:items", 1)
        client.get("cart:7:items")
        client.rpush("jobs", "a", "b")
        client.lpop("jobs")
        client.blpop(["jobs"], timeout=1)
        client.brpop(["jobs"], timeout=0.01)
        client.blmove("jobs", "done", 0.01)
        client.bzpopmin("z", 0.01)
        client.xread({"stream": "$"}, block=5)
        client.pipeline().set("cart:1", 1).incr("cart:2").execute()
        client.pipeline().set("cart:1", 1).set("count", 2).execute()
        client.pipeline().execute()
        attempt(lambda: client.incr("cart:7:items", "x"))  # type: ignore[arg-type]
    return [
        [
            span.name,
            span.kind.name,
            span.attributes["db.operation.name"],
            span.attributes.get("user_agent.synthetic.type"),
            span.attributes.get("error.type"),
        ]
        for span in spans
    ]


async def told_spans_async(url: str) -> list[str]:
    forget()
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.set("cart:7:items", 1)
        await client.blpop(["jobs"], timeout=0.01)
        await client.rpush("jobs", "a")
        await client.pipeline().set("cart:1", 1).incr("cart:2").execute()
    return [span.name for span in spans]


def test_every_command_that_works_has_a_span(service: Service, sides: Sides, run: TestRun) -> None:
    """Named by command and family of keys, a push as a producer; waiting is no work and has none."""
    for mark, synthetic in ((None, None), (run.mark(), "test")):
        assert service.call(told_spans, sides.cache, mark) == [
            ["SET cart", "CLIENT", "SET", synthetic, None],
            ["GET cart", "CLIENT", "GET", synthetic, None],
            ["send jobs", "PRODUCER", "RPUSH", synthetic, None],
            ["LPOP jobs", "CLIENT", "LPOP", synthetic, None],
            ["PIPELINE cart", "CLIENT", "PIPELINE", synthetic, None],
            ["PIPELINE", "CLIENT", "PIPELINE", synthetic, None],
            ["INCRBY cart", "CLIENT", "INCRBY", synthetic, "ResponseError"],
        ]
    assert service.call(told_spans_async, sides.cache) == ["SET cart", "send jobs", "PIPELINE cart"]


def write_all_ways(url: str) -> list[Any]:
    """Write in every way, and now and then write nothing; return the claims."""
    forget()
    with redis.Redis.from_url(url) as client:
        ways: list[Callable[[], Any]] = [
            lambda: client.set("set", 1),
            lambda: client.set("set", 1, nx=True),
            lambda: client.set("set:get", 1, get=True),
            lambda: client.getset("getset", 1),
            lambda: client.mset({"m:1": 1, "m:2": 2}),
            lambda: client.rpush("list", "c", "a", "b"),
            lambda: client.lmove("list", "list:2"),
            lambda: client.blpop(["list:none", "list:2"], timeout=1),
            lambda: client.blpop(["list:none"], timeout=0.01),
            lambda: client.lpop("none"),
            lambda: client.sort("list", alpha=True, store="sorted"),
            lambda: client.sort("list", alpha=True),
            lambda: client.zadd("z", {"a": 1, "b": 2}),
            lambda: client.bzpopmin(["z:none", "z"], 1),
            lambda: client.zunionstore("z:2", ["z"]),
            lambda: client.xadd("stream", {"a": 1}),
            lambda: client.xgroup_create("stream", "group", id="0"),
            lambda: client.xreadgroup("group", "me", {"stream": ">"}),
            lambda: client.pfadd("pf", "a"),
            lambda: client.eval("redis.call('SET', KEYS[1], 1)", 1, "lua"),
            lambda: client.delete("m:1", "m:2", "none"),
            lambda: client.pipeline().set("p:1", 1).get("p:1").incr("p:2").execute(),
            lambda: client.pipeline(transaction=False).set("p:3", 1).incr("p:4").execute(),
            lambda: client.get("set"),
            lambda: client.touch("set"),
            lambda: client.expire("set", 1000),
            lambda: client.publish("news", 1),
        ]
        for way in ways:
            way()
        with client.pipeline() as pipe:
            pipe.watch("p:1")
            pipe.set("watched", 1)  # sent at once
            pipe.multi()
            pipe.set("never", 1)
            with redis.Redis.from_url(url) as other:
                other.set("p:1", 2)
            with contextlib.suppress(redis.WatchError):
                pipe.execute()
        with contextlib.suppress(redis.ResponseError):
            client.execute_command("EVAL", "x", "nonsense")
        client.flushdb()
    return [noted("claim"), noted("step_aside")]


def test_claims_account_for_production_s_own_stream(service: Service, sides: Sides, run: TestRun) -> None:
    """Heard as a replica does: every change has a claim of its own key and time."""
    # Given
    capture = ReplicaStream(sides.cache, sides.cache, PREFIX, lambda *_: None, b"")
    capture.open()
    try:
        # When
        told, aside = service.call(write_all_ways, sides.cache)
        capture.drain(20)
        changes = capture.changes()
    finally:
        capture.close()
    claims = [Claim(key, begin_ns, end_ns) for _, key, begin_ns, end_ns in told]
    # Then: the stream is read a little after it was written
    found = attribute(changes, claims, slack_ns=10_000_000_000)
    assert found.unattributed == ()
    assert len(changes) >= 22
    # And: what changed nothing is not claimed
    keys = [key for _, key, _, _ in told]
    assert keys.count("set") == 2  # SET and EXPIRE; not SET NX, GET, TOUCH
    assert "never" not in keys
    assert keys.count("list:none") == 1
    assert aside == [["redis: claim: ValueError"]]


def unclaimed(url: str) -> list[Any]:
    forget()
    with redis.Redis.from_url(url) as client:
        client.set("a", 1)
    return noted("claim")


def test_nothing_is_claimed_without_a_live_run(service: Service, sides: Sides, run: TestRun) -> None:
    """Nor for a Redis that is none of the target's; another database of a known server counts."""
    # When: database 3 of the same server
    assert [told[:2] for told in service.call(unclaimed, f"{sides.cache[:-1]}3")] == [["cache", "a"]]
    # When: no run
    run.remove()
    assert service.call(unclaimed, sides.cache) == []


class Unspeakable:
    """A command name that redis-py refuses and the agent cannot read."""

    def __str__(self) -> str:
        raise RuntimeError("not for you")


def say_the_unspeakable(url: str) -> list[Any]:
    with redis.Redis.from_url(url) as client:
        return [
            attempt(lambda: client.execute_command(Unspeakable())),
            attempt(lambda: client.execute_command("GET", Unspeakable())),
            attempt(lambda: client.execute_command()),
            attempt(lambda: client.execute_command("SET", "a", 1)),
        ]


def test_what_cannot_be_named_is_sent_all_the_same(
    service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """The agent's trouble with a command of ordinary work is not the command's."""
    assert service.call(say_the_unspeakable, sides.cache) == plain.call(say_the_unspeakable, sides.cache)
