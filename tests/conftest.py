"""What every test may ask for, and rules that hold for the whole session.

A test whose server or browser is missing says ``needs(...)``: on a user's machine it is skipped with the
reason, in CI (``CI`` is set) it fails. And a test session leaves no process behind.

``make test`` plays the suite on two workers (pytest-xdist). A file stays on one worker, so that what its
tests share is started once; what measures, or plays the demo, stays on one worker altogether, so that no two
of those ever take each other's time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

MARKER = "PERFLAB_TEST_SESSION"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 5.0
# the interpreter's own: it ends with the process that imported multiprocessing
INTERPRETERS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# beginnings of what is on one worker altogether: what measures or plays the demo; what installs the same
TOGETHER = {
    "measured": (
        "tests/acceptance/test_bottleneck.py",
        "tests/acceptance/test_demo.py",
        "tests/acceptance/test_isolation.py",
        "tests/acceptance/test_preflight.py",
        "tests/acceptance/test_real_users.py",
        "tests/benchmarks/",
        "tests/cli/shadow/",
        "tests/cli/test_cli_launch.py",
        "tests/demo/",
        "tests/load/",
    ),
    "two versions of SQLAlchemy": ("tests/shadow/sql/test_shadow_sql_pools_sqlalchemy",),
}


def pytest_configure() -> None:
    """Hear Ctrl-C: a suite in the background ignores it, and would hand that down to what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand tests out to workers by file, or by what `TOGETHER` says."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
        def _split_scope(self, nodeid: str) -> str:
            named = (name for name, beginnings in TOGETHER.items() if nodeid.startswith(beginnings))
            return next(named, nodeid.partition("::")[0])

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the session if a process it started, or a descendant of one, is still alive at its end.

    Descendants are known by an environment variable they inherit, so those whose parent died count too.
    Being the first session fixture it is the last to be torn down.
    """
    mark = uuid.uuid4().hex
    outer = os.environ.get(MARKER)
    os.environ[MARKER] = mark
    yield
    if outer is None:
        del os.environ[MARKER]
    else:
        os.environ[MARKER] = outer
    left = _wait_for_none(mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left:
        told = "\n".join(f"  {pid}: {command}" for pid, command in left.items())
        pytest.fail(
            f"the test session left {len(left)} processes behind (now killed):\n{told}", pytrace=False
        )


@pytest.fixture(scope="session")
def needs() -> Callable[[object, str], None]:
    """``needs(found, what)``: skip, or fail in CI, when what the test wants is not on this machine."""

    def check(found: object, what: str) -> None:
        if not found:
            pytest.skip(f"needs {what}")

    return check


@pytest.fixture(scope="session")
def chromium(needs: Callable[[object, str], None]) -> str:
    """Return the path of a Chromium or Chrome."""
    found = next(filter(None, map(shutil.which, BROWSERS)), "")
    needs(found, f"a browser: one of {', '.join(BROWSERS)} on PATH")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI, turn a skip for something missing (reason "needs ...") into a failure."""
    report = yield
    if os.environ.get("CI") and report.skipped and isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        if reason.removeprefix("Skipped: ").startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"{path}:{line}: skipped, but in CI nothing may be missing: {reason}"
    return report


def _wait_for_none(mark: str) -> dict[int, str]:
    deadline = time.monotonic() + PATIENCE_S
    while (left := _descendants(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _descendants(mark: str) -> dict[int, str]:
    """Return pid -> command line of every living process that inherited the session's mark."""
    found = {}
    wanted = f"{MARKER}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            # a zombie has no environment; /proc/*/environ is what the process was started with
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if not any(own in command for own in INTERPRETERS_OWN):
            found[pid] = command
    return found
