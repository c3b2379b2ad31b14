"""A process with the agent in it that runs functions of the tests: hooks patch libraries for good.

`Service` is the test's side. Run as a program, this file is the other side: it reads calls as JSON lines and
answers them. A function is named by its file, so that what runs inside stands in the test file, as code.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
CLOCK_SET_BACK_S = 10.0
PAUSE_S = 60.0
"""How old a list of live runs may get inside: a virtual machine that is paused for a moment fails no test."""
kept: dict[str, Any] = {}
"""What functions keep from one call to the next; inside the process only."""
as_ever: dict[str, float] = {}
"""What was set otherwise for tests, as it is anywhere else."""
spans: list[Any] = []
"""Spans finished since `forget`; inside the process only."""


class Service:
    """A process that calls functions of test files; attached when its environment says so."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment)
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of a test file inside and return its answer, both by way of JSON."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {"file": inspect.getfile(function), "name": function.__name__, "arguments": arguments}
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
            process.kill()
            raise AssertionError(f"{function.__name__} did not come back in {PATIENCE_S:g} s")
        answer = json.loads(process.stdout.readline() or b'{"error": "the process ended"}')
        if "error" in answer:
            raise AssertionError(f"inside the service:\n{answer['error']}")
        return answer["value"]


@contextlib.contextmanager
def marked(mark: Mapping[str, Any] | None) -> Iterator[None]:
    """Be marked work inside; None: ordinary work."""
    from perflab.shadow import scope

    token = scope.enter(scope.Shadow(mark["tag"], mark["token"], int(mark["trace_id"])) if mark else None)
    try:
        yield
    finally:
        scope.leave(token)


def attempt(function: Callable[[], Any]) -> Any:
    """Return what a call returns, or the type and text of its error."""
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def attempt_async(function: Callable[[], Any]) -> Any:
    """Return what awaiting a call returns, or the type and text of its error."""
    try:
        return await function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def plain_of(value: Any) -> Any:
    """Write an answer so that it can be compared and sent: bytes stay told from text, sets have an order."""
    if isinstance(value, bytes):
        return f"b:{value.decode()}"
    if isinstance(value, dict):
        return {str(plain_of(key)): plain_of(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain_of, value))
    if isinstance(value, (list, tuple)):
        return [plain_of(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def is_refused(said: Any, why: str) -> bool:
    """Tell whether `attempt` met a ShadowError that gives this reason."""
    return str(said).startswith("ShadowError: ") and why in said


def poll() -> None:
    """Have the process read the list of live runs now; after a clock was set back, once it is believed."""
    from perflab.shadow.scope import process

    until = time.monotonic() + CLOCK_SET_BACK_S
    process.control.poll()
    while "older list" in process.control.problem and time.monotonic() < until:
        time.sleep(0.05)
        process.control.poll()


def forget_runs() -> None:
    """Have the process read the list, and take every run that is not in it for long over."""
    from perflab.shadow import control

    kept_s, control.CANARY_KEPT_S = control.CANARY_KEPT_S, 0.0
    poll()
    control.CANARY_KEPT_S = kept_s


def forget() -> None:
    """Forget what was noted so far."""
    from perflab.shadow.scope import process

    process.ledger.noted = []
    spans.clear()


def noted(kind: str) -> list[Any]:
    """Return what the ledger was told since `forget`: 'claim', 'refuse', 'session', 'step_aside'."""
    from perflab.shadow.scope import process

    return [arguments for name, arguments in process.ledger.noted if name == kind]


def span_names() -> list[str]:
    """Return the names of the spans finished since `forget`."""
    return [span.name for span in spans]


def _note_everything() -> None:
    """Have the ledger and the tracer of this process also keep what they are told."""
    from opentelemetry.sdk.trace import SpanProcessor

    from perflab.shadow.ledger import Ledger
    from perflab.shadow.scope import process

    class Noting(Ledger):
        def __init__(self) -> None:
            super().__init__()
            self.noted: list[Any] = []

        def claim(self, store: str, fingerprint: str, begin_ns: int, end_ns: int, **more: bool) -> None:
            super().claim(store, fingerprint, begin_ns, end_ns, **more)
            self.noted.append(("claim", [store, fingerprint, begin_ns, end_ns]))

        def refuse(self, store: str, what: str, trace_id: int) -> None:
            super().refuse(store, what, trace_id)
            self.noted.append(("refuse", [store, what, trace_id]))

        def session(self, store: str, user: str, database: str, *, shadow: bool) -> None:
            super().session(store, user, database, shadow=shadow)
            self.noted.append(("session", [store, user, database, shadow]))

        def step_aside(self, where: str) -> None:
            super().step_aside(where)
            self.noted.append(("step_aside", [where]))

    class Keeping(SpanProcessor):
        def on_end(self, span: Any) -> None:
            spans.append(span)

    ledger = Noting()
    ledger.hooks, ledger.uncovered = process.ledger.hooks, process.ledger.uncovered
    process.ledger = ledger
    process.tracer.span_processor.add_span_processor(Keeping())  # type: ignore[attr-defined]


def _load(file: str) -> Any:
    name = Path(file).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def allow_pauses(allowed: bool) -> None:
    """Have a list believed without a controller for as long as a busy machine may pause, or as ever."""
    from perflab.shadow import control

    as_ever.setdefault("stale_after_s", control.STALE_AFTER_S)
    control.STALE_AFTER_S = PAUSE_S if allowed else as_ever["stale_after_s"]


def main() -> None:
    """Answer calls until standard input ends."""
    sys.modules["attached_service"] = sys.modules["__main__"]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    attached = "PERFLAB_AGENT" in os.environ
    if attached:
        _note_everything()
        allow_pauses(True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                if attached:
                    poll()
                value = getattr(_load(asked["file"]), asked["name"])(*asked["arguments"])
                answer = {"value": runner.run(value) if inspect.iscoroutine(value) else value}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer, default=str) + "\n")
            answers.flush()


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = 20.0) -> Any:
    """Return the first true answer of a condition, asked again and again until the deadline."""
    until = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {deadline_s:g} s")
        time.sleep(0.02)
    return answer


if __name__ == "__main__":
    main()
