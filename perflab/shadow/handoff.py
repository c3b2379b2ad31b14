"""Work that is handed on through a queue keeps its mark: an item that marked work puts carries it.

A long-lived worker has no request of its own. What it takes from a queue says whose work it does: from one
item to the next it is the work of whoever put that item, marked or ordinary, and that worker's own past (a
thread that a marked request happened to start first) counts for nothing. `perflab.shadow.queues` hooks the
queues of Python's library and asks here.

Decided, and tested:

- A *request* that is being served keeps who it is, whatever it takes from a queue. A real user's request that
  takes what marked work put is counted as a refusal, which ends the run: shadow data has reached a user.
- An *ordinary item* after a marked one is ordinary work, and the other way round. ``task_done`` changes
  nothing: many workers call it before they do the work.
- *Batches*: a worker that goes on taking without waiting (``get_nowait``, a timeout, ``empty``, ``qsize``) is
  told that the queue is empty where the side changes, once; so it does one side's work, then the other's.
  Who gathers a batch of both sides by plain waiting, or from a `queue.SimpleQueue`, is not told apart.
- *Nothing there*: after the first time a worker finds a queue empty it still does that item's work (it may
  write out what it gathered), after the second it is again what it was before its first item.
- *Pools*: things that are taken and put back carry no mark. A LIFO queue is one; so is any queue from which a
  request took what it then put back; and what has a ``cursor`` or ``fileno`` is a connection. Log records
  carry none.
- *Anybody's item*: a thread that marked work started for itself and that takes, first of all, an item without
  a mark may be a worker that got a real user's item, or at a pool of things this file does not know. It goes
  on as ordinary work, and the run is stopped: the two cannot be told apart.
- *Upkeep* of the shadow side (the workers of a twin pool) stays upkeep, and so is what it puts.
- A ``deque`` with a lock around it, and other people's queues in C, are not seen. The audit is behind them.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import weakref
from typing import Any, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span

from perflab.errors import ShadowError
from perflab.shadow import scope
from perflab.shadow.ledger import LOST
from perflab.shadow.scope import Shadow, process

Identity = tuple[Shadow | None, otel_context.Context]


class Carried:
    """An item with the mark of the work that put it; in a priority queue it ranks as the item does."""

    __slots__ = ("item", "shadow", "span")

    def __init__(self, item: Any, shadow: Shadow, span: Span) -> None:
        self.item, self.shadow, self.span = item, shadow, span

    def __lt__(self, other: Any) -> bool:
        return bool(self.item < _bare(other))

    def __gt__(self, other: Any) -> bool:
        return bool(_bare(other) < self.item)


class _Held(NamedTuple):
    """The item a worker is at: of which queue and side, and what the worker was before its first."""

    queue: int
    tag: int
    before: Identity
    bounded: bool = False
    empties: int = 0


class Serving(Protocol):
    """A request on its way through this process."""

    @property
    def under_way(self) -> bool:
        """Whether it is not answered yet."""
        ...


serving: contextvars.ContextVar[Any] = contextvars.ContextVar("perflab_serving", default=None)
"""The request the running context was begun for, a `Serving`; it may be over."""

_held: contextvars.ContextVar[_Held | None] = contextvars.ContextVar("perflab_held", default=None)
_RESOURCES = ("cursor", "fileno", "driver_connection", "getpeername")
_GOT, _POOL, _CARRIES = "_perflab_got", "_perflab_pool", "_perflab_carries"


def in_request() -> bool:
    """Tell whether the running code serves a request, and so is its work whatever it takes."""
    request: Serving | None = serving.get()
    return request is not None and request.under_way and scope.own_thread() is None


def leave_alone(queue: Any) -> None:
    """Have a queue carry no marks: it is a pool, whose things belong to nobody's work."""
    vars(queue)[_POOL] = True


def put(queue: Any, item: Any) -> Any:
    """Return what to put into a queue in the place of an item: itself, or it with the mark it carries.

    Raises
    ------
    ShadowError
        If marked work puts it and the mark cannot be carried.
    """
    try:
        state = vars(queue)
        got = state.get(_GOT)
        if got and got.get(id(item)) is item:
            state[_POOL] = True
        shadow = _whose()
        if shadow is None or _POOL in state or _is_no_work(item):
            return item
        state[_CARRIES] = True
        return Carried(item, shadow, trace.get_current_span())
    except Exception as error:
        if scope.current() is not None:
            raise ShadowError(f"perflab could not mark what is put into a queue: {error!r}") from error
        process.ledger.step_aside("queues: put")
        return item


def taken(queue: Any, item: Any) -> Any:
    """Take an item from a queue: become whose work it is, and return the item itself.

    Raises
    ------
    ShadowError
        If it carries a mark that cannot be taken over.
    """
    try:
        _take(queue, item)
    except Exception as error:
        if isinstance(item, Carried):
            raise ShadowError(f"perflab could not take over the mark of an item: {error!r}") from error
        process.ledger.step_aside("queues: get")
    return _bare(item)


def _fed() -> None:
    thread = scope.own_thread()
    if thread is not None:
        thread.fed = True


def _take(queue: Any, item: Any) -> None:
    _fed()
    held, carried = _held.get(), item if isinstance(item, Carried) else None
    if in_request():
        _note_got(queue, _bare(item))
        if carried is not None and scope.current() is None:
            why = "a request of a real user took from a queue what shadow work had put there"
            process.ledger.refuse(LOST, why, carried.shadow.trace_id)
        return
    if _whose() is scope.IDLE:
        return
    if carried is None:
        if held is None and _CARRIES not in vars(queue) and scope.current() is None:
            return
        if _POOL in vars(queue) or _is_no_work(item):
            return
    shadow = _whose()
    if carried is None and held is None and shadow is not None and shadow.tag:
        why = "a thread or task of shadow work took from a queue what may be anybody's, or nobody's"
        process.ledger.refuse(LOST, why, shadow.trace_id)
    before = held.before if held is not None else (shadow, otel_context.get_current())
    if carried is None:
        _become((None, otel_context.Context()))
    else:
        _become((carried.shadow, trace.set_span_in_context(carried.span, otel_context.Context())))
    _held.set(_Held(id(queue), _tag(item), before))


def found_empty(queue: Any) -> None:
    """Note that there was nothing to take: the second time in a row the work on the last item is over."""
    _fed()
    held = _held.get()
    if held is None or held.queue != id(queue):
        return
    if held.empties:
        _become(held.before)
        _held.set(None)
    else:
        _held.set(held._replace(empties=1))


def ends_batch(queue: Any, items: Any) -> bool:
    """Tell, once, a worker that takes without waiting that its batch ends: the next item is another side's.

    Parameters
    ----------
    queue
        It takes from.
    items : sequence
        What is in it, next first.
    """
    held = _held.get()
    if (
        held is None
        or held.bounded
        or held.queue != id(queue)
        or not items
        or _tag(items[0]) == held.tag
        or in_request()
    ):
        return False
    _held.set(held._replace(bounded=True))
    return True


def may_wait(queue: Any) -> None:
    """Note that a worker waits for its next item: whatever comes, it is not of the last batch."""
    _fed()
    held = _held.get()
    if held is not None and held.queue == id(queue):
        _held.set(held._replace(bounded=True))


def visible(queue: Any, items: Any, size: int, *, ordered: bool) -> int:
    """Return how many items a worker may count on: the ones of the next one's side.

    Parameters
    ----------
    queue
        It counts the items of.
    items : sequence
        What is in it, next first.
    size : int
        How many that are.
    ordered : bool
        Whether they leave in this order; else only the first is sure.
    """
    if _CARRIES not in vars(queue) or not items or in_request():
        return size
    if ends_batch(queue, items):
        return 0
    first = _tag(items[0])
    if not ordered:
        return size if all(_tag(item) == first for item in items) else 1
    return sum(1 for _ in itertools.takewhile(lambda item: _tag(item) == first, items))


def would_lose_mark(item: Any) -> bool:
    """Tell whether an item was taken by a task made for nothing else, which cannot hand on its mark."""
    shadow = scope.current()
    return (
        isinstance(item, Carried)
        and not in_request()
        and (shadow is None or shadow.trace_id != item.shadow.trace_id)
    )


def put_aside(item: Carried) -> None:
    """Count marked work that was handed to no one."""
    why = "an item was taken by a task of its own (create_task, gather), where its mark would be lost"
    process.ledger.refuse("queue", why, item.shadow.trace_id)


def _whose() -> Shadow | None:
    """Return the running work's mark; in a shadow consumer, all of whose work is shadow, a message's only."""
    found = scope.current()
    return None if found is scope.IDLE and process.shadow_consumer else found


def _become(identity: Identity) -> None:
    scope.enter(identity[0])
    otel_context.attach(identity[1])


def _note_got(queue: Any, item: Any) -> None:
    state = vars(queue)
    if _POOL not in state:
        got = state.setdefault(_GOT, weakref.WeakValueDictionary())
        try:
            got[id(item)] = item
        except TypeError:  # what cannot be referred to weakly is no connection
            return


def _is_no_work(item: Any) -> bool:
    """Tell what has a connection's or a file's methods, log records, and None (the end) from work."""
    kind = type(item)
    return (
        item is None or isinstance(item, logging.LogRecord) or any(hasattr(kind, name) for name in _RESOURCES)
    )


def _bare(item: Any) -> Any:
    return item.item if isinstance(item, Carried) else item


def _tag(item: Any) -> int:
    return (item.shadow.tag or -1) if isinstance(item, Carried) else 0
