"""Classes that stand in for those of a driver written in C."""

from __future__ import annotations

import contextlib
import socket
import sys
from types import ModuleType
from typing import Any

import pytest

from perflab.shadow.sql.dbapi import Classes, Step, beneath, given, replace, with_given


class Own:
    """A driver's class; what we take for one here."""

    level = 1

    def send(self, text: str) -> str:
        """Send."""
        return f"sent {text}"


class Ours:
    """What is ours of it."""

    __slots__ = ()

    def send(self, text: str) -> str:
        return super().send(text.upper())  # type: ignore[misc]  # the driver's class comes next


def stand_in() -> Classes:
    """Make a class that stands in for `Own`."""
    classes = Classes("driver", "sql")
    classes.stand_in(Own, Ours, {}, "_perflab")
    return classes


def test_a_stand_in_is_named_like_what_it_stands_for() -> None:
    """Name, module and documentation are the driver's; ours comes first."""
    made = stand_in().ours["own"]
    assert repr(made) == repr(Own)
    assert (made.__doc__, made.send.__doc__) == (Own.__doc__, "Send.")
    assert made().send("x") == "sent X"
    assert issubclass(made, Own)


def test_the_fence_lies_beneath_a_service_s_own_class() -> None:
    """Also where the class was made before the driver was hooked; one that has it is left alone."""
    # Given
    classes = stand_in()

    class Mine(Own):
        def send(self, text: str) -> str:
            return super().send(f"my {text}")

    class Later(classes.ours["own"]):  # type: ignore[name-defined, misc]  # made at run time
        pass

    # When
    fenced = classes.fenced(Mine, "own")
    # Then
    assert fenced().send("x") == "sent MY X"
    assert repr(fenced) == repr(Mine)
    assert classes.fenced(Mine, "own") is fenced
    assert classes.fenced(Later, "own") is Later
    assert classes.fenced(None, "own") is classes.fenced(Own, "own") is classes.ours["own"]
    assert classes.fenced(lambda: Own(), "own") is None


def test_what_is_laid_out_otherwise_can_have_no_fence() -> None:
    """Such a class is said to have none, instead of failing later."""
    classes = stand_in()

    class Wide(Own):
        __slots__ = ("more",)

    with pytest.raises(TypeError):
        beneath(Wide, classes.ours["own"])
    assert classes.fenced(Wide, "own") is None


def test_a_thing_is_replaced_in_all_modules_of_a_package() -> None:
    """In those of the package and its C part only."""
    modules = {name: ModuleType(name) for name in ("drv", "drv.part", "_drv", "drvother")}
    for module in modules.values():
        module.thing = Own  # type: ignore[attr-defined]  # a module of the test
    sys.modules.update(modules)
    try:
        replace("drv", Own, Ours)
    finally:
        for name in modules:
            del sys.modules[name]
    assert [vars(module)["thing"] for module in modules.values()] == [Ours, Ours, Ours, Own]


@pytest.mark.parametrize("arguments", [(1, 2), (1,), ()])
def test_arguments_however_they_were_given(arguments: tuple[Any, ...]) -> None:
    """Read and replaced by position or by name."""
    options = {"second": 2} if len(arguments) < 2 else {}
    assert given(arguments, options, 1, "second") == 2
    placed, named = with_given(arguments, options, 1, "second", 3)
    assert given(placed, named, 1, "second") == 3
    assert len(placed) == len(arguments)


def test_a_lost_connection_is_closed() -> None:
    """Where a driver has no error of its own for it, the language's is raised."""
    with contextlib.closing(socket.socket()) as connection:
        assert isinstance(Step.lose(connection), ConnectionError)
        assert connection.fileno() == -1
