"""Masks are one-to-one, keyed, and keep the form of what they replace."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ConfigError
from perflab.shadow.prepare.masks import Column, make_mask, permute

TEXT = Column("t.c", "text", nullable=True, unique=False)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 26, 100, 1000])
def test_a_permutation_reaches_everything_once(size: int) -> None:
    """Every number below the size comes out once, in an order that depends on key and tweak."""
    whole = list(range(size))
    for key, tweak in ((b"a", b""), (b"b", b""), (b"a", b"x")):
        assert sorted(permute(n, size, key, tweak) for n in whole) == whole
    if size > 20:
        assert len({tuple(permute(n, size, key) for n in whole) for key in (b"a", b"b")}) == 2


@given(st.lists(st.text(max_size=130), unique=True, max_size=30))
def test_hash_keeps_form_and_uniqueness(values: list[str]) -> None:
    """As long as before, each character of its kind, and different values stay different."""
    mask = make_mask("hash", TEXT, b"key")
    masked = [str(mask(value)) for value in values]
    assert len(set(masked)) == len(values)
    assert [mask(value) for value in values] == masked
    for value, other in zip(values, masked, strict=True):
        assert len(other) == len(value)
        assert [unicodedata.category(c) for c in value] == [unicodedata.category(c) for c in other]


@given(st.integers(-(2**15), 2**15 - 1))
def test_numbers_stay_in_their_type(number: int) -> None:
    """A masked smallint is a smallint with as many digits and the same sign."""
    mask = make_mask("hash", Column("t.c", "smallint", nullable=False, unique=True), b"key")
    masked = int(str(mask(str(number))))
    assert -(2**15) <= masked < 2**15
    assert len(str(masked)) == len(str(number))


def test_all_numbers_of_four_digits_stay_different() -> None:
    """What is unique stays unique where every value is taken."""
    mask = make_mask("hash", Column("t.c", "integer", nullable=False, unique=True), b"key")
    assert {mask(str(n)) for n in range(1000, 10_000)} == {str(n) for n in range(1000, 10_000)}


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("name", "Ada Lovelace-King", r"[A-Z][a-z]{2} [A-Z][a-z]{7}-[A-Z][a-z]{3}"),
        ("name", "王小明 2", r"\w\w\w 2"),
        ("email", "Ada.L@corp.example", r"[A-Z][a-z]{2}\.[A-Z]@[a-z]{4}\.[a-z]{7}\.test"),
        ("phone", "13800138000", r"13\d{9}"),
        ("phone", "+86 138 0013 8000", r"\+86 1\d\d \d{4} \d{4}"),
        ("phone", "110", r"\d{3}"),
        ("digits", "4111-1111-AB", r"\d{4}-\d{4}-AB"),
    ],
)
def test_forms_are_kept(kind: str, value: str, form: str) -> None:
    """Signs, spaces and kinds of characters stay, what they say does not."""
    masked = make_mask(kind, TEXT, b"key")(value)
    assert masked is not None
    assert re.fullmatch(form, masked)
    assert masked != value


@pytest.mark.parametrize(
    ("type_name", "value", "form"),
    [
        ("uuid", "b1946ac9-2492-4d23-90b3-0f5a2c5a3c11", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("numeric(10,2)", "-0120.50", r"-0[1-9]\d\d\.\d\d"),
        ("double precision", "1.25e+20", r"[1-9]\.\d\de\+20"),
        ("bytea", "\\x00ff", r"\\x[0-9a-f]{4}"),
        ("character varying(8)", "abc", r"[a-z]{3}"),
        ("public.citext", "Abc", r"[A-Z][a-z]{2}"),
    ],
)
def test_other_types_are_masked_as_their_server_reads_them(type_name: str, value: str, form: str) -> None:
    """UUIDs, numbers and bytes stay such."""
    column = Column("t.c", type_name, nullable=True, unique=True)
    assert re.fullmatch(form, str(make_mask("hash", column, b"key")(value)))


def test_null_and_fixed() -> None:
    """Nothing, and always the same."""
    assert make_mask("null", TEXT, b"")("x") is None
    assert make_mask("fixed:a:b", TEXT, b"")("x") == "a:b"


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        ("null", Column("t.c", "text", nullable=False, unique=False), "may not be NULL"),
        ("fixed:x", Column("t.c", "text", nullable=True, unique=True), "unique; use 'hash'"),
        ("shuffle", TEXT, "mask 'shuffle'; there are: null"),
        ("hash", Column("t.c", "jsonb", nullable=True, unique=False), "is jsonb: 'hash' is for text"),
        ("hash", Column("t.c", "timestamp with time zone", nullable=True, unique=False), "use 'null'"),
    ],
)
def test_masks_that_cannot_be_are_refused(kind: str, column: Column, message: str) -> None:
    """Before a row is read."""
    with pytest.raises(ConfigError, match=message):
        make_mask(kind, column, b"")


def test_an_address_that_does_not_fit_is_refused() -> None:
    """Masked e-mail addresses end in .test, which takes room."""
    narrow = Column("t.c", "character varying(10)", nullable=True, unique=False, width=10)
    with pytest.raises(ConfigError, match="too narrow"):
        make_mask("email", narrow, b"")("abc@de.org")
