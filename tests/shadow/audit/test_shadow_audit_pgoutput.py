"""pgoutput messages: literals taken from a server, and encoded ones by a second, naive writer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ShadowError
from perflab.shadow.audit.pgoutput import (
    Begin,
    Commit,
    Decoder,
    RowChange,
    Transaction,
    fingerprint,
    transactions,
)

# read from PostgreSQL 18.1: INSERT INTO a VALUES (1, 'x') into public.a (id int primary key, v text)
BEGIN = b"B\x00\x00\x00\x00\x01\x8b\xcf8\x00\x03\x03\xf6\xed\xf02Z\x00\x00\x02\xf6"
RELATION = (
    b"R\x00\x00@\x01public\x00a\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"
    b"\x00v\x00\x00\x00\x00\x19\xff\xff\xff\xff"
)
INSERT = b"I\x00\x00@\x01N\x00\x02t\x00\x00\x00\x011t\x00\x00\x00\x01x"
COMMIT = b"C\x00\x00\x00\x00\x00\x01\x8b\xcf8\x00\x00\x00\x00\x01\x8b\xcfh\x00\x03\x03\xf6\xed\xf02Z"
# UPDATE of a key, DELETE, and TRUNCATE of two tables, from the same server
KEY_UPDATE = (
    b"U\x00\x00@\x01K\x00\x02t\x00\x00\x00\x011t\x00\x00\x00\x011"
    b"N\x00\x02t\x00\x00\x00\x015t\x00\x00\x00\x011"
)
DELETE = b"D\x00\x00@\x01K\x00\x02t\x00\x00\x00\x015n"
TRUNCATE = b"T\x00\x00\x00\x02\x00\x00\x00@\x01\x00\x00@\x0e"
PART = b"R\x00\x00@\x0epublic\x00part\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"


def test_an_insert_is_one_transaction_with_its_row() -> None:
    """Messages of one INSERT, as the server sent them, are one transaction."""
    # When
    found = list(transactions([BEGIN, RELATION, INSERT, COMMIT]))

    # Then: 0x0303f6edf0325a us after 2000-01-01
    commit_time_ns = (0x000303F6EDF0325A + 946_684_800_000_000) * 1000
    assert found == [Transaction(758, commit_time_ns, (RowChange("public.a", "insert", ("1", "x")),))]


def test_updates_deletes_and_truncations_name_table_and_row() -> None:
    """An update gives the new row, a delete the old key, a truncation every table."""
    # Given
    decoder = Decoder()
    for message in (RELATION, PART):
        assert decoder.feed(message) == []

    # When
    found = [event for message in (KEY_UPDATE, DELETE, TRUNCATE) for event in decoder.feed(message)]

    # Then
    assert found == [
        RowChange("public.a", "update", ("5", "1")),
        RowChange("public.a", "delete", ("5", None)),
        RowChange("public.a", "truncate", ()),
        RowChange("public.part", "truncate", ()),
    ]


def test_begin_and_commit_tell_the_position() -> None:
    """The commit record's position stands in both."""
    # When
    begin, commit = Decoder().feed(BEGIN)[0], Decoder().feed(COMMIT)[0]

    # Then
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert begin.commit_lsn == commit.commit_lsn == 0x018BCF38
    assert commit.end_lsn == 0x018BCF68
    assert begin.commit_time_ns == commit.commit_time_ns


def test_origins_types_and_messages_are_passed_over() -> None:
    """What changes no row gives no event."""
    # Given
    origin = b"O" + bytes(8) + b"subscription\x00"
    type_ = b"Y\x00\x00\x40\x02public\x00mood\x00"
    message = b"M\x01" + bytes(8) + b"prefix\x00\x00\x00\x00\x02hi"

    # Then
    assert [Decoder().feed(item) for item in (origin, type_, message)] == [[], [], []]


@pytest.mark.parametrize("message", [INSERT, b"Zwhat", b"", b"S\x00\x00\x00\x01\x01"])
def test_what_is_no_message_of_version_1_is_refused(message: bytes) -> None:
    """An undescribed relation and unknown kinds are errors, not silence."""
    with pytest.raises(ShadowError):
        Decoder().feed(message)


@pytest.mark.parametrize("message", [BEGIN, RELATION, INSERT, COMMIT, KEY_UPDATE, DELETE, TRUNCATE])
def test_a_message_cut_short_is_refused(message: bytes) -> None:
    """Wherever a message is cut, it is refused or reads as something with fewer columns, never crashes."""
    # Given
    for end in range(1, len(message)):
        decoder = Decoder()
        decoder.feed(RELATION)
        decoder.feed(PART)

        # Then
        if message is RELATION:
            continue  # a relation's columns are not read
        with pytest.raises(ShadowError):
            decoder.feed(message[:end])


values = st.one_of(
    st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
)
rows = st.lists(values, min_size=1, max_size=5)
operations = st.sampled_from(["insert", "update", "delete"])


@given(st.lists(st.lists(st.tuples(operations, rows), min_size=1, max_size=4), max_size=4))
def test_what_a_naive_writer_encodes_is_decoded(written: list[list[tuple[str, list[str | None]]]]) -> None:
    """Any rows survive encoding by a writer made from the manual's table."""
    # Given
    messages = [b"R" + struct.pack(">I", 7) + b"shop\0Orders\0f" + struct.pack(">h", 0)]
    for xid, changes in enumerate(written, start=1):
        messages.append(b"B" + struct.pack(">qqI", xid * 100, xid, xid))
        for operation, row in changes:
            body = struct.pack(">h", len(row))
            for value in row:
                raw = None if value is None else value.encode()
                body += b"n" if raw is None else b"t" + struct.pack(">I", len(raw)) + raw
            kind = {"insert": b"I", "update": b"U", "delete": b"D"}[operation]
            old = b"O" + body if operation == "update" else b""
            sign = b"O" if operation == "delete" else b"N"
            messages.append(kind + struct.pack(">I", 7) + old + sign + body)
        messages.append(b"C\0" + struct.pack(">qqq", xid * 100, xid * 100 + 8, xid))

    # When
    found = list(transactions(messages))

    # Then
    assert [
        [(change.operation, list(change.values)) for change in transaction.changes] for transaction in found
    ] == written
    assert [transaction.xid for transaction in found] == list(range(1, len(written) + 1))


def test_a_fingerprint_adds_up_and_sorts() -> None:
    """Rows of one table and operation are added up, schema and case dropped, nothing stays nothing."""
    assert (
        fingerprint(
            [
                ("public.Stock", "update", 1),
                ("orders", "insert", 2),
                ("stock", "update", 2),
                ("x", "delete", 0),
            ]
        )
        == '[["orders","insert",2],["stock","update",3]]'
    )
    assert fingerprint([]) == "[]"
