"""redis-py routed on a real server: prefixed keys and the shadow's user for marked work only."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel
from attached_service import (
    Service,
    attempt,
    is_refused,
    kept,
    marked,
    plain_of,
    poll,
)
from two_sides import PREFIX, Sides, TestRun

Mark = dict[str, Any] | None
OUTSIDE = "return redis.call('SET', 'outside', ARGV[1])"
FROM_BEFORE = "this connection was opened for production before the marked request"


def refused_ways(url: str, mark: Mark) -> dict[str, str]:
    with redis.Redis.from_url(url, retry=None) as client, marked(mark):
        words = [
            "NOSUCH a",
            "SORT list BY weight:* STORE out",
            "FLUSHALL",
            "FLUSHDB",
            "SWAPDB 0 1",
            "RANDOMKEY",
            "DBSIZE",
            "CONFIG SET maxmemory 1",
            "MIGRATE h 1 k 0 1",
            "AUTH admin secret",
            "HELLO 3 AUTH admin secret",
            "RESET",
            "CLIENT PAUSE 1",
            "CLIENT KILL ID 1",
            "SCRIPT FLUSH",
            "MONITOR",
            "SHUTDOWN",
            "DEBUG SLEEP 0",
            "EVAL x nonsense a",
            "EVAL x 5 a",
            "KEYS *",
        ]
        said = {line: attempt(lambda line=line: client.execute_command(*line.split(" "))) for line in words}
        said["outside"] = attempt(lambda: client.eval(OUTSIDE, 0, "v"))
        return said


def test_what_cannot_be_confined_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Commands whose keys cannot be told, and those on the server or the login, are not sent."""
    # When
    said = service.call(refused_ways, sides.cache, run.mark())
    # Then: what our side cannot confine it refuses; what hides in a script the server refuses
    assert "can't access at least one of the keys" in said.pop("outside")
    assert said.pop("KEYS *").startswith("NoPermissionError")
    for line, answer in said.items():
        assert is_refused(answer, ""), (line, answer)
    assert sides.keys() == set()


def test_ordinary_work_may_do_all_that(service: Service, sides: Sides, run: TestRun) -> None:
    """Commands refused to marked work are none of our business otherwise."""
    said = service.call(ordinary_may, sides.cache)
    assert said == ["True", "1", "b'out'", "True"]


def ordinary_may(url: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        client.set("a", 1)
        client.rpush("list", "x")
        return [
            str(attempt(way))
            for way in (
                client.script_flush,
                lambda: client.sort("list", alpha=True, store="out"),
                lambda: next(key for key in client.keys("o*")),
                client.flushdb,
            )
        ]


def elsewhere(url: str, mark: Mark, others: list[str]) -> list[Any]:
    said = []
    for other in others:
        with redis.Redis.from_url(other, socket_connect_timeout=1) as client, marked(mark):
            said.append(attempt(lambda client=client: client.set("a", 1)))  # type: ignore[misc]
    sentinel = redis.sentinel.Sentinel([("127.0.0.1", 1)], socket_connect_timeout=1)
    with sentinel.master_for("cache") as client, marked(mark):
        said.append(attempt(lambda: client.set("a", 1)))
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=1, timeout=1)
    with redis.Redis(connection_pool=pool) as client, marked(mark):
        said.append(client.set("blocking", 1))
    with redis.Redis.from_url(url.replace("127.0.0.1", "localhost")) as client, marked(mark):
        said.append(client.set("localhost", 1))
    return said


def test_another_redis_is_refused(service: Service, sides: Sides, run: TestRun) -> None:
    """Another port, socket, database number or a Sentinel is unknown; another name of a host is not."""
    # Given
    others = ["redis://127.0.0.1:1/0", "unix:///tmp/no.sock", f"{sides.cache[:-1]}5"]
    # When
    *refused, blocking, localhost = service.call(elsewhere, sides.cache, run.mark(), others)
    # Then
    for said in refused:
        assert is_refused(said, "this Redis is not one of the target's stores")
    assert (blocking, localhost) == (True, True)
    assert sides.keys() == {f"{PREFIX}blocking", f"{PREFIX}localhost"}


def keep_clients(url: str, mark: Mark) -> None:
    with marked(mark):
        kept["single"] = redis.Redis.from_url(url, single_connection_client=True)
        kept["single"].set("single", 1)
        kept["pubsub"] = redis.Redis.from_url(url).pubsub()
        kept["pubsub"].subscribe("news")
        kept["pipeline"] = redis.Redis.from_url(url).pipeline()
        kept["pipeline"].watch("single")


def use_clients(mark: Mark) -> list[Any]:
    single, pubsub, pipeline = (kept.pop(name) for name in ("single", "pubsub", "pipeline"))
    poll()
    with marked(mark):
        said = [
            attempt(lambda: single.set("leaked", 1)),
            attempt(lambda: pubsub.subscribe("leaked")),
            attempt(lambda: pipeline.set("leaked", 1)),
        ]
    for client in (single, pubsub, pipeline):
        with marked(None):
            attempt(client.close)
    return said


def test_marked_work_cannot_use_a_connection_kept_from_before(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Clients of one connection, subscriptions, watched transactions: refused before anything is sent."""
    service.call(keep_clients, sides.cache, None)
    for said in service.call(use_clients, run.mark()):
        assert is_refused(said, FROM_BEFORE)
    assert sides.keys() == {"single"}


def test_ordinary_work_that_finds_a_shadow_connection_loses_it(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """A client that marked work made and kept is a lost connection for real users, and no shadow."""
    service.call(keep_clients, sides.cache, run.mark())
    for said in service.call(use_clients, None):
        assert "this connection belonged to a load test" in said or said.startswith("WatchError")
    assert sides.keys() == {f"{PREFIX}single"}


def test_a_killed_run_ends_at_the_next_access(service: Service, sides: Sides, run: TestRun) -> None:
    """On connections it holds already, and on new ones."""
    service.call(keep_clients, sides.cache, run.mark())
    run.kill()
    for said in service.call(use_clients, run.mark()):
        assert is_refused(said, "the run is not live any more")
    assert is_refused(service.call(set_one, sides.cache, run.mark()), "not live any more")
    assert sides.keys() == {f"{PREFIX}single"}


def set_one(url: str, mark: Mark) -> Any:
    with redis.Redis.from_url(url) as client, marked(mark):
        return attempt(lambda: client.set("one", 1))


def test_a_shadow_user_that_is_off_fails_only_marked_work(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """Marked work errors, real users are served, nothing of it is in production."""
    with sides.admin() as client:
        client.execute_command("ACL", "SETUSER", "both_shadow", "off")
    try:
        said = service.call(set_one, sides.cache, run.mark())
        ordinary = service.call(set_one, sides.cache, None)
    finally:
        with sides.admin() as client:
            client.execute_command("ACL", "SETUSER", "both_shadow", "on")
    assert said.startswith("AuthenticationError")
    assert ordinary is True
    assert sides.keys() == {"one"}


def take_turns(url: str, marks: list[dict[str, Any]], options: dict[str, Any]) -> list[str]:
    client = redis.Redis(
        connection_pool=redis.BlockingConnectionPool.from_url(url, max_connections=2, **options)
    )
    wrong: list[str] = []

    def work(number: int) -> None:
        for at in range(20):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                client.set(f"{number}:{at}", "shadow" if mark else "real")
                if client.incr(f"count:{number}") != at // 2 + 1:
                    wrong.append(f"{number}:{at}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    return wrong


async def take_turns_async(url: str, marks: list[dict[str, Any]], options: dict[str, Any]) -> list[str]:
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=2, **options)
    client = redis.asyncio.Redis(connection_pool=pool)
    wrong: list[str] = []

    async def work(number: int) -> None:
        for at in range(20):
            mark = marks[number] if (at + number) % 2 else None
            with marked(mark):
                await client.set(f"{number}:{at}", "shadow" if mark else "real")
                if await client.incr(f"count:{number}") != at // 2 + 1:
                    wrong.append(f"{number}:{at}")

    await asyncio.gather(*map(work, range(4)))
    await client.aclose()
    await pool.aclose()
    return wrong


@pytest.mark.parametrize("turns", [take_turns, take_turns_async])
def test_pools_never_mix(turns: Any, service: Service, sides: Sides, run: TestRun) -> None:
    """Threads and tasks that are marked every other time meet their own keys each time."""
    # When
    assert service.call(turns, sides.cache, [run.mark() for _ in range(4)], {}) == []
    # Then
    with sides.admin() as client:
        keys = [key.decode() for key in client.keys("*:*")]
        found = {key: client.get(key) for key in keys if "count" not in key}
    assert len(found) == 80
    for key, value in found.items():
        number, at = map(int, key.removeprefix(PREFIX).split(":"))
        assert value == (b"shadow" if (at + number) % 2 else b"real")
        assert key.startswith(PREFIX) == (value == b"shadow")


def listen(url: str, mark: Mark) -> list[Any]:
    """Subscribe both sides to one channel, publish from both, and return who heard what."""
    heard = []
    ordinary, shadow = redis.Redis.from_url(url).pubsub(), redis.Redis.from_url(url).pubsub()
    ordinary.subscribe("news", "other")
    with marked(mark):
        shadow.subscribe("news", "other")
        with redis.Redis.from_url(url) as client:
            client.publish("news", "marked")
    with redis.Redis.from_url(url) as client:
        client.publish("news", "ordinary")
    for listener, its_mark in ((ordinary, None), (shadow, mark)):
        with marked(its_mark):
            for _ in range(3):
                message = listener.get_message(timeout=5)
                heard.append([message["type"], plain_of(message["channel"]), plain_of(message["data"])])
            listener.unsubscribe("news")
            message = listener.get_message(timeout=5)
            heard.append([message["type"], plain_of(message["channel"]), message["data"]])
            listener.close()
    with marked(mark), redis.Redis.from_url(url).pubsub() as patterns:
        patterns.psubscribe("new*")
        heard.append(attempt(lambda: patterns.get_message(timeout=5)))
    return heard


def test_messages_stay_on_their_side(service: Service, sides: Sides, run: TestRun) -> None:
    """Channels are prefixed, and read as the subscriber named them; patterns the server refuses."""
    # When
    heard = service.call(listen, sides.cache, run.mark())
    # Then
    for said, word in ((heard[:4], "ordinary"), (heard[4:8], "marked")):
        assert said == [
            ["subscribe", "b:news", 1],
            ["subscribe", "b:other", 2],
            ["message", "b:news", f"b:{word}"],
            ["unsubscribe", "b:news", 1],
        ]
    assert heard[8].startswith("NoPermissionError")


def connect_with_another_client(url: str, mark: Mark) -> list[Any]:
    other = redis.Redis.from_url(url)

    def on_connect(connection: Any) -> None:
        connection.on_connect()
        other.set("from within", 1)

    client = redis.Redis.from_url(url, redis_connect_func=on_connect)
    with marked(mark):
        return [attempt(lambda: client.set("outer", 1))]


def test_upkeep_of_one_connection_is_no_licence_for_another(
    service: Service, sides: Sides, run: TestRun
) -> None:
    """What a connection's own callback does elsewhere is marked work like any other."""
    assert service.call(connect_with_another_client, sides.cache, run.mark()) == [True]
    assert sides.keys() == {f"{PREFIX}from within", f"{PREFIX}outer"}


def set_within_a_permit(url: str, mark: Mark) -> Any:
    """Use Redis where another hook lets its own sockets pass: in the body of a request being sent, say."""
    from perflab.shadow import scope

    with redis.Redis.from_url(url) as client, marked(mark), scope.permit():
        return attempt(lambda: client.set("one", 1))


def test_a_permit_for_other_sockets_is_no_licence(service: Service, sides: Sides, run: TestRun) -> None:
    """Routing does not depend on what the socket guard lets pass."""
    assert service.call(set_within_a_permit, sides.cache, run.mark()) is True
    assert sides.keys() == {f"{PREFIX}one"}


def reconnect(url: str, mark: Mark, admin: str) -> list[Any]:
    with redis.Redis.from_url(url) as client, marked(mark):
        said = [client.set("a", 1)]
        kept["reconnecting"] = client
        with redis.Redis.from_url(admin) as other, marked(None):
            for session in other.client_list():
                if session["user"] == "both_shadow":
                    other.client_kill_filter(_id=session["id"])
        said += [attempt(lambda: client.set("b", 1)), attempt(lambda: client.get("a"))]
    kept.clear()
    return [plain_of(said)]


def test_a_lost_connection_comes_back_to_the_shadow(service: Service, sides: Sides, run: TestRun) -> None:
    """It logs in again by itself, with the shadow's user and the prefix."""
    assert service.call(reconnect, sides.cache, run.mark(), sides.cache) == [[True, True, "b:1"]]
    assert sides.keys() == {f"{PREFIX}a", f"{PREFIX}b"}
