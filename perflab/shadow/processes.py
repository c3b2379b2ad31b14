"""Other processes: work that marked work would hand to one loses its mark there, so it is refused.

Refused to marked work are starting a program (`subprocess`, ``os.system``, ``os.exec*``, ``os.posix_spawn*``:
who knows what it writes to), starting a `multiprocessing.Process` other than by fork, tasks for a process
pool, and items for the queues of `multiprocessing`. The preflight names the hole
``<service>: another process``; a scenario that accepts it lets all of them through, unmarked.

A fork is none of these: the child goes on in the same context, with an agent of its own, and stays marked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope
from perflab.shadow.scope import process

STORE = "another process"
"""What refusals and the hole are called."""

_OS = ("system", "execv", "execve", "posix_spawn", "posix_spawnp")


def hook_os(module: Any) -> None:
    """Refuse programs started by ``os`` itself; ``module`` is ``os``."""
    for name in _OS:
        if hasattr(module, name):
            setattr(module, name, _refusing(getattr(module, name), "starting a program"))


def hook_subprocess(module: Any) -> None:
    """Refuse programs; ``module`` is ``subprocess``."""
    module.Popen.__init__ = _refusing(module.Popen.__init__, "starting a program")


def hook_process_executors(module: Any) -> None:
    """Refuse tasks for a pool of processes; ``module`` is ``concurrent.futures.process``."""
    executor = module.ProcessPoolExecutor
    executor.submit = _refusing(executor.submit, "a task for a pool of processes")


def hook_process_start(module: Any) -> None:
    """Refuse processes that begin anew; ``module`` is ``multiprocessing.process``."""
    start = module.BaseProcess.start

    @functools.wraps(start)
    def attached(self: Any) -> None:
        method = getattr(self, "_start_method", None)
        if (method or _default_method()) != "fork":
            refuse("starting a process of its own")
        start(self)

    module.BaseProcess.start = attached


def hook_process_queues(module: Any) -> None:
    """Refuse items for other processes; ``module`` is ``multiprocessing.queues``."""
    for name in ("Queue", "JoinableQueue", "SimpleQueue"):
        kind = getattr(module, name)
        kind.put = _refusing(kind.put, "an item for a queue between processes")


def refuse(what: str) -> None:
    """Refuse to marked work what would lose its mark, unless its run accepts that.

    Raises
    ------
    ShadowError
        If the running work is marked.
    """
    shadow = scope.current()
    if shadow is None or not shadow.tag:
        return
    if f"{process.service}: {STORE}" in process.control.accepted(shadow.tag):
        return
    scope.refuse(STORE, f"{what} would lose the mark", shadow)


def _refusing(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def attached(*arguments: Any, **options: Any) -> Any:
        refuse(what)
        return function(*arguments, **options)

    return attached


def _default_method() -> str:
    import multiprocessing

    return multiprocessing.get_start_method()
