"""What a controller signs: by the first key, checked with each, told apart by its kind."""

from __future__ import annotations

import pytest

from perflab.errors import ConfigError
from perflab.shadow.signing import keys_of, opened, signed


def test_what_is_signed_is_opened_by_every_line_of_a_key():
    """The first line signs; a process that knows it, on whichever line, believes it and says which it was."""
    content = signed("list", {"a": 1}, b"new\nold\n")
    assert opened("list", content, b"new") == ({"a": 1}, b"new")
    assert opened("list", content, b" old \n\n new ") == ({"a": 1}, b"new")
    with pytest.raises(ConfigError, match="list is not signed with this control key"):
        opened("list", content, b"old")


def test_one_kind_is_not_taken_for_another():
    """A signed list is no kill file."""
    with pytest.raises(ConfigError, match="kill file"):
        opened("kill file", signed("list", {}, b"k"), b"k")


def test_the_keys_of_a_control_key():
    """One a line; empty lines are none; a key without any is itself."""
    assert keys_of(b"a\r\n\n  b \n") == (b"a", b"b")
    assert keys_of(b"") == (b"",)
