"""What the tests of faults do and expect, whatever the database: the stage knows which it is."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from attached_service import Service, allow_pauses, wait_for
from isolation import inside
from two_sides import TestRun

from perflab.config import Target
from perflab.demo.scratch import scratch_directory
from perflab.demo.stores import Store
from perflab.shadow.control import ControlPublisher


class Oracle(Protocol):
    """Knows what happened in production that no ordinary transaction did."""

    def check(self) -> list[str]: ...


class Stage(Protocol):
    """A production, its shadow on a server of its own, and an attached process that works on them."""

    shadow: Store
    target: Target
    publisher: ControlPublisher
    oracle: Any
    service: Service
    vias: Sequence[str]
    via: str

    def begin_run(self) -> TestRun: ...
    def in_shadow(self, text: str) -> list[Any]: ...
    def work(self, mark: dict[str, Any] | None, via: str = ..., **script: Any) -> dict[str, Any]: ...
    def end_shadow_sessions(self) -> None: ...


def expect_isolated(stage: Stage, run: TestRun) -> None:
    """See work of both sides done, by every way to the database; production shows ordinary work alone."""
    for via in stage.vias:
        assert stage.work(run.mark(), via)["done"] == {"marked insert": 1}, via
    expect_ordinary_served(stage)


def expect_refused(stage: Stage, mark: dict[str, Any]) -> None:
    """See no marked work done, by any way; ordinary work is; and production shows ordinary work alone."""
    for via in stage.vias:
        told = stage.work(mark, via)
        assert told["done"] == {}, via
        assert told["errors"], via
    expect_ordinary_served(stage)


def expect_ordinary_served(stage: Stage) -> None:
    """See ordinary work done, by every way; and production shows ordinary work alone."""
    for via in stage.vias:
        told = stage.work(None, via)
        assert (told["done"], told["errors"]) == ({"ordinary insert": 1}, {}), via
    assert stage.oracle.check() == []


def expect_to_go_on(stage: Stage, run: TestRun) -> None:
    """See shadow work done again, soon."""
    wait_for(lambda: all(stage.work(run.mark(), via)["done"] for via in stage.vias), "shadow work goes on")


def stop_shadow(stage: Stage, run: TestRun) -> None:
    """Stop the shadow's server while pools hold connections to it, and start it again."""
    stage.shadow.stop()
    expect_refused(stage, run.mark())
    stage.shadow._fixed_port = stage.shadow.port
    stage.shadow.start()
    expect_to_go_on(stage, run)


def take_rights(stage: Stage, run: TestRun, fault: str, mending: str) -> None:
    """Take something from the shadow's login, and end its sessions, so that every pool connects anew.

    Parameters
    ----------
    stage, run
        The stage, and the run that suffers it.
    fault, mending : str
        Statements that take it away and give it back.
    """
    for text in fault.split(";"):
        stage.in_shadow(text)
    stage.end_shadow_sessions()
    try:
        expect_refused(stage, run.mark())
    finally:
        for text in mending.split(";"):
            stage.in_shadow(text)
    expect_to_go_on(stage, run)


def hide_control(stage: Stage, run: TestRun) -> None:
    """Take the list of live runs away: without a fresh one no mark is believed, soon."""
    mark = run.mark()
    control = Path(stage.target.control)
    aside = control.with_suffix(".aside")
    stage.publisher._closed.set()  # the controller stops publishing, as when it dies
    stage.publisher._thread.join()
    stage.service.call(allow_pauses, False)
    control.rename(aside)
    try:
        wait_for(lambda: stage.work(mark)["done"] == {}, "the list is stale", 8.0)
        expect_refused(stage, mark)
    finally:
        aside.rename(control)
        stage.publisher._closed.clear()
        stage.publisher._thread = threading.Thread(target=stage.publisher._republish, daemon=True)
        stage.publisher._thread.start()
        stage.publisher.publish()
        stage.service.call(allow_pauses, True)
    expect_to_go_on(stage, run)


def break_hook(stage: Stage, run: TestRun, name: str) -> None:
    """Have a decision of the agent raise: connecting as marked work fails, nothing is sent anywhere."""
    stage.end_shadow_sessions()
    stage.service.call(inside.break_decision, name)
    try:
        told = stage.work(run.mark(), stage.via)
        assert told["done"] == {}
        assert "broken on purpose" in str(told["errors"])
        expect_ordinary_served(stage)
    finally:
        stage.service.call(inside.mend_decision)
    expect_to_go_on(stage, run)


def fill_disk(stage: Stage, run: TestRun, said: str) -> None:
    """Have marked work write more than the disk takes, 2 MB at a time: it fails, and the rest goes on.

    Parameters
    ----------
    stage, run
        The stage, which has a table ``filler`` on a small disk, and the run.
    said : str
        What the server says when it is full.
    """
    told = stage.work(run.mark(), kinds=["fill the disk"] * 4)
    assert told["done"].get("marked fill the disk", 0) < 4
    assert said in str(told["errors"])
    expect_ordinary_served(stage)
    expect_isolated(stage, run)


@contextmanager
def small_disk(needs: Callable[[object, str], None], size: str = "4m") -> Iterator[Path]:
    """Mount a small file system that the servers may write to."""
    with scratch_directory() as scratch:
        disk = scratch.path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "none", disk], check=False
        )
        needs(mounted.returncode == 0, "the right to mount a file system")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
