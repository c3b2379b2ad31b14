"""The change stream of a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from perflab.demo.stores import RedisServer
from perflab.errors import ShadowError
from perflab.shadow.audit.redisreplica import ReplicaStream
from perflab.shadow.audit.redisstream import Write
from perflab.shadow.rediskeys import REMOVED

PREFIX = "perflab:shadow:"
Noted = list[tuple[str, tuple[bytes, ...], bool]]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Return an application's client, on an empty server."""
    client = redis.Redis.from_url(redis_server.admin_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def joined(redis_server: RedisServer, client: redis.Redis) -> Iterator[tuple[ReplicaStream, Noted]]:
    """Join the stream; return it and what it noted."""
    noted: Noted = []

    def note(write: Write, words: tuple[bytes, ...], _: int, of_production: bool) -> None:
        noted.append((write.name, words, of_production))

    stream = _stream(redis_server.admin_url, note)
    stream.open()
    yield stream, noted
    stream.close()


def test_every_kind_of_write_names_its_keys(joined: tuple[ReplicaStream, Noted], client: redis.Redis) -> None:
    """Scripts, transactions, blocking pops, rewritten commands: the keys are the application's."""
    # Given
    stream, _ = joined
    before_ns = time.time_ns()

    # When
    client.set("a", "1", ex=100)
    client.incrbyfloat("b", 0.5)
    client.expire("a", 50)
    client.get("a")
    with client.pipeline(transaction=True) as pipeline:
        pipeline.incr("m1").hset("m2", "f", "v").execute()
    client.rpush("queue", "job")
    client.blpop(["nothing", "queue"], timeout=1)
    client.eval("redis.call('SET', KEYS[1], '1'); redis.call('INCR', KEYS[2])", 2, "l1", "l2")
    client.mset({"x": 1, "y": 2})
    client.delete("x", "y")
    client.xadd("s", {"f": "v"})
    client.xgroup_create("s", "g")
    stream.drain(5)

    # Then
    changes = stream.changes()
    assert [change.fingerprints for change in changes] == [
        ("a",), ("b",), ("a",), ("m1", "m2"), ("queue",), ("queue",), ("l1", "l2"), ("x", "y"),
        ("x", "y", f"{REMOVED}x", f"{REMOVED}y"), ("s",), ("s",),
    ]  # fmt: skip
    assert [change.weight for change in changes] == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1]
    assert [change.expirable for change in changes].index(True) == 8
    assert all(before_ns <= change.time_ns <= time.time_ns() for change in changes)


def test_shadow_keys_are_counted_apart(joined: tuple[ReplicaStream, Noted], client: redis.Redis) -> None:
    """Commands on prefixed keys only are no change of production; a mixed one is."""
    # Given
    stream, noted = joined

    # When
    client.set(f"{PREFIX}a", "1")
    client.mset({f"{PREFIX}a": 1, "real": 2})
    client.publish("news", "text")
    stream.drain(5)

    # Then
    assert stream.shadow_changes == 1
    assert [change.fingerprints for change in stream.changes()] == [("real",)]
    assert [(name, of_production) for name, _, of_production in noted] == [
        ("SET", False), ("MSET", True), ("PUBLISH", True),
    ]  # fmt: skip


def test_keys_the_server_removes_are_counted(
    joined: tuple[ReplicaStream, Noted], client: redis.Redis
) -> None:
    """An expired key is a removal in the stream and one in the server's count."""
    # Given
    stream, _ = joined

    # When
    client.set("short", "1", px=1)
    _wait_until(lambda: client.get("short") is None)
    stream.drain(5)

    # Then
    assert [change.expirable for change in stream.changes()] == [False, True]
    assert stream.removed_by_server == 1


def test_the_window_ends_where_it_is_told_to(
    joined: tuple[ReplicaStream, Noted], client: redis.Redis
) -> None:
    """Writes after the end need no claim, but are still noted for canaries."""
    # Given
    stream, noted = joined
    client.set("before", "1")

    # When
    stream.end()
    client.set("after", "1")
    stream.drain(5)

    # Then
    assert [change.fingerprints for change in stream.changes()] == [("before",)]
    assert [name for name, _, _ in noted] == ["SET", "SET"]


def test_wait_never_counts_the_audit(joined: tuple[ReplicaStream, Noted], client: redis.Redis) -> None:
    """An application that waits for a replica's copy does not get the audit for one."""
    # Given
    stream, _ = joined
    client.set("a", "1")
    stream.drain(5)

    # Then: and the link outlives several acknowledgements
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert client.wait(1, 200) == 0
        stream.poll()
    assert client.info("replication")["connected_slaves"] >= 1


def test_with_a_backlog_no_snapshot_is_asked_for(redis_server: RedisServer, client: redis.Redis) -> None:
    """The second audit joins at the present position and sees what comes."""
    # Given: the first made the server keep a backlog
    first = _stream(redis_server.admin_url)
    first.open()
    first.close()
    snapshots = client.info("stats")["sync_full"]

    # When
    second = _stream(redis_server.admin_url)
    second.open()
    client.set("a", "1")
    second.drain(5)
    second.close()

    # Then
    assert client.info("stats")["sync_full"] == snapshots
    assert [change.fingerprints for change in second.changes()] == [("a",)]


@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_a_snapshot_of_either_form_is_passed_over(server_directory: Path, diskless: str) -> None:
    """A data set of some megabytes is skipped, sent from disk or straight from the child."""
    with RedisServer(server_directory / f"snapshot-{diskless}") as server:
        # Given
        client = redis.Redis.from_url(server.admin_url)
        client.config_set("repl-diskless-sync", diskless)
        client.eval("for i = 1, 3000 do redis.call('SET', 'k' .. i, string.rep('x', 2000)) end", 0)

        # When
        stream = _stream(server.admin_url)
        stream.open()
        client.set("after", "1")
        stream.drain(5)
        stream.close()
        client.close()

        # Then
        assert [change.fingerprints for change in stream.changes()] == [("after",)]


def test_a_replica_gives_the_same_stream(
    redis_server: RedisServer, client: redis.Redis, server_directory: Path
) -> None:
    """The audit of a replica sees production's writes, and counts removals on production."""
    with RedisServer(server_directory / "replica") as replica:
        # Given
        there = redis.Redis.from_url(replica.admin_url)
        password = redis_server.admin_url.split(":")[2].partition("@")[0]
        there.config_set("masteruser", "admin")
        there.config_set("masterauth", password)
        there.replicaof(redis_server.host, redis_server.port)
        _wait_until(lambda: there.info("replication")["master_link_status"] == "up")
        stream = _stream(replica.admin_url, production=redis_server.admin_url)
        stream.open()

        # When
        client.set("a", "1")
        client.set("short", "1", px=1)
        _wait_until(lambda: client.get("short") is None)
        stream.drain(10)
        stream.close()
        there.close()

        # Then
        assert [change.fingerprints for change in stream.changes()] == [
            ("a",),
            ("short",),
            ("short", f"{REMOVED}short"),
        ]
        assert stream.removed_by_server == 1


def test_a_server_that_counts_replicas_is_left_alone(redis_server: RedisServer, client: redis.Redis) -> None:
    """With min-replicas-to-write the audit would make writes pass that must not."""
    # Given
    client.config_set("min-replicas-to-write", 1)
    try:
        # Then
        with pytest.raises(ShadowError, match="min-replicas-to-write"):
            _stream(redis_server.admin_url).open()
    finally:
        client.config_set("min-replicas-to-write", 0)


def test_a_login_without_the_right_is_told_what_it_lacks(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    """A login without psync is refused with the rights it needs; with exactly those it listens."""
    # Given
    rights = ["+psync", "+replconf", "+info", "+command", "+ping"]
    client.execute_command("ACL", "SETUSER", "auditor", "on", ">x", *rights[1:])
    url = redis_server.url("auditor", "x")

    # Then
    with pytest.raises(ShadowError, match=r"\+psync \+replconf"):
        _stream(url).open()
    with pytest.raises(ShadowError, match="cannot be read"):
        _stream(redis_server.url("nobody", "x")).open()

    # When
    client.execute_command("ACL", "SETUSER", "auditor", rights[0])
    stream = _stream(url)
    stream.open()
    client.set("a", "1")
    stream.drain(5)
    stream.close()
    client.execute_command("ACL", "DELUSER", "auditor")

    # Then
    assert len(stream.changes()) == 1


def test_a_lost_link_is_an_error(joined: tuple[ReplicaStream, Noted], client: redis.Redis) -> None:
    """When production ends the connection, poll says so instead of seeing nothing."""
    # Given
    stream, _ = joined

    # When
    client.client_kill_filter(_type="replica")

    # Then
    with pytest.raises(ShadowError, match="broke off"):
        _wait_until(lambda: not stream.poll())


def _stream(url: str, note: Callable[..., Any] = lambda *_: None, production: str = "") -> ReplicaStream:
    return ReplicaStream(url, production or url, PREFIX, note, b"plc-")


def _wait_until(holds: Callable[[], object], deadline_s: float = 10.0) -> None:
    until = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
