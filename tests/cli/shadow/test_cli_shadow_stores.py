"""Which store is meant, and logins by reference."""

from __future__ import annotations

import argparse

import pytest

from perflab.cli.shadow._stores import (
    add_login_arguments,
    ask,
    choose_store,
    choose_stores,
    read_login,
    require_login,
)
from perflab.config import Secret, Store, Target
from perflab.errors import ConfigError

STORES = tuple(Store(name, "redis", "redis://10.0.0.5/0", Secret(env="X")) for name in ("a", "b"))


def target(*stores: Store) -> Target:
    return Target(addresses=("127.0.0.1:9",), control="c", control_key=Secret(env="X"), stores=stores)


def test_one_store_may_be_left_unnamed():
    """Several may not."""
    assert choose_store(target(*STORES), "b").name == "b"
    assert choose_store(target(*STORES[:1]), None).name == "a"
    assert [store.name for store in choose_stores(target(*STORES), None)] == ["a", "b"]
    for stores, name, message in (
        (STORES, None, "there are: a, b"),
        (STORES, "c", "no store 'c' in that target; there are: a, b"),
        ((), None, "has no stores"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose_store(target(*stores), name)


def test_logins_are_given_by_reference(monkeypatch, tmp_path):
    """By a variable's name or a file's path, one of both."""
    parser = argparse.ArgumentParser()
    add_login_arguments(parser, "admin", "a login")
    monkeypatch.setenv("THE_URL", "redis://one")
    (tmp_path / "url").write_text("redis://two\n")
    assert read_login(parser.parse_args([]), "admin") == ""
    assert read_login(parser.parse_args(["--admin-env", "THE_URL"]), "admin") == "redis://one"
    assert read_login(parser.parse_args(["--admin-file", str(tmp_path / "url")]), "admin") == "redis://two"
    with pytest.raises(ConfigError, match="why it is: give it with --admin-env VAR or --admin-file FILE"):
        require_login(parser.parse_args([]), "admin", "why it is")
    with pytest.raises(SystemExit):
        parser.parse_args(["--admin-env", "THE_URL", "--admin-file", "x"])


def test_nobody_is_asked_without_a_terminal():
    """The answer is no."""
    assert ask("do it?", ("y",)) == ""
