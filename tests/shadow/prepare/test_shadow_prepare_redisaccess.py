"""Redis users confined to a prefix, on a real server."""

from __future__ import annotations

import pytest
import redis

from perflab.demo.stores import RedisServer
from perflab.errors import ShadowError
from perflab.shadow.prepare import drop_redis, prepare_redis

PASSWORD = "a pass:word@/?"


def test_the_redis_user_reaches_its_prefix_only(redis_server: RedisServer) -> None:
    """Keys, scripts, channels and dangerous commands outside the prefix are refused."""
    # When
    made = prepare_redis(redis_server.admin_url, "shadow*user", PASSWORD, "p:[1]*:")

    # Then
    assert "NOPERM" in made.how or "no permissions" in made.how.lower()
    client = _redis_login(redis_server, "shadow*user")
    client.set("p:[1]*:a", "1")
    assert client.eval("return redis.call('GET', KEYS[1])", 1, "p:[1]*:a") == b"1"
    with client.pipeline(transaction=True) as pipeline:
        assert pipeline.incr("p:[1]*:a").rpush("p:[1]*:q", "x").execute() == [2, 1]
    assert client.blpop(["p:[1]*:q"], timeout=1) == (b"p:[1]*:q", b"x")
    for refused in (
        lambda: client.set("a", "1"),
        lambda: client.set("p:1x:a", "1"),
        lambda: client.get("a"),
        lambda: client.publish("news", "x"),
        lambda: client.execute_command("RENAME", "p:[1]*:a", "a"),
        lambda: client.flushdb(),
        lambda: client.keys("*"),
        lambda: client.config_get("*"),
        lambda: client.execute_command("SCRIPT", "FLUSH"),
        lambda: client.execute_command("ACL", "LIST"),
        lambda: client.execute_command("CLIENT", "KILL", "TYPE", "normal"),
        lambda: client.info(),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            refused()
    with pytest.raises(redis.ResponseError, match=r"(?i)noperm|can't access|permission"):
        client.eval("return redis.call('SET', KEYS[1], '1')", 1, "a")
    with pytest.raises(redis.ResponseError, match=r"(?i)noperm|can't access|permission"):
        client.eval("return redis.call('SET', 'a', '1')", 0)
    client.close()
    drop_redis(redis_server.admin_url, "shadow*user", "p:[1]*:")


def test_dropping_the_redis_user_takes_its_keys_along(redis_server: RedisServer) -> None:
    """The user and its keys in all databases go, others' keys stay; preparing again is allowed before."""
    # Given
    admin = redis.Redis.from_url(redis_server.admin_url)
    for password in ("first", PASSWORD):
        prepare_redis(redis_server.admin_url, "dropped", password, "d:")
    admin.set("dear", "1")
    for database in (0, 3):
        client = _redis_login(redis_server, "dropped", database)
        client.mset({"d:1": "1", "d:2": "2"})
        client.close()

    # When
    done = drop_redis(redis_server.admin_url, "dropped", "d:")

    # Then
    assert done == ("user dropped", "2 keys d:* in db0", "2 keys d:* in db3")
    assert admin.get("dear") == b"1"
    assert "dropped" not in admin.acl_users()
    assert drop_redis(redis_server.admin_url, "dropped", "d:") == ()
    admin.delete("dear")
    admin.close()


def test_a_redis_user_of_somebody_is_not_touched(redis_server: RedisServer) -> None:
    """Neither made anew nor dropped; and the default user and an empty prefix are refused."""
    for call in (
        lambda: prepare_redis(redis_server.admin_url, "admin", "x", "p:"),
        lambda: drop_redis(redis_server.admin_url, "admin", "p:"),
        lambda: prepare_redis(redis_server.admin_url, "default", "x", "p:"),
        lambda: prepare_redis(redis_server.admin_url, "someone", "x", ""),
    ):
        with pytest.raises(ShadowError):
            call()


def _redis_login(server: RedisServer, user: str, database: int = 0) -> redis.Redis:
    return redis.Redis(server.host, server.port, database, username=user, password=PASSWORD)
