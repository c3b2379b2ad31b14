"""Answers of Redis: marked work gets those of ordinary work, from keys of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from attached_service import Service, attempt, attempt_async, forget, marked, noted, plain_of
from two_sides import PREFIX, Sides, TestRun

Mark = dict[str, Any] | None
LUA = "redis.call('SET', KEYS[1], ARGV[1]); return {KEYS[1], redis.call('GET', KEYS[1])}"


def all_ways(url: str, mark: Mark, options: dict[str, Any]) -> list[Any]:
    """Do what services do with Redis and return every answer."""
    with redis.Redis.from_url(url, **options) as client, marked(mark):
        pipeline = client.pipeline(transaction=True)
        plain = client.pipeline(transaction=False)
        lock = client.lock("lock:a", timeout=5)
        script = client.register_script(LUA)
        ways: list[Callable[[], Any]] = [
            lambda: client.set("one:1", "v"),
            lambda: client.set(b"one:2", b"v"),
            lambda: client.set("one:1", "w", nx=True),
            lambda: client.mset({"one:3": 1, "one:4": 2.5}),
            lambda: client.mget(["one:1", "one:3", "one:none"]),
            lambda: client.incr("count", 3),
            lambda: client.hset("hash", mapping={"a": 1, "b": 2}),
            lambda: client.hgetall("hash"),
            lambda: client.sadd("set", "x", "y"),
            lambda: client.smembers("set"),
            lambda: client.sunionstore("set:2", ["set"]),
            lambda: client.zadd("z", {"a": 1, "b": 2}),
            lambda: client.zunionstore("z:2", {"z": 2}),
            lambda: client.zrange("z:2", 0, -1, withscores=True),
            lambda: client.rpush("list", "a", "b", b"c", 4),
            lambda: client.lrange("list", 0, -1),
            lambda: client.lmove("list", "list:2", "LEFT", "RIGHT"),
            lambda: client.lpop("list"),
            lambda: client.rpop("list", 2),
            lambda: client.blpop(["list:none", "list:2"], timeout=1),
            lambda: client.xadd("stream", {"a": 1}, id="1-1"),
            lambda: client.xgroup_create("stream", "streams", id="0"),
            lambda: client.xreadgroup("streams", "me", {"stream": ">"}),
            lambda: client.xread({"stream": 0}, block=1),
            lambda: client.rename("one:2", "one:5"),
            lambda: client.copy("one:5", "one:6"),
            lambda: client.expire("one:6", 1000),
            lambda: client.object("encoding", "count"),
            lambda: client.exists("one:1", "one:2", "one:5"),
            lambda: client.delete("one:5", "one:6"),
            lambda: client.eval(LUA, 1, "lua:1", "v"),
            lambda: script(keys=["lua:2"], args=["v"]),
            lambda: [lock.acquire(), lock.owned(), lock.release()],
            lambda: pipeline.set("p:1", 1).get("p:1").lpush("p:list", "v").execute(),
            lambda: plain.set("p:2", 1).lrange("p:list", 0, -1).execute(),
            lambda: client.transaction(lambda pipe: pipe.set("p:3", pipe.get("p:1") or 0), "p:1"),
            lambda: sorted(client.scan_iter("one:*")),
            lambda: len(list(client.scan_iter())),
            lambda: client.sort("list", alpha=True) if not mark else [],
            lambda: client.get("set"),
            lambda: client.execute_command("GET one:1"),
            lambda: client.execute_command(b"get", "one:1"),
            lambda: client.set("bad", None),  # type: ignore[arg-type]
            lambda: client.rpush("bad", True),
            lambda: client.execute_command("NOSUCH", "a") if not mark else None,
        ]
        return [plain_of(attempt(way)) for way in ways]


async def all_ways_async(url: str, mark: Mark, options: dict[str, Any]) -> list[Any]:
    """Do the same with the asyncio client."""
    async with redis.asyncio.Redis.from_url(url, **options) as client:
        with marked(mark):
            pipeline, plain = client.pipeline(transaction=True), client.pipeline(transaction=False)

            async def watch() -> Any:
                async with client.pipeline() as pipe:
                    await pipe.watch("p:1")
                    found = await pipe.get("p:1")
                    await pipe.set("p:4", 4)
                    pipe.multi()
                    return [found, *await pipe.set("p:3", 3).execute()]

            async def scan() -> Any:
                return sorted([key async for key in client.scan_iter("one:*")])

            ways: list[Callable[[], Any]] = [
                lambda: client.set("one:1", "v"),
                lambda: client.set(b"one:2", b"v"),
                lambda: client.mget(["one:1", "one:none"]),
                lambda: client.hset("hash", mapping={"a": 1}),
                lambda: client.hgetall("hash"),
                lambda: client.rpush("list", "a", "b"),
                lambda: client.lrange("list", 0, -1),
                lambda: client.blpop(["list:none", "list"], timeout=1),
                lambda: client.lpop("list"),
                lambda: client.eval(LUA, 1, "lua:1", "v"),
                lambda: pipeline.set("p:1", 1).get("p:1").lpush("p:list", "v").execute(),
                lambda: plain.set("p:2", 1).lrange("p:list", 0, -1).execute(),
                watch,
                scan,
                lambda: client.set("bad", None),
            ]
            return [plain_of(await attempt_async(way)) for way in ways]


ALL_WAYS = pytest.mark.parametrize("ways", [all_ways, all_ways_async])
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}], ids=str
)


@OPTIONS
@ALL_WAYS
def test_marked_work_gets_the_answers_of_ordinary_work(
    ways: Any, options: dict[str, Any], service: Service, plain: Service, sides: Sides, run: TestRun
) -> None:
    """Every command answers as without the agent, keys and values included, and leaves prefixed keys only."""
    # Given: the answers and keys without the agent, and of ordinary work with it
    without = plain.call(ways, sides.cache, None, options)
    keys = sides.keys()
    with sides.admin() as client:
        client.flushall()
    assert service.call(ways, sides.cache, None, options) == without
    assert sides.keys() == keys
    # When
    service.call(forget)
    answers = service.call(ways, sides.cache, run.mark(), options)
    # Then
    if ways is all_ways:
        without[-7] = []  # SORT, which may follow patterns to other keys, is not for marked work
        without[-1] = None
    assert answers == without
    assert sides.keys() - keys == {f"{PREFIX}{key}" for key in keys}
    # And: on the shadow's login, without claims
    assert {tuple(told) for told in service.call(noted, "session")} == {("cache", "both_shadow", "0", True)}
    assert service.call(noted, "claim") == []
