"""Masks: what a sampled value becomes before it is written to a shadow.

Those that keep a form (``hash name email phone digits``) put another character of the same kind in the place
of each one: a small letter for a small letter, a digit for a digit. They are keyed and one-to-one: what is
equal stays equal, so that joins hold, and what is unique stays unique. What they do *not* hide: lengths,
where spaces and signs are, and that two values are equal.

One-to-one comes from a Feistel network (four rounds of HMAC-SHA256) over all texts of one pattern, walked
until it ends inside the pattern's number of texts, as format-preserving encryption does it (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Long values are cut into blocks, each keyed by those
before it.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from perflab.errors import ConfigError

KINDS = ("null", "fixed:VALUE", "hash", "name", "email", "phone", "digits")

_BLOCK = 40
_ROUNDS = 4
_SMALL, _LARGE, _DIGITS, _HEX = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "0123456789abcdef",
)
_FROM_ONE = "123456789"
_LIMITS = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
_NUMBERS = ("numeric", "real", "double precision")
_TEXTS = ("text", "character", "character varying", "citext", "name")
_PHONE_PREFIX = 2

Mask = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Column:
    """What a mask must know of its column; ``name`` has schema and table, ``width`` is a text's limit."""

    name: str
    type_name: str
    nullable: bool
    unique: bool
    width: int | None = None


def make_mask(kind: str, column: Column, key: bytes) -> Mask:
    """Return the function that masks a value of a column, in the server's text form; NULL never reaches it.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    column : Column
        Where it is for.
    key : bytes
        What the replacement depends on.

    Raises
    ------
    ConfigError
        If the kind is unknown or cannot be used for that column.
    """
    if kind == "null":
        if not column.nullable:
            raise ConfigError(f"{column.name} cannot be masked by 'null': it may not be NULL")
        return lambda _: None
    if kind.startswith("fixed:"):
        if column.unique:
            raise ConfigError(
                f"{column.name} cannot be masked by 'fixed:...': its values are unique; use 'hash'"
            )
        return lambda _: kind.removeprefix("fixed:")
    if kind not in KINDS:
        raise ConfigError(f"{column.name} has the mask {kind!r}; there are: {', '.join(KINDS)}")
    form = column.type_name.partition("(")[0].rpartition(".")[2]
    if form in _LIMITS:
        return lambda value: _mask_integer(value, key, _LIMITS[form])
    if form in (*_NUMBERS, "uuid", "bytea"):
        return lambda value: _spell(value, _patterns(value, form), key)
    if form not in _TEXTS:
        raise ConfigError(
            f"{column.name} is {column.type_name}: {kind!r} is for text and numbers; use 'null' or"
            " 'fixed:VALUE'"
        )
    return _text_mask(kind, column, key)


def _text_mask(kind: str, column: Column, key: bytes) -> Mask:
    if kind == "email":
        return lambda value: _mask_email(value, key, column)
    if kind == "phone":
        return lambda value: _mask_phone(value, key)
    if kind == "digits":
        return lambda value: _spell(value, [_DIGITS if c in _DIGITS else c for c in value], key)
    if kind == "name":
        return lambda value: _spell(value, [_kin(c) if c.isalpha() else c for c in value], key)
    return lambda value: _spell(value, [_kin(c) for c in value], key)


def _mask_email(value: str, key: bytes, column: Column) -> str:
    """Replace letters and digits, and end in ``.test``, which no mail ever reaches (RFC 2606)."""
    masked = _spell(value, [_kin(c) for c in value], key) + ".test"
    if column.width is not None and len(masked) > column.width:
        raise ConfigError(
            f"{column.name} is too narrow for a masked e-mail address, which is 5 longer; use 'hash'"
        )
    return masked


def _mask_phone(value: str, key: bytes) -> str:
    """Replace all digits but the first two (three after a plus), which say what kind of number it is."""
    kept = _PHONE_PREFIX + value.startswith("+")
    patterns: list[str] = []
    for character in value:
        digit = character in _DIGITS
        patterns.append(_DIGITS if digit and kept <= 0 else _kin(character) if not digit else character)
        kept -= digit
    if sum(len(pattern) > 1 for pattern in patterns) < len([c for c in value if c in _DIGITS]) / 2:
        patterns = [_kin(character) for character in value]  # too short to keep anything
    return _spell(value, patterns, key)


def _mask_integer(value: str, key: bytes, limit: int) -> str:
    """Replace a number by one of as many digits that its type can hold."""
    sign, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    low = 10 ** (len(digits) - 1) if len(digits) > 1 else 0
    size = min(10 ** len(digits), limit + 1) - low
    number = int(digits)
    if not 0 <= number - low < size:  # only the smallest number of a type is outside its own positive limit
        return value[: len(sign)] + str(limit)
    return f"{sign}{low + permute(number - low, size, key, str(len(digits)).encode())}"


def _patterns(value: str, form: str) -> list[str]:
    """Return what may stand at each place of a number, a UUID or bytes in hexadecimal."""
    if form in _NUMBERS:
        lead = next((i for i, c in enumerate(value) if c in _FROM_ONE), -1)
        exponent = value.lower().find("e") if "e" in value.lower() else len(value)
        return [
            _FROM_ONE if i == lead else _DIGITS if c in _DIGITS and lead < i < exponent else c
            for i, c in enumerate(value)
        ]
    start = 2 if form == "bytea" else 0
    return [_HEX if i >= start and c in _HEX else c for i, c in enumerate(value)]


def _spell(value: str, patterns: Sequence[str], key: bytes) -> str:
    """Replace each character by one of its pattern, all together one-to-one."""
    done: list[str] = []
    places = [i for i, pattern in enumerate(patterns) if len(pattern) > 1]
    spelled = list(value)
    shape = "".join(pattern[0] for pattern in patterns)
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        number, size = 0, 1
        for place in block:
            number = number * len(patterns[place]) + patterns[place].index(value[place])
            size *= len(patterns[place])
        number = permute(number, size, key, f"{shape}|{''.join(done)}".encode())
        done += [value[place] for place in block]
        for place in reversed(block):
            number, digit = divmod(number, len(patterns[place]))
            spelled[place] = patterns[place][digit]
    return "".join(spelled)


def permute(number: int, size: int, key: bytes, tweak: bytes = b"") -> int:
    """Replace a number below ``size`` by another one below it, one-to-one for each key and tweak.

    Parameters
    ----------
    number, size : int
        0 <= number < size.
    key, tweak : bytes
        What the order depends on.

    Examples
    --------
    >>> sorted(permute(n, 10, b"key") for n in range(10)) == list(range(10))
    True
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = number >> half, number & mask
        for turn in range(_ROUNDS):
            message = b"%d|%d|%d|" % (turn, size, right) + tweak
            left, right = right, left ^ (_digest(key, message, half) & mask)
        number = left << half | right
        if number < size:
            return number


def _digest(key: bytes, message: bytes, bits: int) -> int:
    text = b""
    while len(text) * 8 < bits:
        text += hmac.digest(key, b"%d|" % len(text) + message, "sha256")
    return int.from_bytes(text, "big")


@lru_cache(maxsize=4096)
def _kin(character: str) -> str:
    """Return the characters one may be replaced by: itself alone where it is no letter or digit.

    Examples
    --------
    >>> _kin("q")[:3], _kin("7"), _kin("-"), len(_kin("王")) > 200
    ('abc', '0123456789', '-', True)
    """
    for kind in (_SMALL, _LARGE, _DIGITS):
        if character in kind:
            return kind
    if not character.isalnum():
        return character
    page, category = ord(character) & ~0xFF, unicodedata.category(character)
    return "".join(
        c
        for c in map(chr, range(page, page + 256))
        if unicodedata.category(c) == category and c not in _SMALL + _LARGE
    )
