"""Durations, read and shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perflab.errors import ConfigError
from perflab.units import duration_ns, duration_s, show_ns


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("5min", 300_000_000_000),
        ("1h 30min", 5_400_000_000_000),
        (" 2 min ", 120_000_000_000),
        ("1min30s", 90_000_000_000),
        ("0.1ms", 100_000),
    ],
)
def test_durations_as_people_write_them(text, expected_ns):
    """Each unit, sums of parts, white space and decimals."""
    assert duration_ns(text) == expected_ns
    assert duration_s(text) == expected_ns / 1e9


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 minutes", "-1s", "1e3s", "5m", "1s,2s", "1s x", "½s", "inf s"]
)
def test_what_is_no_duration_is_refused(text):
    """The message repeats the text and shows how durations are written."""
    with pytest.raises(ConfigError) as caught:
        duration_ns(text)
    assert repr(text) in str(caught.value)
    assert "'5min'" in str(caught.value)


@given(st.integers(0, 10**6), st.sampled_from(["ns", "us", "ms", "s", "min", "h"]))
def test_whole_numbers_are_exact(number, unit):
    """No whole number of a unit loses a nanosecond."""
    size = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}[unit]
    assert duration_ns(f"{number}{unit}") == number * size


@pytest.mark.parametrize(
    ("value_ns", "shown"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 us"),
        (-2_500_000, "-2.5 ms"),
        (123_456_789, "123 ms"),
        (92_000_000_000, "92 s"),
        (3_600_000_000_000, "3,600 s"),
    ],
)
def test_nanoseconds_as_readers_want_them(value_ns, shown):
    """Three figures in the unit a reader would choose."""
    assert show_ns(value_ns) == shown
