"""The generator's own process: ``python -m perflab.load.worker``.

One JSON line on stdin is the plan; further lines are the controller's: a heartbeat, or *stop*. Reports
go out on stdout, one JSON line each: started, progress four times a second, and in the end the result or
why there is none. The schedule runs in the event loop of this process alone, so that nothing the controller
computes can bend it.

The process never outlives its controller. A thread of its own reads stdin; when the pipe closes, the engine
is kept from beginning another request at that instant, whatever the event loop is doing, and the process is
gone a second later at most. When the pipe stays open but silent for longer than the lease, sending stops too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from perflab.errors import ConfigError, LoadError, PerflabError
from perflab.load.engine import Engine
from perflab.load.plan import Control, Failed, Plan, Report
from perflab.load.recording import rows_path

logger = logging.getLogger(__name__)

PROGRESS_S = 0.25
GRACE_S = 1.0
"""After the controller is gone, this long for dropping what is in flight and writing the rows."""

_LISTEN_S = 0.1
_ORPHANED = 70
_MOST_BUFFERED = 1 << 20
_SPARE_FILES = 64


class Reports(asyncio.BaseProtocol):
    """Writes report lines to a pipe without ever waiting for its reader.

    Progress is left out while the reader is far behind; what ends a run is never left out.
    """

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()

    @classmethod
    async def on(cls, fd: int) -> Reports:
        """Open the writing end of a pipe."""
        pipe = os.fdopen(fd, "wb", 0)
        transport, reports = await asyncio.get_running_loop().connect_write_pipe(cls, pipe)
        reports._transport = transport
        return reports

    def write(self, report: Report, *, may_drop: bool = False) -> None:
        """Write one line."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if may_drop and transport.get_write_buffer_size() > _MOST_BUFFERED:
            return
        transport.write(msgspec.json.encode(report) + b"\n")

    async def close(self) -> None:
        """Write what is left and close; a reader that is gone is not waited for."""
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if exc is not None:
            logger.info("nobody reads the reports any more: %s", exc)
        self._closed.set()


class Lease:
    """Watches the controller from a thread of its own.

    Parameters
    ----------
    fd : int
        Reading end of the controller's pipe.
    on_stop : callable
        Called in the thread with the reason when the controller says stop, or is silent for too long.
    on_lost : callable
        Called in the thread when the pipe has closed.
    """

    def __init__(self, fd: int, on_stop: Callable[[str], None], on_lost: Callable[[], None]) -> None:
        self._lines = _lines(fd)
        self._lease_s = math.inf
        self._on_stop = on_stop
        self._on_lost = on_lost
        self._thread = threading.Thread(target=self._watch, name="perflab-lease", daemon=True)

    def first_line(self) -> bytes:
        """Return the first line, which is the plan; ``b""`` if the pipe closed before it came."""
        for line in self._lines:
            if line:
                return line
        return b""

    def start(self, lease_s: float) -> None:
        """Begin to watch; ``lease_s`` is the longest silence."""
        self._lease_s = lease_s
        self._thread.start()

    def _watch(self) -> None:
        heard = time.monotonic()
        for line in self._lines:
            if line:
                heard = time.monotonic()
                with contextlib.suppress(msgspec.DecodeError):
                    control = msgspec.json.decode(line, type=Control)
                    if control.do == "stop":
                        self._on_stop(control.reason or "stopped by the controller")
            elif time.monotonic() - heard > self._lease_s:
                self._on_stop(f"the controller was silent for more than {self._lease_s:g} s")
        self._on_lost()


def main() -> int:
    """Run the process and return its exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the controller decides what Ctrl-C means
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not stand between report lines
    worker = _Worker(out)
    plan_line = worker.lease.first_line()
    if not plan_line:
        return 0
    try:
        plan = msgspec.json.decode(plan_line, type=Plan)
    except (msgspec.DecodeError, PerflabError) as error:
        # the text of a DecodeError names the place in the plan and never its values
        asyncio.run(worker.fail(ConfigError(f"the generator cannot read its plan: {error}")))
        return 2
    return asyncio.run(worker.run(plan))


class _Worker:
    def __init__(self, out: int) -> None:
        self.lease = Lease(0, self._stop, self._lost)
        self._out = out
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_reason = ""
        self._is_lost = False
        self._over = threading.Event()

    async def fail(self, error: PerflabError) -> None:
        reports = await Reports.on(self._out)
        reports.write(Failed(type(error).__name__, str(error)))
        await reports.close()

    async def run(self, plan: Plan) -> int:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, lambda: self._apply("the generator was terminated"))
        reports = await Reports.on(self._out)
        try:
            await self._send(plan, reports)
        except (PerflabError, OSError, ExceptionGroup) as raised:
            error = _first(raised)
            if isinstance(error, OSError):
                error = LoadError(f"the generator failed: {error}")
            if not isinstance(error, PerflabError):
                raise
            reports.write(Failed(type(error).__name__, str(error)))
            return error.exit_code
        finally:
            await reports.close()
            self._over.set()
        return 0

    async def _send(self, plan: Plan, reports: Reports) -> None:
        _allow_files(plan.connection_bound + _SPARE_FILES)
        self._engine = engine = Engine(plan)
        self.lease.start(plan.lease_s)
        started = await engine.prepare()
        if self._stop_reason:
            engine.stop(self._stop_reason)
        gc.collect()
        gc.freeze()
        reports.write(started)
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(_report(engine, reports))
            await engine.run()
            ticking.cancel()
        reports.write(engine.progress())
        if plan.output:
            engine.save(rows_path(plan.output))
        reports.write(engine.result())

    # What follows is called in the lease's thread.

    def _stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        engine, loop = self._engine, self._loop
        if engine is not None and loop is not None:
            engine.halt(reason)
            with contextlib.suppress(RuntimeError):  # the loop is closed: it is over anyway
                loop.call_soon_threadsafe(self._apply, reason)

    def _lost(self) -> None:
        self._is_lost = True
        self._stop("the controller is gone")
        if not self._over.wait(GRACE_S):
            os._exit(_ORPHANED)

    def _apply(self, reason: str) -> None:
        if self._engine is None:
            return
        if self._is_lost:
            self._engine.abandon(reason)
        else:
            self._engine.stop(reason)


async def _report(engine: Engine, reports: Reports) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        reports.write(engine.progress(), may_drop=True)


def _lines(fd: int) -> Iterator[bytes]:
    """Yield the lines of a pipe, and ``b""`` whenever nothing came for a while."""
    rest = b""
    while True:
        while b"\n" in rest:
            line, rest = rest.split(b"\n", 1)
            if line:
                yield line
        if not select.select([fd], [], [], _LISTEN_S)[0]:
            yield b""
            continue
        data = os.read(fd, 1 << 16)
        if not data:
            return
        rest += data


def _allow_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise LoadError(
            f"{needed} open files are needed for the connections of this plan, the system allows {hard}; "
            "lower max_in_flight or raise 'ulimit -n'"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
