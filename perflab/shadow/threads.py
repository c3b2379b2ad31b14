"""Where Python loses the context of the running code: threads and executors. Marked work keeps its mark.

A task handed to a `concurrent.futures.ThreadPoolExecutor` (and so ``loop.run_in_executor``) or a
`multiprocessing.pool.ThreadPool` by marked work runs as marked work, and so does what it has called when a
future is done; their own threads, which outlive it, do not. A `threading.Thread` or ``Timer`` started by
marked work is marked, until it takes somebody else's work from a queue (`perflab.shadow.handoff`); one that
goes on long after its request ends the run (`perflab.shadow.lingering`).
Tasks, ``call_soon``, ``call_later`` and ``call_soon_threadsafe`` of `asyncio` carry the context themselves.
What goes to other processes is for `perflab.shadow.processes`. Ordinary work is untouched.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from perflab.shadow import lingering, processes, scope

_END = object()
_POOL_METHODS = ("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")


def hook_threading(module: Any) -> None:
    """Carry the mark into threads that marked work starts."""
    start, timer_run = module.Thread.start, module.Timer.run

    @functools.wraps(start)
    def attached(thread: Any) -> None:
        if _is_marked() and not thread.ident:
            waits = isinstance(thread, module.Timer) and type(thread).run is timer_run
            work = "function" if waits else "run"
            setattr(thread, work, _carried(getattr(thread, work), own=True))
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


def hook_futures(module: Any) -> None:
    """Carry the mark into what marked work has called when a future is done.

    ``module`` is ``concurrent.futures._base``.
    """
    add = module.Future.add_done_callback

    @functools.wraps(add)
    def attached(future: Any, fn: Any) -> None:
        add(future, _carried(fn) if _is_marked() else fn)

    module.Future.add_done_callback = attached


def hook_sched(module: Any) -> None:
    """Carry the mark into what marked work has done later, by whatever thread: ``module`` is ``sched``."""
    enter = module.scheduler.enterabs

    @functools.wraps(enter)
    def attached(timetable: Any, time: Any, priority: Any, action: Any, *rest: Any, **options: Any) -> Any:
        done = _carried(action, own=True) if _is_marked() else action
        return enter(timetable, time, priority, done, *rest, **options)

    module.scheduler.enterabs = attached


def hook_thread_functions(module: Any) -> None:
    """Carry the mark into threads that marked work starts by ``_thread`` itself."""
    for name in ("start_new_thread", "start_new"):
        if hasattr(module, name):
            setattr(module, name, _starting(getattr(module, name)))


def _starting(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def attached(function: Any, *arguments: Any) -> Any:
        return start(_carried(function, own=True) if _is_marked() else function, *arguments)

    return attached


def hook_pools(module: Any) -> None:
    """Carry the mark into a ``ThreadPool``, refuse work to a ``Pool``: ``module`` is their home.

    A pool has threads of its own for what goes in and out: they, and so its making and its end, are nobody's.
    """
    pool = module.Pool
    for name in _POOL_METHODS:
        setattr(pool, name, _in_pool(getattr(pool, name), module.ThreadPool))
    for name in ("__init__", "close", "terminate", "__del__"):
        setattr(pool, name, _of_nobody(getattr(pool, name)))


def _in_pool(method: Callable[..., Any], thread_pool: type) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(pool: Any, func: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_marked():
            return method(pool, func, *arguments, **options)
        if not isinstance(pool, thread_pool):
            processes.refuse("a task for a pool of processes")
            return method(pool, func, *arguments, **options)
        given, named = (
            [_carried_by_pool(item) for item in arguments],
            {name: _carried_by_pool(item) for name, item in options.items()},
        )
        return scope.ordinary(functools.partial(method, pool, _carried(func), *given, **named))

    return attached


def _of_nobody(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def attached(pool: Any, *arguments: Any, **options: Any) -> Any:
        if not _is_marked():
            return method(pool, *arguments, **options)
        given = [_carried(item) if callable(item) else item for item in arguments]
        if callable(options.get("initializer")):
            options["initializer"] = _carried(options["initializer"])
        return scope.ordinary(functools.partial(method, pool, *given, **options))

    return attached


def _carried_by_pool(item: Any) -> Any:
    """Return what is handed to a pool so that callbacks, and iterators that are asked later, are marked."""
    if isinstance(item, Iterator):
        step = _carried(lambda: next(item, _END), shared=True)
        return iter(step, _END)
    return _carried(item) if callable(item) and not isinstance(item, Iterable) else item


def _is_marked() -> bool:
    return scope.current() not in (None, scope.IDLE)


def _carried(function: Callable[..., Any], *, own: bool = False, shared: bool = False) -> Callable[..., Any]:
    """Return the function so that each call of it runs in a copy of the context that is running now.

    ``own``: in a thread of its own, which may outlive the request. ``shared``: in the same copy every time.
    """
    context = contextvars.copy_context()
    context.run(scope.forbid)
    called = _noted(function) if own else function
    if own:
        context.run(scope.begin_thread)

    def carried(*arguments: Any, **options: Any) -> Any:
        return (context if shared else context.copy()).run(called, *arguments, **options)

    return carried


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **options: Any) -> Any:
        with lingering.noted(function):
            return function(*arguments, **options)

    return noted
