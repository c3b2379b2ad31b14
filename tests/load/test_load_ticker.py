"""The timer."""

from __future__ import annotations

import asyncio
import time

from perflab.load.ticker import Ticker


def test_it_fires_on_time_and_never_early():
    """Twenty ticks 3.7 ms apart: none early, and the usual one far closer than a millisecond."""

    async def work():
        fired = []
        done = asyncio.Event()

        def fire():
            fired.append(time.monotonic_ns())
            if len(fired) < len(due):
                ticker.arm(due[len(fired)])
            else:
                done.set()

        ticker = Ticker(asyncio.get_running_loop(), fire)
        due = [time.monotonic_ns() + (at + 1) * 3_700_000 for at in range(20)]
        ticker.arm(due[0])
        await asyncio.wait_for(done.wait(), 10)
        ticker.close()
        ticker.close()
        return [at - wanted for at, wanted in zip(fired, due, strict=True)]

    late_ns = sorted(asyncio.run(work()))
    assert late_ns[0] >= 0
    assert late_ns[5] < 1_000_000


def test_a_time_that_is_past_fires_at_once():
    """Also one before the clock began."""

    async def work(at_ns):
        fired = asyncio.Event()
        ticker = Ticker(asyncio.get_running_loop(), fired.set)
        ticker.arm(at_ns)
        await asyncio.wait_for(fired.wait(), 5)
        ticker.close()

    for at_ns in (-5, 0, time.monotonic_ns() - 1):
        asyncio.run(work(at_ns))
