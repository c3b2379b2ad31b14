"""The generator's process and who watches it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from perflab.errors import LoadError, TargetRefused
from perflab.load.arrivals import Arrivals
from perflab.load.generator import Generator
from perflab.load.plan import Plan
from perflab.load.recording import rows_path
from perflab.trace.store import read_spans
from perflab.traffic.scenario import Endpoint, Scenario


def plan_for(target, *paths, rate=50.0, over="1s", **more):
    """Make a plan of plain GETs."""
    more.setdefault("arrivals", Arrivals.constant(rate, over))
    endpoints = tuple(Endpoint(path, path) for path in paths)
    return Plan("test-run", Scenario("s", endpoints), (target.address,), **more)


def is_running(pid):
    """Say whether a process runs; one that only waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, within_s):
    """Poll a condition and return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "it took too long"
        time.sleep(0.01)
    return time.monotonic() - began


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


def test_a_run_reports_progress_result_and_rows(target, mark, tmp_path):
    """Windows of progress add up to the result, and the rows are in the Parquet file."""
    output = tmp_path / "spans" / "generator.parquet"

    async def work():
        async with Generator(plan_for(target, "/ok", rate=100, output=str(output), mark=mark)) as generator:
            assert generator.started.arrivals == 100
            windows = [progress async for progress in generator]
            assert generator.latest == windows[-1]
            return generator.started, windows, await generator.wait()

    started, windows, result = run(work())
    # Given four lines a second, Then every request ended in one of the windows
    assert 3 <= len(windows) <= 8
    assert sum(count for window in windows for _, count in window.latencies) == 100
    assert (windows[-1].offered, windows[-1].sent, windows[-1].outcomes) == (100, 100, {"answered": 100})
    assert (result.answered, result.offered, result.stopped) == (100, 100, "")
    spans = read_spans(output)
    assert len(spans) == target.total == 100
    assert spans["scheduled_ns"].min() == started.start_ns
    assert not rows_path(output).exists()


def test_a_freeze_is_seen_as_an_ideal_open_observer_sees_it(target, tmp_path):
    """The server sleeps a second once: percentiles from the due time match those computed from the fault."""
    output = tmp_path / "generator.parquet"
    # Given 200 requests a second for four seconds, one of which freezes the server for a second
    endpoints = (Endpoint("ok", "/ok", weight=999), Endpoint("freeze", "/freeze/1000", weight=1))
    scenario = Scenario("s", endpoints)
    seed = next(
        seed
        for seed in range(10_000)
        if (at := np.flatnonzero(scenario.sequence(800, seed))).size == 1 and 200 < at[0] < 400
    )
    plan = Plan(
        "r",
        scenario,
        (target.address,),
        str(output),
        Arrivals.constant(200, "4s"),
        max_in_flight=512,
        seed=seed,
    )

    async def work():
        async with Generator(plan) as generator:
            return await generator.wait()

    result = run(work())
    # When an ideal observer asks at the same times, Then it waits for whatever is left of the freeze
    ((began, ended),) = target.freezes
    due = read_spans(output).sort_values("scheduled_ns")["scheduled_ns"].to_numpy()
    ideal = np.sort(np.where((due >= began - 5_000_000) & (due < ended), ended - due, 0)) / 1e6
    assert (result.missed, result.outcomes) == (0, {"answered": 800})
    assert result.p99_ms == pytest.approx(ideal[791], rel=0.05)
    assert result.max_ms == pytest.approx(ideal[-1], rel=0.05)
    # about a quarter of all requests fell into it: the median did not
    assert result.p50_ms < 200 < result.p99_ms


def test_a_stop_ends_a_run_early(target):
    """The reason comes back, and what was not due yet was never begun."""

    async def work():
        async with Generator(plan_for(target, "/ok", rate=100, over="60s")) as generator:
            async for progress in generator:
                if progress.sent >= 30:
                    await generator.stop("p99 was too high")
            return await generator.wait()

    result = run(work())
    assert result.stopped == "p99 was too high"
    assert 30 <= result.offered == target.total < 1000
    assert result.not_begun == 6000 - result.offered


def test_refusals_keep_their_kind(target):
    """An address that is not approved is `TargetRefused` here too."""
    plan = plan_for(target, "http://127.0.0.2:9/ok")

    async def work():
        async with Generator(plan):
            pass

    with pytest.raises(TargetRefused, match=r"127\.0\.0\.2:9 is not among"):
        run(work())


def test_rows_that_cannot_be_written_are_told(target, tmp_path):
    """A file in the way of the output's directory is an error that names it."""
    (tmp_path / "spans").write_text("in the way")

    async def work():
        plan = plan_for(target, "/ok", rate=5, output=str(tmp_path / "spans" / "x.parquet"))
        async with Generator(plan) as generator:
            return await generator.wait()

    with pytest.raises(LoadError, match="cannot write the generator's rows"):
        run(work())


def test_a_process_that_dies_is_an_error(target):
    """Killed from outside, it neither hangs nor passes for a result."""

    async def work():
        async with Generator(plan_for(target, "/ok", over="60s")) as generator:
            os.kill(generator.pid, signal.SIGKILL)
            await generator.wait()

    with pytest.raises(LoadError, match="ended with code -9"):
        run(work())


def test_a_cancelled_run_leaves_nothing_running(target):
    """Cancelling whoever waits ends the process before the cancellation is through."""
    pids = []

    async def work():
        async with Generator(plan_for(target, "/hang", over="60s")) as generator:
            pids.append(generator.pid)
            await generator.wait()

    async def cancel():
        task = asyncio.create_task(work())
        while not (pids and target.total):  # noqa: ASYNC110 - the server lives in another thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert not is_running(pids[0])


CONTROLLER = """
    import asyncio, sys
    from perflab.load.arrivals import Arrivals
    from perflab.load.generator import Generator
    from perflab.load.plan import Plan
    from perflab.traffic.scenario import Endpoint, Scenario

    async def main():
        scenario = Scenario("s", (Endpoint("a", sys.argv[2]),))
        plan = Plan("r", scenario, (sys.argv[1],), arrivals=Arrivals.constant(100, "60s"))
        async with Generator(plan) as generator:
            print(generator.pid, flush=True)
            await generator.wait()

    asyncio.run(main())
"""


@contextlib.contextmanager
def controller(target, path):
    """Run a controller in a process of its own and give it and its generator's pid."""
    command = [sys.executable, "-c", textwrap.dedent(CONTROLLER), target.address, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("path", ["/ok", "/hang"])
def test_the_generator_does_not_outlive_a_killed_controller(target, path):
    """Killed with SIGKILL, whatever was in flight: no request after it, no process two seconds later."""
    with controller(target, path) as (process, pid):
        wait_until(lambda: target.total >= 20, within_s=20)
        killed_s = time.monotonic()
        process.kill()
        wait_until(lambda: not is_running(pid), within_s=2)
    assert target.last_s - killed_s < 0.5


def test_the_generator_stops_when_its_controller_hangs(target):
    """A controller that is there but silent cannot watch its guards: sending stops within the lease."""
    with controller(target, "/ok") as (process, pid):
        wait_until(lambda: target.total >= 20, within_s=20)
        stopped_s = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: time.monotonic() - target.last_s > 0.5, within_s=4)
        assert target.last_s - stopped_s < 2.2
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not is_running(pid), within_s=5)
