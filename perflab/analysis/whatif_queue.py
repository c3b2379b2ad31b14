"""What calls wait for workers if something takes more or less time: queues that were seen, played again.

A replay of traces leaves what each call waits for a worker as it was, though most of what a faster operation
saves in a busy service is waiting. Where the number of workers is seen from calls in flight
(`perflab.analysis.utilisation`), so is what each call waited, and how long a worker was busy with it. These
very calls are put in line again, in the order in which they come now, with the times they take now; what they
wait goes back into the replay of their requests, which moves when they and others come, and so on until
nothing moves any more. No distribution is assumed, and nothing is drawn by chance.

Limits. Calls are taken first come, first served, by workers that are busy as long as the call's span and do
nothing else; a queue whose waits do not come out that way is left as it was. Arrivals stay: requests come
when they came, however slow answers are. A queue that was not seen cannot get longer, nor can one that no
call leads to within the table (in front of the entry). Of calls that belong to no request on its path, only
the time is changed by as much as that of the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.analysis.entity import EDGE
from perflab.analysis.pathtable import Walked
from perflab.analysis.utilisation import competing_calls, measure
from perflab.analysis.whatif_layout import Layout

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LEAST_IN_FLIGHT = 0.02
"""Mean calls in flight below which no queue is looked for."""

MAX_ROUNDS = 40
_STILL = 0.001
"""Part of all waiting by which a round may move it to be the last."""

_LIKE_SEEN = 0.5
"""Part of the waiting seen by which a line of workers may miss it, call by call, and still be believed."""


@dataclass(frozen=True, eq=False)
class Played:
    """Requests with their queues played again.

    Attributes
    ----------
    after_ns : int64[requests]
        What each takes.
    queues : tuple of str
        What calls were put in line for: a service, or an operation that nobody traced serves.
    rounds : int
        How often requests and queues were played until nothing moved.
    is_settled : bool
        Whether nothing moved in the end.
    """

    after_ns: Int64s
    queues: tuple[str, ...]
    rounds: int
    is_settled: bool


def play_queues(walked: Walked, layout: Layout, factor: Floats) -> Played:
    """Replay requests with other working times, and the queues they meet in.

    Parameters
    ----------
    walked : Walked
        The walked span table; all its calls meet at the workers.
    layout : Layout
        Its requests.
    factor : float64[entities]
        What the work of each entity is multiplied by; of an edge all of the gap, with the wait in it.

    Returns
    -------
    Played
        With all factors 1 every request takes what it took.
    """
    if (factor == 1).all() or not len(layout.row):
        return Played(layout.before_ns, (), 0, True)
    queues = list(_queues(walked, layout, factor))
    if not queues:
        return Played(layout.replay(factor), (), 0, True)
    return _settle(layout, factor, queues)


@dataclass(frozen=True, eq=False)
class _Queue:
    """Calls that wait for the same workers.

    Attributes
    ----------
    name : str
    workers : int
    is_traced : bool
        Whether the wait is before the callee's span, or in the span of the call itself.
    place, sent_place : int64[calls]
        Where in the layout the callee's span is, and that of the call; -1 for nowhere.
    arrival, service, wait : int64[calls]
        As they were.
    in_line : int64[calls]
        What they would have waited by `wait_in_line`.
    factor, wait_factor : float64[calls]
        Of the time of service, where the layout does not tell it, and of the wait.
    """

    name: str
    workers: int
    is_traced: bool
    place: Int64s
    sent_place: Int64s
    arrival: Int64s
    service: Int64s
    wait: Int64s
    in_line: Int64s
    factor: Floats
    wait_factor: Floats

    def add_to(self, before: Int64s, after: Int64s, wait: Int64s) -> None:
        """Add what each call waits to the working times it is a part of."""
        is_there = self.place >= 0
        (before if self.is_traced else after)[self.place[is_there]] += wait[is_there]

    def waits_now(self, was: tuple[Int64s, Int64s], now: tuple[Int64s, Int64s]) -> Int64s:
        """Return what each call waits, given when spans begin and how long they take, before and now."""
        is_there = self.place >= 0
        at, sent = self.place[is_there], self.sent_place[is_there]
        arrival = self.arrival.copy()
        arrival[is_there] += now[0][sent] - was[0][sent]
        if self.is_traced:
            service = self.service.copy()
            service[is_there] = np.maximum(service[is_there] + now[1][at] - was[1][at], 0)
            known = max(1, int(self.service[is_there].sum()))
            ratio = float(service[is_there].sum()) / known
            service[~is_there] = _scaled(service[~is_there], np.full((~is_there).sum(), ratio))
        else:
            service = _scaled(self.service, self.factor)
        longer = _in_line(arrival, service, self.workers) - self.in_line
        waits: Int64s = np.maximum(self.wait + longer, 0)
        return waits


def _settle(layout: Layout, factor: Floats, queues: list[_Queue]) -> Played:
    """Replay requests and queues in turn until the waits move no more."""
    before, after = _work(layout, factor, queues)
    was = layout.places(layout.before, layout.after)
    waits = [queue.wait for queue in queues]
    still = _STILL * sum(int(wait.sum()) for wait in waits)
    rounds, moved = 0, math.inf
    after_ns = layout.before_ns
    while moved > still and rounds < MAX_ROUNDS:
        with_wait = before.copy(), after.copy()
        for queue, wait in zip(queues, waits, strict=True):
            queue.add_to(*with_wait, _scaled(wait, queue.wait_factor))
        now = layout.places(*with_wait)
        after_ns = now[1][layout.offsets[:-1]]
        last, waits = waits, [queue.waits_now(was, now) for queue in queues]
        moved = sum(int(np.abs(one - other).sum()) for one, other in zip(waits, last, strict=True))
        rounds += 1
    return Played(after_ns, tuple(queue.name for queue in queues), rounds, moved <= still)


def _queues(walked: Walked, layout: Layout, factor: Floats) -> Iterator[_Queue]:
    """Find the queues whose workers are seen, and whose waits come out of a line for them."""
    table, code = walked.entities.table, walked.entities.code
    took = (walked.tree.end_ns - walked.tree.start_ns).astype(np.float64)
    busy = np.bincount(code, weights=took, minlength=len(table))
    lasts = int(walked.tree.end_ns.max()) - int(walked.tree.start_ns.min())
    is_client = np.asarray(walked.spans["kind"].array == "client")
    others = np.bincount(code[~is_client], minlength=len(table))
    callees: dict[str, list[int]] = {}
    for one in np.flatnonzero(others == 0).tolist():
        is_edge = table["kind"].iloc[one] == EDGE
        callees.setdefault(table["callee" if is_edge else "entity"].iloc[one], []).append(one)
    for name, codes in callees.items():
        if busy[codes].sum() >= LEAST_IN_FLIGHT * lasts:
            queue = _queue(walked, layout, factor, name, codes[0])
            if queue is not None:
                yield queue


def _queue(walked: Walked, layout: Layout, factor: Floats, name: str, code: int) -> _Queue | None:
    calls = competing_calls(walked, code)
    workers = measure(calls.begin_ns, calls.finish_ns, calls.took_ns).workers
    if not workers:
        return None
    is_traced = walked.entities.table["kind"].iloc[code] == EDGE
    place_of = np.full(len(walked.spans), -1, dtype=np.int64)
    place_of[layout.row] = np.arange(len(layout.row))
    place = place_of[calls.row]
    sent_place = np.where(place >= 0, layout.parent[place], -1) if is_traced else place
    if is_traced:
        place = np.where(calls.row != calls.caller_row, place, -1)
    else:
        place = np.where(layout.first[place] == layout.last[place], place, -1)
    finish = walked.tree.end_ns[calls.row]
    wait = np.minimum(_waited(calls.begin_ns, finish, workers), _room(layout, place, is_traced))
    served = finish - (walked.tree.start_ns[calls.row] if is_traced else calls.begin_ns + wait)
    service = np.maximum(served, 0)
    in_line = _in_line(calls.begin_ns, service, workers)
    if np.abs(in_line - wait).sum() > _LIKE_SEEN * wait.sum():
        return None
    of_call = factor[walked.entities.code[calls.caller_row]]
    ones = np.ones(len(wait))
    by, by_wait = (ones, of_call) if is_traced else (of_call, ones)
    return _Queue(
        name, workers, is_traced, place, sent_place, calls.begin_ns, service, wait, in_line, by, by_wait
    )


def _room(layout: Layout, place: Int64s, is_traced: bool) -> Int64s:
    """Return how much each call may have waited: the working time its wait is a part of."""
    room = (layout.before if is_traced else layout.after)[place]
    return np.asarray(np.where(place >= 0, room, np.iinfo(np.int64).max), dtype=np.int64)


def _work(layout: Layout, factor: Floats, queues: list[_Queue]) -> tuple[Int64s, Int64s]:
    """Return ``before`` and ``after`` of the layout without waits, and multiplied."""
    before, after = layout.before.copy(), layout.after.copy()
    for queue in queues:
        queue.add_to(before, after, -queue.wait)
    by = factor[layout.code]
    return _scaled(before, by[layout.parent]), _scaled(after, by)


def _scaled(work: Int64s, factor: Floats) -> Int64s:
    """Multiply working times; times 1 they are themselves, however long they are."""
    scaled: Int64s = np.where(factor == 1, work, np.rint(work * factor).astype(np.int64))
    return scaled


def _in_line(arrival: Int64s, service: Int64s, workers: int) -> Int64s:
    from perflab.analysis.whatif_line import wait_in_line

    return wait_in_line(np.argsort(arrival, kind="stable"), arrival, service, workers)


def _waited(arrival: Int64s, finish: Int64s, workers: int) -> Int64s:
    from perflab.analysis.whatif_line import waited_in_line

    return waited_in_line(np.argsort(arrival, kind="stable"), arrival, finish, workers)
