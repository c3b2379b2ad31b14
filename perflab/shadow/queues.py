"""Queues of Python's library between threads and tasks: items carry the mark (`perflab.shadow.handoff`).

Hooked are `queue.Queue` and ``PriorityQueue``, `queue.SimpleQueue` (by a subclass in its place: it is
written in C) and `asyncio.Queue`. LIFO queues are pools of connections, they are left alone. Queues to other
processes are refused to marked work (`perflab.shadow.processes`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from perflab.shadow import handoff
from perflab.shadow.handoff import Carried


def hook_queue(module: Any) -> None:
    """Have items carry marks through the queues of threads; ``module`` is ``queue``."""
    queue_class, empty = module.Queue, module.Empty
    put, get, size = queue_class.put, queue_class.get, queue_class.qsize

    @functools.wraps(put)
    def attached_put(self: Any, item: Any, *arguments: Any, **options: Any) -> None:
        put(self, item if _is_lifo(self) else handoff.put(self, item), *arguments, **options)

    @functools.wraps(get)
    def attached_get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if _is_lifo(self):
            return get(self, block, timeout)
        if block and timeout is None:
            handoff.may_wait(self)
        try:
            item = get(self, block, timeout)
        except _EndOfBatch:
            raise empty from None
        except empty:
            handoff.found_empty(self)
            raise
        return handoff.taken(self, item)

    class _EndOfBatch(empty):  # type: ignore[misc, valid-type]  # mypy sees a variable
        pass

    def ending(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def attached(self: Any) -> Any:
            if handoff.ends_batch(self, self.queue):
                raise _EndOfBatch
            return method(self)

        return attached

    @functools.wraps(size)
    def attached_size(self: Any) -> int:
        found: int = size(self)
        if not found or _is_lifo(self):
            return found
        with self.mutex:
            return handoff.visible(
                self, self.queue, self._qsize(), ordered=not isinstance(self, module.PriorityQueue)
            )

    queue_class.put, queue_class.get, queue_class.qsize = attached_put, attached_get, attached_size
    queue_class.empty = functools.wraps(queue_class.empty)(lambda self: not attached_size(self))
    queue_class._get = ending(queue_class._get)
    module.PriorityQueue._get = ending(module.PriorityQueue._get)
    module.SimpleQueue = _carrying(module)


def _carrying(module: Any) -> type:
    """Return a `queue.SimpleQueue` whose items carry marks."""
    simple = module.SimpleQueue
    put, get, empty = simple.put, simple.get, module.Empty

    class SimpleQueue(simple):  # type: ignore[misc, valid-type]  # as above
        __doc__ = simple.__doc__

        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            put(self, handoff.put(self, item), block, timeout)

        def put_nowait(self, item: Any) -> None:
            put(self, handoff.put(self, item), False)

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            try:
                item = get(self, block, timeout)
            except empty:
                handoff.found_empty(self)
                raise
            return handoff.taken(self, item)

        def get_nowait(self) -> Any:
            return self.get(False)

    SimpleQueue.__module__, SimpleQueue.__qualname__ = simple.__module__, simple.__qualname__
    return SimpleQueue


def hook_asyncio_queues(module: Any) -> None:
    """Have items carry marks through the queues of tasks; ``module`` is ``asyncio.queues``."""
    queue_class = module.Queue
    put_nowait, get_nowait, is_empty = queue_class.put_nowait, queue_class.get_nowait, queue_class.empty
    size = queue_class.qsize

    @functools.wraps(put_nowait)
    def attached_put(self: Any, item: Any) -> None:
        put_nowait(self, item if _is_lifo(self) else handoff.put(self, item))

    @functools.wraps(get_nowait)
    def attached_get_nowait(self: Any) -> Any:
        if _is_lifo(self):
            return get_nowait(self)
        try:
            item = get_nowait(self)
        except module.QueueEmpty:
            if is_empty(self):  # else it was the end of a batch
                handoff.found_empty(self)
            raise
        if isinstance(item, Carried) and handoff.would_lose_mark(item) and _is_task_of(attached_get):
            handoff.put_aside(item)
            raise _PutAside
        return handoff.taken(self, item)

    get = queue_class.get

    @functools.wraps(get)
    async def attached_get(self: Any) -> Any:
        handoff.may_wait(self)
        while True:
            try:
                return await get(self)
            except _PutAside:
                self.task_done()

    @functools.wraps(size)
    def attached_size(self: Any) -> int:
        ordered = not isinstance(self, module.PriorityQueue)
        return (
            size(self) if _is_lifo(self) else handoff.visible(self, self._queue, size(self), ordered=ordered)
        )

    queue_class.put_nowait, queue_class.get_nowait = attached_put, attached_get_nowait
    queue_class.get, queue_class.qsize = attached_get, attached_size
    queue_class.empty = functools.wraps(is_empty)(lambda self: not attached_size(self))
    _gets.append((attached_get, is_empty))


class _PutAside(Exception):  # noqa: N818 - ends one turn, is no error
    """The item was put aside; there may be another."""


_gets: list[tuple[Any, Callable[[Any], bool]]] = []


def hook_wait_for(module: Any) -> None:
    """Take from a queue in the task that waits, not in one of its own; ``module`` is ``asyncio.tasks``.

    Before Python 3.12 `asyncio.wait_for` makes a task for what it waits for, whose context ends with it. From
    3.12 on it does what is done here.
    """
    wait_for = module.wait_for

    @functools.wraps(wait_for)
    async def attached(fut: Any, timeout: float | None) -> Any:
        code = getattr(fut, "cr_code", None)
        if code is None or timeout is None or timeout <= 0 or fut.cr_frame is None:
            return await wait_for(fut, timeout)
        for get, is_empty in _gets:
            if code is get.__code__:
                import asyncio  # this is part of it; when it was hooked it was not there as a whole

                queue = fut.cr_frame.f_locals["self"]
                fut.close()
                if not is_empty(queue) and handoff.ends_batch(queue, queue._queue):
                    raise TimeoutError
                try:
                    async with asyncio.timeout(timeout):
                        return await get(queue)
                except TimeoutError:
                    handoff.found_empty(queue)
                    raise
        return await wait_for(fut, timeout)

    package = sys.modules.get("asyncio")
    if package is not None and getattr(package, "wait_for", None) is wait_for:
        package.wait_for = attached  # type: ignore[attr-defined]  # it was imported before
    module.wait_for = attached


def _is_task_of(function: Any) -> bool:
    """Tell whether the running task was made of one call and runs nothing else."""
    import asyncio  # where this is asked it is there

    task = asyncio.current_task()
    return task is not None and getattr(task.get_coro(), "cr_code", None) is function.__code__


def _is_lifo(queue: Any) -> bool:
    """Tell whether a queue is a stack: a pool of connections, urllib3's and redis-py's among them."""
    return "Lifo" in type(queue).__name__ or any("Lifo" in kind.__name__ for kind in type(queue).__mro__)
