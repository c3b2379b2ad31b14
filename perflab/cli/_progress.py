"""How a run is shown on a terminal: plain lines, and an end that is clean when interrupted."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LINES_EVERY_S = 5.0
"""Time between lines about long work, where nobody watches."""


class Teller:
    """Says what is going on, in plain lines."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._began_s = time.monotonic()
        self._told_s = 0.0

    def say(self, text: str) -> None:
        """Print one line with the time since the beginning."""
        print(f"{time.monotonic() - self._began_s:6.1f} s  {text}", file=self._stream, flush=True)

    def watch(self, what: str, details: Mapping[str, Any]) -> None:
        """Show one event of the run."""
        if what == "progress":
            if time.monotonic() - self._told_s >= 5:
                self._told_s = time.monotonic()
                counted = ("offered", "sent", "late", "missed", "in_flight")
                self.say(
                    "load: " + ", ".join(f"{name.replace('_', ' ')} {details[name]}" for name in counted)
                )
        elif what == "block":
            self.say(
                f"experiment: block {details['number']} of {details['of']}, {details['entity']} waits "
                f"{details['delay_ms']:g} ms"
            )
        elif what == "phase":
            self.say(_PHASES.get(details["name"], details["name"]))
        elif what in ("hole", "notice", "leak", "guard tripped", "service lost", "service died", "mark lost"):
            told = details.get("why") or details.get("reason") or details.get("where")
            self.say(f"{what}: {told}")
        elif what == "real users":
            self.say(
                f"real users {details['when']}: {details['n']} requests, p50 {details['p50_ms']:.0f} ms, "
                f"p99 {details['p99_ms']:.0f} ms, errors {details['error_ratio']:.1%}"
            )


_PHASES = {
    "agents": "waiting for the agents",
    "audit": "opening the audit of production's changes",
    "preflight": "preflight: one marked request per endpoint",
    "before": "watching real users as they are",
    "load": "sending shadow traffic",
    "after": "watching real users again",
    "proof": "proving isolation",
}


@contextmanager
def following(total: int, of: str) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error how far long work is: a bar where someone watches, lines where nobody does.

    Parameters
    ----------
    total : int
        How many there are.
    of : str
        What they are.

    Yields
    ------
    callable
        To be called with how many are done, and of how many.
    """
    if sys.stderr.isatty():
        from tqdm.auto import tqdm

        with tqdm(total=total, unit=f" {of}", unit_scale=True, leave=False) as bar:

            def advance(done: int, of_all: int) -> None:
                bar.total = of_all
                bar.update(done - bar.n)

            yield advance
        return
    teller, told_s = Teller(sys.stderr), [time.monotonic()]

    def tell(done: int, of_all: int) -> None:
        if done >= of_all or time.monotonic() - told_s[0] >= LINES_EVERY_S:
            told_s[0] = time.monotonic()
            teller.say(f"{done:,} of {of_all:,} {of}")

    yield tell


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM end the program as Ctrl-C does: cleanly; neither is lost in a finalizer."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with interrupts_kept():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Hear Ctrl-C again where it came in a finalizer, in which Python ignores what is raised.

    The signal handler raises wherever the main thread happens to be, and the collector may be calling a
    ``__del__`` or a weak reference's callback just then: without this such an interrupt is printed and lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, main = sys.unraisablehook, threading.main_thread().ident

    def hear_again(ignored: Any) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
        elif main is not None:
            # a little later and from elsewhere: raised here it would be ignored again
            again = threading.Timer(0.01, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()

    sys.unraisablehook = hear_again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a cleaning-up end before Ctrl-C or SIGTERM is heard: raised afterwards, however often it came."""
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, _: heard.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt
