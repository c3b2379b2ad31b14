"""A Redis login that can touch nothing but keys and channels with the shadow's prefix.

Made with ``ACL SETUSER``. The user may do what applications do (read, write, transactions, scripts,
subscriptions) and nothing that concerns the server or other clients. A second key pattern, inside the
prefix and without effect, marks the user as made here; users without it are never touched.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from perflab.errors import ShadowError
from perflab.shadow.refusal import try_redis, with_login

if TYPE_CHECKING:
    import redis

_MADE_HERE = "made-by-perflab"
_GROUPS = (
    "-@all", "+@read", "+@write", "+@connection", "+@transaction", "+@pubsub", "+@blocking",
    "-@admin", "-@dangerous",
)  # fmt: skip
# one at a time, since no version of Redis knows all of them
_COMMANDS = (
    "-keys", "-flushall", "-flushdb", "-swapdb", "-function", "-script",
    "+eval", "+evalsha", "+eval_ro", "+evalsha_ro", "+fcall", "+fcall_ro", "+script|load", "+script|exists",
    "+client|setname", "+client|getname", "+client|id", "+client|setinfo", "+command", "+ping",
    "+select", "+time",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PreparedRedis:
    """A Redis login that was proven to be confined to a prefix.

    ``how`` quotes the server's refusals; ``persistent`` says whether the user survives a restart of the
    server (it has an ACL file).
    """

    user: str
    prefix: str
    how: str
    persistent: bool


def prepare_redis(admin_url: str, user: str, password: str, prefix: str) -> PreparedRedis:
    """Make, or make anew, a Redis user confined to a prefix, and see it refused everything else.

    Parameters
    ----------
    admin_url : str
        A login that may run ACL.
    user, password : str
        The shadow login.
    prefix : str
        What shadow keys and channels begin with.

    Returns
    -------
    PreparedRedis

    Raises
    ------
    ShadowError
        If the user exists and was not made here, the server has no ACL (before 6.0), or the user was not
        refused (it is then switched off).
    """
    import redis

    if not prefix or not user or user == "default" or re.search(r"\s", user + prefix):
        raise ShadowError(
            f"a shadow needs a prefix and a user of its own without spaces, not {prefix!r} and {user!r}"
        )
    client = _client(admin_url)
    try:
        _require_ours(client, user, prefix)
        _make_user(client, user, password, prefix)
        refusal = try_redis(_login(admin_url, user, password))
        trouble = "" if refusal.kept_out else refusal.unclear or refusal.how
        trouble = trouble or _use_own_key(_login(admin_url, user, password), prefix)
        if trouble:
            _acl(client, "SETUSER", user, "off")
            raise ShadowError(
                f"the Redis user {user!r} is not confined to {prefix!r} and was switched off: {trouble}"
            )
        persistent = _save(client)
    except (redis.RedisError, OSError) as error:
        raise ShadowError(f"the Redis user {user!r} cannot be made: {error}") from error
    finally:
        client.close()
    return PreparedRedis(user, prefix, refusal.how, persistent)


def drop_redis(admin_url: str, user: str, prefix: str) -> tuple[str, ...]:
    """Remove a shadow user and, in every database of the server, the keys with its prefix.

    Parameters
    ----------
    admin_url, user, prefix : str
        What `prepare_redis` was given. A user that is not there is passed over, and so are the keys then.

    Returns
    -------
    tuple of str
        What was dropped.

    Raises
    ------
    ShadowError
        If the user was not made here, or not for this prefix.
    """
    import redis

    client = _client(admin_url)
    try:
        if not _require_ours(client, user, prefix):
            return ()
        _acl(client, "DELUSER", user)
        _save(client)
        return (f"user {user}", *_drop_keys(client, admin_url, prefix))
    except (redis.RedisError, OSError) as error:
        raise ShadowError(f"the Redis user {user!r} cannot be dropped: {error}") from error
    finally:
        client.close()


def _require_ours(client: redis.Redis, user: str, prefix: str) -> bool:
    """Refuse to touch a user that was not made here for this prefix; return whether it exists."""
    rules = [line.split() for line in map(_text, _acl(client, "LIST")) if line.split()[1] == user]
    if not rules:
        return False
    if f"~{_pattern(prefix)}{_MADE_HERE}" not in rules[0]:
        raise ShadowError(
            f"a Redis user {user!r} exists and was not made by perflab for the prefix {prefix!r};"
            " choose another name for the shadow login"
        )
    return True


def _make_user(client: redis.Redis, user: str, password: str, prefix: str) -> None:
    """Make the user anew; it is off until all its rules stand."""
    import redis

    keys = f"{_pattern(prefix)}*"
    made_here = f"~{_pattern(prefix)}{_MADE_HERE}"
    rules = ["reset", "resetchannels", "off", f">{password}", made_here, f"~{keys}", f"&{keys}", *_GROUPS]
    _acl(client, "SETUSER", user, *rules)
    for rule in _COMMANDS:
        try:
            _acl(client, "SETUSER", user, rule)
        except redis.ResponseError as error:
            if "nknown" not in str(error):
                raise
    _acl(client, "SETUSER", user, "on")


def _use_own_key(login: str, prefix: str) -> str:
    """Write, read and remove a key of the prefix; return what went wrong."""
    import redis

    name = f"{prefix}{_MADE_HERE}:{secrets.token_hex(8)}"
    client = _client(login)
    try:
        client.set(name, "1", px=60_000)
        return "" if client.get(name) == b"1" and client.delete(name) == 1 else "its own keys do not hold"
    except redis.RedisError as error:
        return f"it cannot use its own keys: {error}"
    finally:
        client.close()


def _drop_keys(client: redis.Redis, admin_url: str, prefix: str) -> list[str]:
    done: list[str] = []
    for database in sorted(client.info("keyspace")):
        there = _client(urlsplit(admin_url)._replace(path=f"/{str(database).removeprefix('db')}").geturl())
        try:
            dropped, batch = 0, []
            for key in there.scan_iter(f"{_pattern(prefix)}*", count=1000):
                batch.append(key)
                if len(batch) == 1000:
                    dropped += int(there.unlink(*batch))
                    batch = []
            dropped += int(there.unlink(*batch)) if batch else 0
        finally:
            there.close()
        if dropped:
            done.append(f"{dropped} keys {prefix}* in {database}")
    return done


def _save(client: redis.Redis) -> bool:
    """Write the server's ACL file, if it has one."""
    import redis

    try:
        _acl(client, "SAVE")
    except redis.ResponseError:
        return False
    return True


def _acl(client: redis.Redis, *words: str) -> Any:
    return client.execute_command("ACL", *words)  # type: ignore[no-untyped-call]  # redis-py leaves it so


def _pattern(prefix: str) -> str:
    """Escape what a glob would read into a prefix."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", prefix)


def _login(admin_url: str, user: str, password: str) -> str:
    return with_login(admin_url, f"redis://{quote(user, safe='')}:{quote(password, safe='')}@shadow")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _client(url: str) -> redis.Redis:
    import redis

    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
