"""Where the keys of Redis commands stand, against the server's own opinion; prefixes put on and taken off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perflab.demo.stores import RedisServer
from perflab.shadow.rediskeys import (
    REMOVED,
    KeySpec,
    UnknownKeys,
    changed,
    claimed_keys,
    enveloped,
    family,
    key_positions,
    name_of,
    prefixed,
    read_table,
    restored,
    split,
    waits,
    wrapped,
    written_keys,
)

PREFIX = "perflab:shadow:"
Table = dict[str, KeySpec]


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.admin_url) as made:
        yield made


@pytest.fixture(scope="module")
def table(client: redis.Redis) -> Table:
    connection = client.connection_pool.get_connection()
    connection.send_command("COMMAND")  # redis-py's own method turns the answer round
    made = read_table(connection.read_response())
    client.connection_pool.release(connection)
    return made


KEY = st.text("abk:0", min_size=1, max_size=4)
VALUE = st.text("xyz19", min_size=1, max_size=3)
KEYS = st.lists(KEY, min_size=1, max_size=4)
# one strategy per shape of arguments
SHAPES = {
    "GET INCR TTL LLEN SMEMBERS TYPE DUMP": st.tuples(KEY),
    "SET GETSET APPEND SETNX LPUSH RPUSH SADD PFADD": st.tuples(KEY, VALUE),
    "DEL EXISTS UNLINK MGET TOUCH SINTER SUNION WATCH PFCOUNT": KEYS.map(tuple),
    "RENAME LMOVE SMOVE COPY RPOPLPUSH": st.tuples(KEY, KEY, st.just("LEFT"), st.just("RIGHT")),
    "MSET MSETNX": st.lists(st.tuples(KEY, VALUE), min_size=1, max_size=3).map(lambda pairs: sum(pairs, ())),
    "BLPOP BRPOP BZPOPMIN BZPOPMAX": st.builds(lambda keys: (*keys, "0.1"), KEYS),
    "EVAL EVALSHA": st.builds(lambda keys, more: ("s", str(len(keys)), *keys, *more), KEYS, KEYS),
    "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE": st.builds(
        lambda target, keys: (target, str(len(keys)), *keys), KEY, KEYS
    ),
    "ZUNION ZINTER ZDIFF": st.builds(lambda keys: (str(len(keys)), *keys), KEYS),
    "SINTERSTORE SUNIONSTORE SDIFFSTORE": st.builds(lambda target, keys: (target, *keys), KEY, KEYS),
    "BITOP": st.builds(lambda keys: ("AND", *keys, "x"), KEYS),
    "XREAD": st.builds(lambda keys: ("COUNT", "1", "STREAMS", *keys, *["0"] * len(keys)), KEYS),
    "XREADGROUP": st.builds(
        lambda group, keys: ("GROUP", group, "me", "STREAMS", *keys, *[">"] * len(keys)),
        st.sampled_from(["g", "group"]),
        KEYS,
    ),
    "ZADD HSET HINCRBY SETEX GETRANGE LINSERT": st.tuples(KEY, VALUE, VALUE, VALUE),
    "GEOSEARCHSTORE": st.tuples(KEY, KEY, VALUE, VALUE, VALUE, VALUE, VALUE, VALUE),
}
COMMANDS = st.one_of(
    *(
        st.tuples(st.sampled_from(names.split()), arguments).map(lambda both: (both[0], *both[1]))
        for names, arguments in SHAPES.items()
    )
)
PATIENT = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _fits(words: tuple[str, ...]) -> tuple[str, ...]:
    """Give a command as many arguments as it takes."""
    takes = {"RENAME": 3, "RPOPLPUSH": 3, "COPY": 3, "SMOVE": 4, "SETEX": 4, "HINCRBY": 4, "GETRANGE": 4}
    return words[: takes.get(words[0], len(words))]


@PATIENT
@given(words=COMMANDS.map(_fits))
def test_keys_stand_where_the_server_says(client: redis.Redis, table: Table, words: tuple[str, ...]) -> None:
    """``COMMAND GETKEYS`` of a real server names the same keys."""
    # Given: the server's own answer
    theirs: list[str] = client.execute_command("COMMAND GETKEYS", *words)  # type: ignore[no-untyped-call]
    # Then
    assert sorted(words[at] for at in key_positions(words, table)) == sorted(theirs)


@PATIENT
@given(words=COMMANDS.map(_fits), as_bytes=st.booleans(), lower=st.booleans())
def test_all_keys_and_nothing_else_are_prefixed(
    table: Table, words: tuple[str, ...], as_bytes: bool, lower: bool
) -> None:
    """Text or bytes, upper or lower case: taking the prefix off gives the command back."""
    # Given
    given_words: tuple[Any, ...] = (words[0].lower(), *words[1:]) if lower else words
    if as_bytes:
        given_words = tuple(word.encode() for word in given_words)
    # When
    sent = prefixed(given_words, table, PREFIX)
    # Then
    mark = PREFIX.encode() if as_bytes else PREFIX
    positions = key_positions(words, table)
    assert [at for at, word in enumerate(sent) if word.startswith(mark)] == positions
    assert tuple(word.removeprefix(mark) for word in sent) == given_words


@given(st.lists(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.booleans(), st.floats())))
def test_nothing_odd_slips_through_unprefixed(words: list[Any]) -> None:
    """Whatever is called as a command: it is known and prefixed, or refused."""
    table = {"GET": KeySpec(1, 1, 1, movable=False)}
    try:
        sent = prefixed(words, table, PREFIX)
    except (UnknownKeys, ValueError, IndexError):
        return
    keyless = (
        "SELECT PING ECHO COMMAND MULTI EXEC DISCARD UNWATCH TIME INFO WAIT WAITAOF READONLY READWRITE SCAN"
    )
    assert name_of(sent) in keyless.split()


@pytest.mark.parametrize(
    "words",
    [
        ("AUTH", "admin", "x"),
        ("HELLO", 3, "AUTH", "admin", "x"),
        ("RESET",),
        ("CLIENT", "KILL", "ID", 1),
        ("client", "pause", 1),
        ("CLIENT",),
        (b"SCRIPT", b"FLUSH"),
        ("SCRIPT FLUSH",),
        ("FLUSHALL",),
        ("CONFIG", "SET", "a", "b"),
        ("SORT", "list", "BY", "w_*"),
        ("NOSUCH", "a"),
        ("OBJECT",),
        ("",),
        (),
    ],
)
def test_commands_on_the_server_or_the_login_are_refused(table: Table, words: tuple[Any, ...]) -> None:
    """Marked work may not send them; a connection may log in on its own account."""
    with pytest.raises((UnknownKeys, IndexError)):
        prefixed(words, table, PREFIX)
    if words[:1] in [("AUTH",), ("HELLO",), ("RESET",), ("CLIENT",)]:
        assert prefixed(words, table, PREFIX, upkeep=True) == words


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("KEYS", "cart:*"), ("KEYS", "p[a\\]:cart:*")),
        (("SCAN", 0), ("SCAN", 0, "MATCH", "p\\[a\\]:*")),
        (("SCAN", 0, "MATCH", b"a*", "COUNT", 9), ("SCAN", 0, "MATCH", b"p\\[a\\]:a*", "COUNT", 9)),
        (("PSUBSCRIBE", "a*", "b*"), ("PSUBSCRIBE", "p\\[a\\]:a*", "p\\[a\\]:b*")),
        (("SUBSCRIBE", "a"), ("SUBSCRIBE", "p[a]:a")),
        (("UNSUBSCRIBE", "a", "b"), ("UNSUBSCRIBE", "p[a]:a", "p[a]:b")),
        (("UNSUBSCRIBE",), ("UNSUBSCRIBE",)),
        (("PUBLISH", "a", "m"), ("PUBLISH", "p[a]:a", "m")),
        (("OBJECT ENCODING", "a"), ("OBJECT", "ENCODING", "p[a]:a")),
        (("SCRIPT LOAD", "x"), ("SCRIPT", "LOAD", "x")),
        (("GET", 7), ("GET", "p[a]:7")),
        (("GET", 1.5), ("GET", "p[a]:1.5")),
        (("GET", memoryview(b"a")), ("GET", b"p[a]:a")),
        (("GET", None), ("GET", None)),  # which redis-py refuses to send
        (("XREADGROUP", "GROUP", "streams", "c", "STREAMS", "s", ">"),
         ("XREADGROUP", "GROUP", "streams", "c", "STREAMS", "p[a]:s", ">")),
    ],
)  # fmt: skip
def test_particular_commands(table: Table, words: tuple[Any, ...], sent: tuple[Any, ...]) -> None:
    """Patterns, channels, containers, numbers: by hand, with a prefix that a pattern would misread."""
    if words[0] == "KEYS":
        sent = ("KEYS", "p\\[a\\]:cart:*")
    assert prefixed(words, table, "p[a]:") == sent


def test_containers_of_redis_7_are_read() -> None:
    """There a container's keys stand with its subcommands."""
    # Given: rows as Redis 7 answers them
    create = [b"xgroup|create", -5, [b"write"], 2, 2, 1, [], [], [], []]
    rows = [[b"xgroup", -2, [], 0, 0, 0, [], [], [], [create]], ["get", 2, ["readonly"], 1, 1, 1]]
    # When
    table = read_table(rows)
    # Then
    assert table["GET"] == KeySpec(1, 1, 1, movable=False)
    words = ("XGROUP", "CREATE", "s", "g", "$")
    assert prefixed(words, table, "p:") == ("XGROUP", "CREATE", "p:s", "g", "$")
    with pytest.raises(UnknownKeys):
        prefixed(("XGROUP", "HELP"), table, "p:")


TEXTS = st.text(max_size=20).filter(lambda text: not text.startswith(("perflab", "p:")))
ANSWERS = st.recursive(
    st.one_of(TEXTS, TEXTS.map(str.encode), st.integers(), st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS, inner, max_size=4),
        st.frozensets(TEXTS, max_size=3),
    ),
    max_leaves=12,
)


def _shadow_side(answer: Any) -> Any:
    """Write an answer as the shadow's keys and envelopes would make it."""
    if isinstance(answer, (list, frozenset)):
        return type(answer)(map(_shadow_side, answer))
    if isinstance(answer, dict):
        return {_shadow_side(key): _shadow_side(value) for key, value in answer.items()}
    if isinstance(answer, str):
        return f"p:{answer}" if len(answer) % 2 else wrapped(answer, "head er")
    if isinstance(answer, bytes):
        return b"p:" + answer if len(answer) % 2 else wrapped(answer, "head er")
    return answer


@given(ANSWERS)
def test_answers_are_restored(answer: Any) -> None:
    """Prefixes and envelopes come off at any depth, and nothing else changes."""
    found: list[str] = []
    assert restored(_shadow_side(answer), "p:", found.append) == answer
    assert set(found) <= {"head er"}
    assert restored(answer, "p:", found.append) == answer


def test_envelopes() -> None:
    """Every value of a push is wrapped once, whatever its type."""
    words = enveloped(("RPUSH", "k", "a", b"b", 3, wrapped("c", "first")), "h")
    assert words == (
        "RPUSH",
        "k",
        "perflab-envelope 1 h\na",
        b"perflab-envelope 1 h\nb",
        "perflab-envelope 1 h\n3",
        "perflab-envelope 1 first\nc",
    )


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("SET a 1", ["a"]),
        ("GET a", []),
        ("MSET a 1 b 2", ["a", "b"]),
        ("DEL a b", ["a", "b"]),
        ("BLPOP a b 0", ["a", "b"]),
        ("BZPOPMIN a b 0", ["a", "b"]),
        ("RENAME a b", ["a", "b"]),
        ("BITOP AND dest a b", ["dest"]),
        ("ZUNIONSTORE dest 2 a b", ["a", "b", "dest"]),
        ("EVAL script 1 a arg", ["a"]),
        ("EVAL script 0", []),
        ("XGROUP CREATE s g $", ["s"]),
        ("XREADGROUP GROUP streams me STREAMS a b > >", ["a", "b"]),
        ("SORT list STORE dest", ["dest"]),
        ("SORT list", []),
        ("GEORADIUS g 1 1 1 m STORE a STOREDIST b", ["b"]),
        ("FLUSHDB", ["*"]),
        ("PUBLISH a m", []),
        ("PING", []),
        ("SPOP a", ["a"]),
        ("", []),
    ],
)
def test_keys_an_ordinary_command_writes(words: str, keys: list[str]) -> None:
    """By hand, from the commands' manual."""
    assert written_keys(words.split(" ")) == keys


@pytest.mark.parametrize(
    ("words", "answer", "is_changed"),
    [
        ("SET a 1", True, True),
        ("SET a 1 NX", None, False),
        ("SET a 1 EX 5 XX", None, False),
        ("SET a 1 NX GET", None, True),
        ("SET nx 1", None, True),
        ("GETSET a 1", None, True),
        ("EVAL x 1 a", None, True),
        ("LPOP a", None, False),
        ("BLPOP a 0", None, False),
        ("BLPOP a 0", ["a", "x"], True),
        ("INCR a", 0, True),
    ],
)
def test_an_empty_answer_may_follow_a_change(words: str, answer: Any, is_changed: bool) -> None:
    """Only where the manual says so does no answer mean no change."""
    assert changed(words.split(" "), answer) is is_changed


@pytest.mark.parametrize(
    ("words", "name", "waiting"),
    [
        ("GET product:7", "GET product", False),
        ("BLPOP jobs 0", "BLPOP jobs", True),
        ("LPOP jobs", "LPOP jobs", False),
        ("BRPOPLPUSH a b 0", "BRPOPLPUSH a", True),
        ("XREAD BLOCK 0 STREAMS s $", "XREAD BLOCK", True),
        ("XREAD STREAMS block 0", "XREAD STREAMS", False),
        ("XREADGROUP GROUP block me STREAMS s >", "XREADGROUP GROUP", True),
        ("PING", "PING", False),
        ("EVAL script 1 cart:1", "EVAL cart", False),
    ],
)
def test_names_and_waiting(words: str, name: str, waiting: bool) -> None:
    """A span is named by command and family; a command that waits has none."""
    assert family(words.split(" ")) == name
    assert waits(words.split(" ")) is waiting


def test_a_name_of_two_words_is_split() -> None:
    """As redis-py passes some commands; what is no text is no name."""
    assert split(["OBJECT ENCODING", "a b"]) == ("OBJECT", "ENCODING", "a b")
    assert split([b"object encoding"]) == (b"object", b"encoding")
    assert split([]) == ()
    assert name_of([b"get x"]) == "GET"
    assert name_of([7]) == name_of([]) == name_of([""]) == ""


def test_a_claim_says_of_a_key_that_it_was_only_removed():
    """DEL, UNLINK and GETDEL leave nothing behind; all else may."""
    assert claimed_keys(["del", "a", "b"]) == [f"{REMOVED}a", f"{REMOVED}b"]
    assert claimed_keys(["GETDEL", "a"]) == claimed_keys([b"UNLINK", b"a"]) == [f"{REMOVED}a"]
    assert claimed_keys(["SET", "a", "1"]) == ["a"]
    assert claimed_keys(["GET", "a"]) == []
