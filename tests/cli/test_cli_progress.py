"""How a run is told on a terminal, and how it is interrupted."""

from __future__ import annotations

import io
import os
import signal
import sys
import time

import pytest

from perflab.cli._progress import Teller, following, interruptible, interrupts_kept, uninterrupted


def test_events_are_told_in_plain_lines():
    """Phases, holes, leaks, guards and real users each have a line; what only machines need has none."""
    # GIVEN a teller
    stream = io.StringIO()
    teller = Teller(stream)
    # WHEN events come
    teller.watch("phase", {"name": "preflight"})
    teller.watch("hole", {"why": "no agent in cart", "accepted": False})
    teller.watch("leak", {"where": "orders"})
    teller.watch("guard tripped", {"reason": "p99 was 900 ms"})
    teller.watch("real users", {"when": "before", "n": 9, "p50_ms": 12.0, "p99_ms": 40.0, "error_ratio": 0.5})
    teller.watch("agents", {"believing": []})
    # THEN those people read are told
    said = stream.getvalue().splitlines()
    assert [line.split(" s  ", 1)[1] for line in said] == [
        "preflight: one marked request per endpoint",
        "hole: no agent in cart",
        "leak: orders",
        "guard tripped: p99 was 900 ms",
        "real users before: 9 requests, p50 12 ms, p99 40 ms, errors 50.0%",
    ]


def test_sigterm_interrupts_as_ctrl_c_does():
    """SIGTERM raises KeyboardInterrupt inside the block; afterwards the old handler is back."""
    # GIVEN the handler there is
    before = signal.getsignal(signal.SIGTERM)
    # WHEN a SIGTERM comes in the block
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    # THEN the old handler is back
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_in_a_finalizer_is_heard_again(capsys):
    """Ctrl-C that comes while a finalizer runs, where Python ignores it, ends the work a moment later."""

    # GIVEN an object in whose finalizer the signal comes
    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    hook = sys.unraisablehook

    def work():
        with interrupts_kept():
            Dying()
            end_s = time.monotonic() + 10
            while time.monotonic() < end_s:
                time.sleep(0.01)

    # WHEN it dies amid work
    with pytest.raises(KeyboardInterrupt):
        work()
    # THEN the work ended and nothing was printed; the old hook is back
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cleaning_up_ends_before_an_interrupt_is_heard(number):
    """Signals that come while something is cleaned up are heard once it is done."""
    # GIVEN a cleaning-up in which two signals come
    before = signal.getsignal(number)
    done = []

    def clean_up():
        with uninterrupted():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            done.append("cleaned up")

    # WHEN it runs
    with pytest.raises(KeyboardInterrupt):
        clean_up()
    # THEN it came to its end first, and the old handler is back
    assert done == ["cleaned up"]
    assert signal.getsignal(number) is before


def test_long_work_tells_lines_where_nobody_watches(capsys):
    """Not every step: the last one at once, others after some seconds."""
    with following(1000, "spans") as watch:
        watch(250, 1000)
        watch(1000, 1000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("s  1,000 of 1,000 spans")
