"""What the tests of handed-on work run inside an attached process; imports nothing a service would not."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import random
import socket
import threading
import time
from typing import Any

from attached_service import forget, marked, noted


def who() -> int:
    """Return the tag of the running work, 0 for ordinary work; inside."""
    from perflab.shadow import scope

    found = scope.current()
    return found.tag if found else 0


def made(kind: str) -> Any:
    return getattr(queue, kind)()


class Worker(threading.Thread):
    """Works on a queue until it takes None, and notes whose work each item was when it worked on it."""

    def __init__(self, work: Any, patience_s: float | None = None) -> None:
        super().__init__(daemon=True)
        self.work, self.found, self.patience_s = work, [], patience_s

    def run(self) -> None:
        while True:
            try:
                item = self.work.get(timeout=self.patience_s) if self.patience_s else self.work.get()
            except queue.Empty:
                continue
            if item[1] is None:
                return
            with contextlib.suppress(AttributeError):  # a SimpleQueue has none
                self.work.task_done()
            self.found.append((item[1], who()))


def worked(kind: str, marks: list[Any], starter: Any, patience_s: float | None) -> list[Any]:
    work = made(kind)
    workers = [Worker(work, patience_s) for _ in range(3)]
    for worker in workers:
        with marked(starter):
            worker.start()
    chance = random.Random(3)
    for _ in range(600):
        mark = chance.choice([None, None, *marks])
        with marked(mark):
            work.put((chance.random(), mark["tag"] if mark else 0))
    for _ in workers:
        work.put((2.0, None))
    for worker in workers:
        worker.join(20)
    return [found for worker in workers for found in worker.found]


def batched(mark: Any, style: str) -> list[Any]:
    """Put 0 0 M M 0 M and have a worker gather and write them in one of the ways workers do."""
    work: queue.Queue[Any] = queue.Queue()
    for one in (None, None, mark, mark, None, mark):
        with marked(one):
            work.put(one["tag"] if one else 0)
    written = []

    def gather() -> list[Any]:
        batch = [work.get()]
        if style == "until empty":
            while not work.empty():
                batch.append(work.get_nowait())
        elif style == "by size":
            batch.extend(work.get_nowait() for _ in range(work.qsize()))
        elif style == "until there is none":
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(work.get_nowait())
        else:
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(work.get(timeout=0.01))
        return batch

    def write() -> None:
        while sum(len(batch) for batch, _ in written) < 6:
            written.append((gather(), who()))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(20)
    return written


def polled(mark: Any) -> list[Any]:
    """Poll: take what is there, look whether there is more, never wait."""
    work: queue.Queue[Any] = queue.Queue()
    for one in (None, mark, None, mark, mark):
        with marked(one):
            work.put(one["tag"] if one else 0)
    found: list[Any] = []

    def poll() -> None:
        deadline = time.monotonic() + 10
        while len(found) < 5 and time.monotonic() < deadline:
            if work.qsize():
                found.append((work.get_nowait(), who()))

    thread = threading.Thread(target=poll)
    thread.start()
    thread.join(20)
    return found


def emptied(mark: Any, starter: Any) -> list[int]:
    """Note whose work a worker does after its item: at once, and after each time it finds nothing."""
    work: queue.Queue[Any] = queue.Queue()
    with marked(mark):
        work.put(1)
    found: list[int] = []

    def run() -> None:
        found.append(who())
        work.get()
        work.task_done()
        found.append(who())
        for _ in range(3):
            with contextlib.suppress(queue.Empty):
                work.get(timeout=0.01)
            found.append(who())

    with marked(starter):
        thread = threading.Thread(target=run)
        thread.start()
    thread.join(20)
    return found


def in_request(headers: dict[str, str], function: Any) -> Any:
    """Run as a request that is served; inside."""
    from perflab.shadow import inbound

    def serve() -> Any:
        served = inbound.begin("GET", "/", headers)
        try:
            return function()
        finally:
            served.end()

    return contextvars.copy_context().run(serve)


class Connection:
    """Something a pool keeps."""


def pooled(mark: Any, headers: dict[str, str]) -> list[Any]:
    forget()
    pool: queue.Queue[Any] = queue.Queue()
    pool.put(Connection())
    found = []

    def use() -> None:
        connection = pool.get()
        found.append(who())
        pool.put(connection)

    for sent in ({}, headers, {}):
        in_request(sent, use)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(20)
    return [found, noted("refuse")]


def stacked(mark: Any) -> list[Any]:
    pool: queue.LifoQueue[Any] = queue.LifoQueue()
    with marked(mark):
        pool.put(1)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append((pool.get(), who())))
    thread.start()
    thread.join(20)
    return found


def crossed(mark: Any) -> list[Any]:
    forget()
    events: queue.Queue[Any] = queue.Queue()
    with marked(mark):
        events.put("news")
    seen = in_request({}, lambda: (events.get(), who()))
    return [seen, [(store, why) for store, why, _ in noted("refuse")]]


def taken_by_a_thread_of_marked_work(mark: Any, kind: str) -> list[Any]:
    """Have a thread that marked work started take a thing that was put before any mark was seen."""
    forget()
    things: queue.Queue[Any] = queue.Queue()
    found: list[int] = []
    with socket.socket() as connection:
        things.put(connection if kind == "connection" else "a job")
        thread = threading.Thread(target=lambda: (things.get(), found.append(who())))
        with marked(mark):
            thread.start()
        thread.join(20)
    return [found, [store for store, _, _ in noted("refuse")]]


def logged(mark: Any) -> list[Any]:
    import logging
    import logging.handlers

    found: list[Any] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.getMessage(), who()))

    lines: queue.Queue[Any] = queue.Queue()
    listener = logging.handlers.QueueListener(lines, Noting())
    logger = logging.getLogger("handed on")
    logger.addHandler(logging.handlers.QueueHandler(lines))
    listener.start()
    with marked(mark):
        logger.warning("a line")
    listener.stop()
    return found


def bounded(mark: Any) -> list[Any]:
    """Look at what a queue promises besides: bounds, joins, exceptions, ranks."""
    small: queue.Queue[Any] = queue.Queue(1)
    found: list[Any] = []
    with marked(mark):
        small.put("a")
        try:
            small.put_nowait("b")
        except queue.Full:
            found.append("full")
    found += [small.get(), small.unfinished_tasks]
    small.task_done()
    small.join()
    for call in (small.get_nowait, lambda: small.get(timeout=0.01)):
        try:
            call()
        except queue.Empty as error:
            found.append(type(error) is queue.Empty)
    ranked: queue.PriorityQueue[Any] = queue.PriorityQueue()
    for one, rank in ((None, 3), (mark, 1), (mark, 4), (None, 2)):
        with marked(one):
            ranked.put(rank)
    return [*found, [ranked.get() for _ in range(4)]]


async def took(work: asyncio.Queue[Any], style: str) -> Any:
    if style == "get":
        return await work.get()
    if style == "wait_for":
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(work.get(), 0.2)
    if style == "timeout":
        async with asyncio.timeout(20):
            return await work.get()
    while True:
        with contextlib.suppress(asyncio.QueueEmpty):
            return work.get_nowait()
        await asyncio.sleep(0.001)


async def worked_in_tasks(mark: Any, style: str, kind: str, starter: Any) -> list[Any]:
    work: asyncio.Queue[Any] = getattr(asyncio, kind)()
    found: list[Any] = []

    async def run() -> None:
        while (item := await took(work, style))[1] is not None:
            work.task_done()
            await asyncio.sleep(0)
            found.append((item[1], who()))

    with marked(starter):
        worker = asyncio.create_task(run())
    for number in range(60):
        one = mark if number % 5 in (1, 2) else None
        with marked(one):
            await work.put((number, one["tag"] if one else 0))
        if number % 7 == 0:
            await asyncio.sleep(0.002)
    await work.put((99, None))
    await asyncio.wait_for(worker, 20)
    return found


async def batched_in_tasks(mark: Any, style: str) -> list[Any]:
    work: asyncio.Queue[Any] = asyncio.Queue()
    for one in (None, None, mark, mark, None):
        with marked(one):
            work.put_nowait(one["tag"] if one else 0)
    written: list[Any] = []

    async def run() -> None:
        while sum(len(batch) for batch, _ in written) < 5:
            batch = [await work.get()]
            if style == "until empty":
                while not work.empty():
                    batch.append(work.get_nowait())
            elif style == "by size":
                batch.extend(work.get_nowait() for _ in range(work.qsize()))
            else:
                with contextlib.suppress(TimeoutError):
                    while True:
                        batch.append(await asyncio.wait_for(work.get(), 0.02))
            written.append((batch, who()))

    await asyncio.wait_for(asyncio.create_task(run()), 20)
    return written


async def in_a_task_of_its_own(mark: Any) -> list[Any]:
    forget()
    work: asyncio.Queue[Any] = asyncio.Queue()
    with marked(mark):
        work.put_nowait("marked")
    work.put_nowait("ordinary")
    got = await asyncio.create_task(work.get())
    work.task_done()
    await asyncio.wait_for(work.join(), 5)
    return [got, who(), [(store, trace_id) for store, _, trace_id in noted("refuse")]]


async def alike(mark: Any) -> list[Any]:
    """Try what a queue and `wait_for` promise besides."""
    found: list[Any] = []
    for wait in (asyncio.wait_for(asyncio.Queue().get(), 0.01), asyncio.wait_for(asyncio.sleep(9), 0.01)):
        try:
            await wait
        except Exception as error:
            found.append(type(error).__name__)
    found += [
        await asyncio.wait_for(asyncio.sleep(0, "slept"), 5),
        await asyncio.wait_for(asyncio.sleep(0), None),
    ]
    work: asyncio.Queue[Any] = asyncio.Queue(1)
    waiting = asyncio.create_task(asyncio.wait_for(work.get(), 9))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    found.append(waiting.cancelled())
    with marked(mark):
        await work.put(5)
        try:
            work.put_nowait(6)
        except asyncio.QueueFull:
            found.append("full")
    return [*found, work.get_nowait(), work.empty(), work.qsize()]


def alike_in_threads() -> list[Any]:
    simple: Any = queue.SimpleQueue()
    found: list[Any] = [type(simple).__name__, type(simple).__module__, type(simple) is queue.SimpleQueue]
    simple.put_nowait(1)
    simple.put(2, block=False, timeout=None)
    found += [simple.qsize(), simple.get(), simple.get_nowait(), simple.empty()]
    for call in (simple.get_nowait, lambda: simple.get(timeout=0.01), lambda: simple.get(True, 0.01)):
        try:
            call()
        except Exception as error:
            found.append(type(error) is queue.Empty)
    return found


async def ways_of_tasks(mark: Any) -> dict[str, int]:
    """Have the running work called back in every way asyncio knows; return whose work it was each time."""
    from concurrent.futures import Future, ThreadPoolExecutor

    loop = asyncio.get_running_loop()
    found: dict[str, int] = {}

    def note(way: str) -> None:
        found[way] = who()

    async def task(way: str) -> None:
        note(way)

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    ordinary_future: Future[None] = Future()
    with ThreadPoolExecutor(1) as threads, marked(mark):
        user.set("kept")
        loop.call_soon(note, "call_soon")
        loop.call_later(0.01, note, "call_later")
        loop.call_at(loop.time() + 0.01, note, "call_at")
        loop.call_soon_threadsafe(note, "call_soon_threadsafe")
        await loop.run_in_executor(threads, loop.call_soon_threadsafe, note, "threadsafe from a thread")
        await asyncio.to_thread(note, "to_thread")
        await asyncio.gather(task("gather"), asyncio.create_task(task("create_task")))
        async with asyncio.TaskGroup() as group:
            group.create_task(task("task group"))
        if hasattr(asyncio, "eager_task_factory"):
            await asyncio.Task(task("eager task"), loop=loop, eager_start=True)
        else:
            note("eager task")  # there are none before Python 3.12
        future = loop.create_future()
        future.add_done_callback(lambda _: note("done callback of asyncio"))
        future.set_result(None)
        ordinary_future.add_done_callback(lambda _: note("done callback of a thread"))
        done = threads.submit(lambda: None)
        done.add_done_callback(lambda _: note("done callback of a task done"))
        await asyncio.wrap_future(done)
        await asyncio.sleep(0.05)
    # what completes it is ordinary work, on a thread of its own
    finisher = threading.Thread(target=ordinary_future.set_result, args=(None,))
    finisher.start()
    finisher.join(20)
    note("ordinary afterwards")
    return found


def ways_of_threads(mark: Any) -> dict[str, int]:
    """Do the same with threads; ordinary work then looks at what they are left with."""
    import _thread
    from concurrent.futures import ThreadPoolExecutor
    from multiprocessing.pool import ThreadPool

    found: dict[str, int] = {}
    done = threading.Semaphore(0)

    def note(way: str) -> None:
        found[way] = who()
        done.release()

    with ThreadPoolExecutor(1) as executor, ThreadPool(1) as pool:
        with marked(mark):
            _thread.start_new_thread(note, ("start_new_thread",))
            pool.apply_async(who, callback=lambda _: note("callback of a pool"))
            with ThreadPool(1, note, ("initializer of a pool",)) as own:
                found["own pool"] = own.apply(who)
            found["iterator"] = min(pool.imap(int, (who() for _ in range(2))))
            executor.submit(note, "submit")
            threading.Timer(0.01, note, ("timer",)).start()
            for _ in range(5):
                done.acquire(timeout=20)
        found |= {"executor afterwards": executor.submit(who).result(20), "pool afterwards": pool.apply(who)}
        pool.apply_async(who, callback=lambda _: note("callback afterwards"))
        done.acquire(timeout=20)
    return found


def ways_out(mark: Any) -> dict[str, str]:
    """Try to hand work to another process in every way there is."""
    import multiprocessing
    import os
    import shutil
    import subprocess

    from attached_service import attempt

    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    true = [str(shutil.which("true"))]
    tries: dict[str, Any] = {
        "run": lambda: subprocess.run(true, check=True).returncode,
        "Popen": lambda: subprocess.Popen(true).wait(),
        "system": lambda: os.system("true"),
        "popen": lambda: os.popen("true").read(),
        "posix_spawn": lambda: os.waitpid(os.posix_spawn(true[0], true, dict(os.environ)), 0)[1],
        "spawnv": lambda: os.spawnv(os.P_WAIT, true[0], true),
        "queue": lambda: spawn.Queue().put(1),
        "simple queue": lambda: spawn.SimpleQueue().put(1),
        "joinable queue": lambda: spawn.JoinableQueue().put(1),
        "spawned process": spawn.Process(target=int).start,
        "forked process": lambda: forked(fork),
    }
    with marked(mark):
        return {name: str(attempt(one)) for name, one in tries.items()}


def forked(context: Any) -> int:
    """Return whose work it is in a child that was forked."""
    ends = context.Pipe()
    child = context.Process(target=lambda: ends[1].send(who()))
    child.start()
    found = int(ends[0].recv()) if ends[0].poll(20) else -1
    child.join(20)
    return found


def upkept(mark: Any) -> list[Any]:
    """Have a worker of a shadow pool take what marked, ordinary and its own work put; and an ordinary one."""
    from perflab.shadow import scope

    found: list[Any] = []

    def work(tasks: Any, count: int) -> None:
        for _ in range(count):
            tasks.get()
            found.append(scope.current() is scope.IDLE)

    def upkeep() -> None:
        scope.enter(scope.IDLE)
        tasks: queue.Queue[Any] = queue.Queue()
        for one in (mark, None):
            with marked(one):
                tasks.put("task")
        tasks.put("its own")
        work(tasks, 3)
        others.put("its own")

    others: queue.Queue[Any] = queue.Queue()
    for target, arguments in ((upkeep, ()), (work, (others, 1))):
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        thread.join(20)
    return found
