"""The controller's side of the generator: starts its process, listens to it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType

import msgspec

from perflab import errors
from perflab.errors import LoadError, PerflabError
from perflab.load.plan import Control, Failed, Plan, Progress, Report, Result, Started
from perflab.load.recording import rows_path, saved_spans

BEAT_S = 0.25
_LONGEST_LINE = 64 << 20
_STDERR_LINES = 40
_GOODBYE_S = 2.0


class Generator:
    """Supervises one generator process.

    Entering ``async with`` starts the process and returns when its schedule runs; leaving the block ends
    it, however it is left. The event loop must not be blocked for longer than the plan's lease: a controller
    that cannot watch its guards is taken for gone, and sending stops.

    Parameters
    ----------
    plan : Plan
        What the process is to do.

    Attributes
    ----------
    latest : Progress or None
        The newest line of progress.
    started : Started or None
        Start of the schedule, once it is known.

    Examples
    --------
    ::

        async with Generator(plan) as generator:
            async for progress in generator:
                print(progress.sent)
            result = await generator.wait()
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.latest: Progress | None = None
        self.started: Started | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._outcome: Result | PerflabError | None = None
        self._fresh: deque[Progress] = deque(maxlen=1000)
        self._changed = asyncio.Condition()

    @property
    def pid(self) -> int:
        """Id of the process, 0 before it is started."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> Started:
        """Start the process and return when its schedule runs.

        Raises
        ------
        LoadError
            If the process cannot be started or dies.
        PerflabError
            What the process refused the plan with, e.g. `TargetRefused`.
        """
        if self._process is not None:
            raise LoadError("this generator was started before; make a new one for every run")
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "perflab.load.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE,
                start_new_session=True,
            )
        except OSError as error:
            raise LoadError(f"cannot start the generator's process: {error}") from error
        self._tasks = [
            asyncio.create_task(self._listen(self._process), name="perflab-generator-reports"),
            asyncio.create_task(self._beat(), name="perflab-generator-heartbeat"),
        ]
        self._tell(self._plan)
        async with self._changed:
            await self._changed.wait_for(lambda: self.started or self._outcome)
        if isinstance(self._outcome, PerflabError):
            raise self._outcome
        assert self.started is not None
        return self.started

    def __aiter__(self) -> AsyncIterator[Progress]:
        """Iterate over progress, four lines a second, until the process has reported its end."""
        return self._progress()

    async def stop(self, reason: str) -> None:
        """Have no further request begun; what is in flight may end. Returns at once; `wait` follows."""
        self._tell(Control("stop", reason))

    async def wait(self) -> Result:
        """Return the result when all requests have ended and the rows are written.

        Cancelled, it ends the process before it returns.

        Raises
        ------
        LoadError
            If the process died; the message holds the end of its stderr.
        PerflabError
            What the process failed with.
        """
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._outcome)
        except asyncio.CancelledError:
            await self.close()
            raise
        if isinstance(self._outcome, PerflabError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    async def close(self) -> None:
        """End the process, by force if need be; it is gone when this returns."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            for task in self._tasks:
                task.cancel()
        await process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Generator:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _progress(self) -> AsyncIterator[Progress]:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._fresh or self._outcome)
            if not self._fresh:
                return
            yield self._fresh.popleft()

    def _tell(self, message: Plan | Control) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing():
            return
        process.stdin.write(msgspec.json.encode(message) + b"\n")

    async def _beat(self) -> None:
        while True:
            self._tell(Control("beat"))
            await asyncio.sleep(BEAT_S)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        reading = asyncio.create_task(self._keep_stderr(process), name="perflab-generator-stderr")
        try:
            async for line in process.stdout:
                await self._take(msgspec.json.decode(line, type=Report))
            await process.wait()
            await reading
        except (msgspec.DecodeError, ValueError) as error:
            process.kill()
            await self._finish(LoadError(f"the generator's process said what cannot be read: {error}"))
        finally:
            reading.cancel()
        if self._outcome is None:
            tail = "\n".join(self._stderr) or "(nothing on stderr)"
            await self._finish(
                LoadError(f"the generator's process ended with code {process.returncode}:\n{tail}")
            )

    async def _take(self, report: Report) -> None:
        if isinstance(report, Progress):
            async with self._changed:
                self.latest = report
                self._fresh.append(report)
                self._changed.notify_all()
        elif isinstance(report, Started):
            async with self._changed:
                self.started = report
                self._changed.notify_all()
        elif isinstance(report, Failed):
            kind = getattr(errors, report.error, LoadError)
            await self._finish(kind(report.message))
        else:
            try:
                await asyncio.to_thread(_write_rows, self._plan.output)
            except PerflabError as error:
                await self._finish(error)
            await self._finish(report)

    async def _finish(self, outcome: Result | PerflabError) -> None:
        async with self._changed:
            if self._outcome is None:
                self._outcome = outcome
            self._changed.notify_all()

    async def _keep_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self._stderr.append(line.decode("utf-8", "replace").rstrip())


def _write_rows(output: str) -> None:
    if not output:
        return
    from perflab.trace.store import write_spans

    rows = rows_path(output)
    write_spans(saved_spans(rows), output)
    rows.unlink()
