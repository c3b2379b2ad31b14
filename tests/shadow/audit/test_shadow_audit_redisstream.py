"""The replication stream's bytes, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ShadowError
from perflab.shadow.audit.redisstream import Block, Blocks, CommandParser, Write, read_write
from perflab.shadow.rediskeys import KeySpec

commands = st.lists(st.lists(st.binary(max_size=12), min_size=1, max_size=4).map(tuple), max_size=6)


def encode(*words: bytes) -> bytes:
    """Write a command as a master sends it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


@given(commands, st.lists(st.integers(1, 40), max_size=20))
def test_commands_are_the_same_however_they_arrive(sent: list[tuple[bytes, ...]], sizes: list[int]) -> None:
    """Any cut of the bytes gives the same commands at the same positions."""
    # Given
    stream = b"".join(encode(*words) for words in sent)
    ends = [len(b"".join(encode(*words) for words in sent[: count + 1])) for count in range(len(sent))]
    parser, found = CommandParser(), []

    # When
    at = 0
    for size in [*sizes, len(stream)]:
        found += parser.feed(stream[at : at + size])
        at += size

    # Then
    assert found == list(zip(sent, ends, strict=True))
    assert parser.consumed == len(stream)


@pytest.mark.parametrize("place", [0, 262_100, 262_140, 300_000, 499_000])
@pytest.mark.parametrize("piece", [1000, 65_536, 600_000])
def test_a_long_argument_keeps_its_head_and_the_needle(place: int, piece: int) -> None:
    """Of half a megabyte 256 KiB and the needle's neighbourhood are kept, and nothing after it is lost."""
    # Given
    needle = b"plc-run-0123456789abcdef"
    value = b"a" * place + needle + b"-tail" + b"b" * (500_000 - place)
    stream = encode(b"SET", b"k", value) + encode(b"PING")
    parser, found = CommandParser(needle), []

    # When
    for at in range(0, len(stream), piece):
        found += parser.feed(stream[at : at + piece])

    # Then
    (set_command, _), (ping, end) = found
    assert needle + b"-tail" in set_command[2]
    assert len(set_command[2]) < 263_000
    assert (ping, end) == ((b"PING",), len(stream))


def test_keepalives_between_commands_are_passed_over_and_counted() -> None:
    """Empty lines are part of the position but are no command."""
    parser = CommandParser()
    assert parser.feed(b"\n\n" + encode(b"PING")) == [((b"PING",), 16)]


@pytest.mark.parametrize("rubbish", [b"+OK\r\n", b"*x\r\n", b"*1\r\n:1\r\n", b"*1\r\n$x\r\n"])
def test_what_a_master_never_sends_is_refused(rubbish: bytes) -> None:
    """Rubbish is an error, not a command."""
    with pytest.raises(ShadowError):
        CommandParser().feed(rubbish)


def test_blocks_follow_select_multi_and_exec() -> None:
    """Commands of a MULTI are one block; those that change nothing are none."""
    # Given
    noted: list[str] = []
    blocks = Blocks({}, lambda write, words: noted.append(write.name))
    stream = [
        (b"SET", b"a", b"1"),
        (b"SELECT", b"3"),
        (b"ping",),
        (b"MULTI",),
        (b"incr", b"b"),
        (b"LPOP", b"q"),
        (b"EXEC",),
        (b"MULTI",),
        (b"EXEC",),
        (b"REPLCONF", b"GETACK", b"*"),
        (b"DEL", b"a", b"c"),
    ]

    # When
    found = [block for number, words in enumerate(stream) if (block := blocks.feed(words, number))]

    # Then
    assert found == [
        Block(-1, (Write("SET", ("a",), False, False),), 0),
        Block(3, (Write("INCR", ("b",), False, False), Write("LPOP", ("q",), False, False)), 6),
        Block(3, (Write("DEL", ("a", "c"), False, True),), 10),
    ]
    assert noted == ["SET", "INCR", "LPOP", "DEL"]


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("SET a 1", ["a"]),
        ("MSET a 1 b 2", ["a", "b"]),
        ("RENAME a b", ["a", "b"]),
        ("SORT a BY w STORE b", ["b"]),
        ("GEORADIUS g 1 2 3 m STORE d", ["d"]),
        ("ZUNIONSTORE d 2 a b", ["a", "b", "d"]),
        ("XGROUP CREATE s g 0", ["s"]),
        ("PUBLISH news hello", ["news"]),
        ("FLUSHALL", ["*"]),
        ("FLUSHDB ASYNC", ["*"]),
        ("SWAPDB 0 1", ["*"]),
        ("MYMODULE.WRITE x k", ["k"]),
        ("NEVERHEARD k v", ["k"]),
    ],
)
def test_a_commands_keys_are_those_it_changes(words: str, keys: list[str]) -> None:
    """Keys come from what is known of the command, then from the server's table, then the first argument."""
    table = {"MYMODULE.WRITE": KeySpec(2, 2, 1, False)}
    found = read_write(words.encode().split(), table)
    known = keys if not words.startswith("MYMODULE") else ["x"]
    assert sorted(found.keys) in (sorted(keys), sorted(known))


def test_keys_that_are_no_text_keep_their_bytes() -> None:
    """Bytes that are no UTF-8 become surrogates, as in the agents' claims."""
    found = read_write((b"SET", b"\xff\xc3\xa4", b"1"), {})
    assert found.keys == ("\udcffä",)
    assert found.keys[0].encode("utf-8", "surrogateescape") == b"\xff\xc3\xa4"
