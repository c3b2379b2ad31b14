"""An attribute that is another one for marked work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from perflab.shadow import scope
from perflab.shadow.twosided import split


@contextmanager
def marked() -> Iterator[None]:
    token = scope.enter(scope.Shadow(1, "token", 1))
    try:
        yield
    finally:
        scope.leave(token)


class Library:
    def __init__(self, things: list[str]) -> None:
        self.things = things


@pytest.fixture
def library() -> type[Any]:
    fresh = type("Library", (Library,), {})
    split(fresh, "things", lambda _, ordinary: [f"twin of {len(ordinary)}"])
    return fresh


def test_each_side_has_its_value(library: type[Any]):
    """Marked work finds the twin, always the same one; ordinary work the value that was given."""
    # Given
    made = library(["a", "b"])
    # When
    made.things.append("c")
    with marked():
        made.things.append("marked")
        seen, again = made.things, made.things
    # Then
    assert seen is again
    assert seen == ["twin of 3", "marked"]
    assert made.things == ["a", "b", "c"]
    assert vars(made)["things"] is made.things


def test_a_value_set_by_marked_work_is_never_its_own(library: type[Any]):
    """Marked work that makes the object, or sets the value, works on the twin of it like anybody marked."""
    shared = ["global"]
    with marked():
        made = library(shared)
        made.things.append("x")
        assert made.things == ["twin of 1", "x"]
    assert made.things is shared
    assert shared == ["global"]


def test_a_new_value_has_a_new_twin(library: type[Any]):
    """Once the value is replaced its old twin is gone; a deleted one is gone for both."""
    made = library([])
    with marked():
        made.things.append("old")
    made.things = ["new"]
    with marked():
        assert made.things == ["twin of 1"]
    del made.things
    with pytest.raises(AttributeError):
        print(made.things)
    with marked(), pytest.raises(AttributeError):
        print(made.things)


def test_threads_share_one_twin(library: type[Any]):
    """However many ask at once, one twin is made."""
    made = library([])
    begin = threading.Barrier(8)
    found: list[Any] = []

    def ask() -> None:
        with marked():
            begin.wait()
            found.append(made.things)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(twin) for twin in found}) == 1


def test_what_a_class_keeps_itself_is_not_split():
    """A library that changed and keeps the attribute in its class is said to be one."""
    with pytest.raises(TypeError, match=r"Kept\.things is not set by the instances"):
        split(type("Kept", (), {"things": []}), "things", lambda _, ordinary: ordinary)
