"""Where Python loses the context of the running code: threads and executors. Marked work keeps its mark.

A task handed to a `concurrent.futures.ThreadPoolExecutor` (and so ``loop.run_in_executor``) by marked work
runs as marked work; the executor's own threads, which outlive it, do not. A `threading.Thread` or
``Timer`` started by marked work is marked for its whole life. Ordinary work is untouched.
"""

from __future__ import annotations

import contextvars
import functools
from typing import Any

from perflab.shadow import scope


def hook_threading(module: Any) -> None:
    """Carry the mark into threads that marked work starts."""
    start = module.Thread.start

    @functools.wraps(start)
    def attached(thread: Any) -> None:
        if scope.current() not in (None, scope.IDLE):
            thread.run = functools.partial(contextvars.copy_context().run, thread.run)
        start(thread)

    module.Thread.start = attached


def hook_executors(module: Any) -> None:
    """Carry the mark into tasks that marked work submits; ``module`` is ``concurrent.futures.thread``."""
    submit = module.ThreadPoolExecutor.submit

    @functools.wraps(submit)
    def attached(executor: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
        if scope.current() in (None, scope.IDLE):
            return submit(executor, function, *arguments, **options)
        carried = functools.partial(contextvars.copy_context().run, function)
        return scope.ordinary(functools.partial(submit, executor, carried, *arguments, **options))

    module.ThreadPoolExecutor.submit = attached
