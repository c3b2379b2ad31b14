"""Commands and pipelines of redis-py: traced, delayed on demand, and claimed when ordinary.

Nothing here decides whether a command may be sent (`perflab.shadow.redis` does), and nothing here may
stand in the way of one. Waiting for a next message is no work: a blocking pop has no span.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from perflab.shadow import handoff, queue, rediskeys, scope
from perflab.shadow.scope import process

Claimed = Callable[[Any], str]
"""Pool -> name of the store its ordinary writes are claimed for, ``""`` for none."""


def hook(client_class: Any, pipeline_class: Any, claimed: Claimed) -> None:
    """Wrap the sync client and pipeline.

    Parameters
    ----------
    client_class, pipeline_class : type
        ``redis.Redis`` and its pipeline.
    claimed : callable
        Tells the store of a pool.
    """
    execute = client_class.execute_command

    @functools.wraps(execute)
    def attached(client: Any, *arguments: Any, **options: Any) -> Any:
        pops = rediskeys.name_of(arguments) in rediskeys.POPS
        if pops:
            queue.next_message()
        command = _Command(client.connection_pool, [arguments], claimed)
        answer = _run(command, lambda: execute(client, *arguments, **options))
        dead = queue.begin_message(command.key_family, command.operation, answer) if pops else []
        for letter in dead:
            execute(client, *letter)
        return None if dead else answer

    client_class.execute_command = attached
    for name in ("execute", "immediate_execute_command"):
        _hook_pipeline(pipeline_class, name, claimed)


def hook_async(client_class: Any, pipeline_class: Any, claimed: Claimed) -> None:
    """Wrap the async client and pipeline.

    Parameters
    ----------
    client_class, pipeline_class, claimed
        See `hook`; of ``redis.asyncio``.
    """
    execute = client_class.execute_command

    @functools.wraps(execute)
    async def attached(client: Any, *arguments: Any, **options: Any) -> Any:
        pops = rediskeys.name_of(arguments) in rediskeys.POPS
        if pops:
            queue.next_message()
        command = _Command(client.connection_pool, [arguments], claimed)
        answer = await _run_async(command, lambda: execute(client, *arguments, **options))
        dead = queue.begin_message(command.key_family, command.operation, answer) if pops else []
        for letter in dead:
            await execute(client, *letter)
        return None if dead else answer

    client_class.execute_command = attached
    for name in ("execute", "immediate_execute_command"):
        _hook_async_pipeline(pipeline_class, name, claimed)


def _hook_pipeline(pipeline_class: Any, name: str, claimed: Claimed) -> None:
    run = pipeline_class.__dict__[name]

    @functools.wraps(run)
    def attached(pipeline: Any, *arguments: Any, **options: Any) -> Any:
        commands = [arguments] if name != "execute" else [entry[0] for entry in pipeline.command_stack]
        if not commands:
            return run(pipeline, *arguments, **options)
        command = _Command(pipeline.connection_pool, commands, claimed, alone=name != "execute")
        return _run(command, lambda: run(pipeline, *arguments, **options))

    setattr(pipeline_class, name, attached)


def _hook_async_pipeline(pipeline_class: Any, name: str, claimed: Claimed) -> None:
    run = pipeline_class.__dict__[name]

    @functools.wraps(run)
    async def attached(pipeline: Any, *arguments: Any, **options: Any) -> Any:
        commands = [arguments] if name != "execute" else [entry[0] for entry in pipeline.command_stack]
        if not commands:
            return await run(pipeline, *arguments, **options)
        command = _Command(pipeline.connection_pool, commands, claimed, alone=name != "execute")
        return await _run_async(command, lambda: run(pipeline, *arguments, **options))

    setattr(pipeline_class, name, attached)


class _Command:
    """One command or pipeline under way: traced (unless it only waits), and claimed when ordinary."""

    def __init__(
        self, pool: Any, commands: Sequence[tuple[Any, ...]], claimed: Claimed, *, alone: bool = True
    ) -> None:
        self.pool, self.commands, self.claimed, self.alone = pool, commands, claimed, alone
        self.began_ns = time.time_ns()
        self.name = self.operation = self.key_family = ""
        self.span: Span | None = None
        self.pushes = False
        try:
            self._begin()
        except Exception as failure:  # what cannot be named is sent all the same
            process.ledger.step_aside(f"redis: span: {type(failure).__name__}")

    def current(self) -> AbstractContextManager[Any]:
        """Make a push the parent of the work its message causes, while it is sent."""
        if self.span is None or not self.pushes:
            return nullcontext()
        return trace.use_span(self.span, end_on_exit=False)

    def end(self, error: BaseException | None = None, answer: Any = None) -> None:
        """Finish the span, and claim what ordinary work wrote."""
        if self.span is not None:
            scope.finish(self.span, error)
        if scope.current() is None and process.control.live:
            try:
                self._claim(error, answer)
            except Exception as failure:
                process.ledger.step_aside(f"redis: claim: {type(failure).__name__}")

    def _begin(self) -> None:
        self.operation = rediskeys.name_of(self.commands[0]) if self.alone else "PIPELINE"
        families = {rediskeys.family(command).partition(" ")[2] for command in self.commands}
        self.key_family = families.pop() if len(families) == 1 else ""
        self.name = f"{self.operation} {self.key_family}".strip()
        if self.alone and rediskeys.waits(self.commands[0]):
            return
        self.pushes = self.alone and self.operation in rediskeys.PUSHES
        if self.pushes:
            self.name = f"send {self.key_family}"
        self.span = scope.begin(
            self.name,
            SpanKind.PRODUCER if self.pushes else SpanKind.CLIENT,
            {"db.system.name": "redis", "db.operation.name": self.operation},
        )

    def _claim(self, error: BaseException | None, answer: Any) -> None:
        if type(error).__name__ in ("WatchError", "ExecAbortError", "ShadowError"):
            return  # nothing of the transaction was done
        if error is None and self.alone and not rediskeys.changed(self.commands[0], answer):
            return
        store = self.claimed(self.pool)
        now_ns = time.time_ns()
        for command in self.commands if store else ():
            for key in rediskeys.claimed_keys(command):
                process.ledger.claim(store, key, self.began_ns, now_ns, background=not handoff.in_request())


def _run(command: _Command, call: Callable[[], Any]) -> Any:
    try:
        scope.wait(command.name)
        with command.current():
            answer = call()
    except BaseException as error:
        command.end(error)
        raise
    command.end(None, answer)
    return answer


async def _run_async(command: _Command, call: Callable[[], Any]) -> Any:
    try:
        planted_ns = scope.delay_ns(command.name)
        if planted_ns:
            await scope.async_wait(planted_ns)
        with command.current():
            answer = await call()
    except BaseException as error:
        command.end(error)
        raise
    command.end(None, answer)
    return answer
