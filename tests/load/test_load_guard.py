"""Guards."""

from __future__ import annotations

import asyncio

import pytest

from perflab.config import GuardRule
from perflab.errors import ConfigError, LoadError
from perflab.load.guard import Guard, Reading


def slow(ms, count=50):
    return Reading(count, p50_ms=ms / 2, p95_ms=ms * 0.9, p99_ms=ms)


def test_consecutive_windows_stop_a_run_and_a_good_one_clears():
    """Only N breaching windows in a row count."""
    # Given a guard of three windows
    guard = Guard.p99(below="100ms", windows=3)
    # When two bad windows are followed by a good one, Then nothing stops
    assert [guard.observe(slow(ms)) for ms in (150, 150, 100)] == [None, None, None]
    # When three bad ones follow, Then the third stops the run and says why
    assert guard.observe(slow(101)) is None
    assert guard.observe(slow(101)) is None
    breach = guard.observe(slow(250))
    assert (breach.value, breach.limit) == (250, 100)
    assert "p99 of shadow requests was 250 ms" in breach.reason


def test_error_ratios_are_guarded():
    """More than the share allowed breaches; exactly the share does not."""
    guard = Guard.errors(below=0.01, of="real_users", windows=1)
    assert guard.observe(Reading(100, errors=1)) is None
    breach = guard.observe(Reading(100, errors=2))
    assert "error ratio of real users' requests was 2.00%" in breach.reason


def test_silence_is_a_breach():
    """A probe that fails or gives nothing N times in a row stops the run; one answer between clears it."""
    guard = Guard.p99(below="1s", windows=2)
    assert guard.observe(None) is None
    assert guard.observe(slow(5)) is None
    assert guard.observe(None) is None
    assert "nothing could be measured" in guard.observe(None).reason


def test_few_requests_are_gathered_until_they_can_be_judged():
    """Two requests a window neither breach nor clear by themselves, but are judged together."""
    guard = Guard.p99(below="100ms", windows=2)
    # Given a breaching window, When two thin good windows follow, Then they do not clear it
    assert guard.observe(slow(200)) is None
    assert guard.observe(slow(10, count=2)) is None
    assert guard.observe(slow(10, count=2)) is None
    # and the third makes six requests, whose highest p99 counts
    breach = guard.observe(slow(150, count=2))
    assert breach.value == 150
    # and traffic that only trickles, all slow, is stopped as well
    trickle = Guard.p99(below="100ms", windows=2)
    assert [trickle.observe(slow(300, count=1)) is not None for _ in range(10)].index(True) == 9


def test_real_users_are_compared_with_themselves():
    """A factor is of the baseline, plus slack."""
    rule = GuardRule(of="real_users", metric="p95_ms", factor=1.5, slack=2.0, windows=1)
    guard = Guard(rule)
    with pytest.raises(LoadError, match="no baseline"):
        guard.observe(slow(20))
    # Given a baseline p95 of 18 ms, the limit is 29 ms
    guard = Guard(rule)
    guard.set_baseline(slow(20))
    assert guard.limit == 29
    assert guard.observe(Reading(50, p95_ms=29)) is None
    assert "1.5 times what it was before the run" in guard.observe(Reading(50, p95_ms=30)).reason


def test_a_baseline_of_too_few_requests_is_refused():
    """Nothing normal can be said from four requests, or none."""
    guard = Guard(GuardRule(of="real_users", metric="p95_ms", factor=2))
    for reading in (Reading(4), None):
        with pytest.raises(LoadError, match="5 are needed"):
            guard.set_baseline(reading)


def test_real_users_that_vanish_are_a_breach():
    """Where there were ten a window before, none in three windows is harm, not quiet."""
    guard = Guard.p99(below="1s", of="real_users", windows=1)
    assert [guard.observe(Reading(0)) for _ in range(5)] == [None] * 5
    guard.set_baseline(slow(10, count=100), windows=10)
    assert [guard.observe(Reading(0)) for _ in range(2)] == [None] * 2
    assert "vanished" in guard.observe(Reading(0)).reason


def test_a_probe_is_asked_and_its_failures_counted():
    """A probe's reading is judged; its exception or delay counts as silence."""

    async def run():
        answers = iter([slow(200), OSError("gone"), None, "late"])

        async def probe():
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            if answer == "late":
                await asyncio.Event().wait()
            return answer

        guard = Guard.p99(below="1s", windows=3).on(probe)
        return [await guard.check(timeout_s=0.05) for _ in range(4)]

    found = asyncio.run(run())
    assert found[:3] == [None] * 3
    assert "nothing could be measured" in found[3].reason


def test_wrong_guards_are_refused():
    """Limits that make no sense are told at once."""
    with pytest.raises(ConfigError, match="not 5"):
        Guard.errors(below=5)
    with pytest.raises(ConfigError, match="not a duration"):
        Guard.p99(below="soon")
    with pytest.raises(ConfigError, match="at least 1"):
        Guard.p99(below="1s", windows=0)
