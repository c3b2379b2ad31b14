"""Where Python loses the context of the running code: threads and executors. Marked work keeps its mark.

A task handed to a `concurrent.futures.ThreadPoolExecutor` (and so ``loop.run_in_executor``) or a
`multiprocessing.pool.ThreadPool` by marked work runs as marked work; their own threads, which outlive it, do
not. A `threading.Thread` or ``Timer`` started by marked work is marked for its whole life. Handing work to
another process would lose the mark: it is refused. Ordinary work is untouched.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any

from perflab.shadow import scope

_POOL_METHODS = ("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")


def hook_threading(module: Any) -> None:
    """Carry the mark into threads that marked work starts."""
    start = module.Thread.start

    @functools.wraps(start)
    def attached(thread: Any) -> None:
        if _is_marked() and not thread.ident:
            thread.run = _carried(thread.run)
        start(thread)

    module.Thread.start = attached


def hook_executors(module: Any) -> None:
    """Carry the mark into tasks that marked work submits; ``module`` is ``concurrent.futures.thread``."""
    submit = module.ThreadPoolExecutor.submit

    @functools.wraps(submit)
    def attached(executor: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
        if not _is_marked():
            return submit(executor, function, *arguments, **options)
        carried = _carried(function)
        return scope.ordinary(functools.partial(submit, executor, carried, *arguments, **options))

    module.ThreadPoolExecutor.submit = attached


def hook_process_executors(module: Any) -> None:
    """Refuse tasks of marked work to other processes; ``module`` is ``concurrent.futures.process``."""
    submit = module.ProcessPoolExecutor.submit

    @functools.wraps(submit)
    def attached(executor: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
        if _is_marked():
            _refuse_process()
        return submit(executor, function, *arguments, **options)

    module.ProcessPoolExecutor.submit = attached


def hook_pools(module: Any) -> None:
    """Carry the mark into a ``ThreadPool``, refuse work to a ``Pool``: ``module`` is their home."""
    for name in _POOL_METHODS:
        setattr(module.Pool, name, _in_pool(getattr(module.Pool, name), module.ThreadPool))


def _in_pool(method: Callable[..., Any], thread_pool: type) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(pool: Any, func: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_marked():
            return method(pool, func, *arguments, **options)
        if not isinstance(pool, thread_pool):
            _refuse_process()
        return method(pool, _carried(func), *arguments, **options)

    return attached


def _is_marked() -> bool:
    return scope.current() not in (None, scope.IDLE)


def _carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function so that each call of it runs in a copy of the context that is running now."""
    context = contextvars.copy_context()
    context.run(scope.forbid)

    def carried(*arguments: Any, **options: Any) -> Any:
        return context.copy().run(function, *arguments, **options)

    return carried


def _refuse_process() -> None:
    scope.refuse("another process", "work handed to another process would lose its mark")
