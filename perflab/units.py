"""Times and rates as people write them, to and from the int64 nanoseconds used inside."""

from __future__ import annotations

import re

from perflab.errors import ConfigError

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

_UNIT_NS = {
    "ns": 1,
    "us": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|min|s|h)")


def duration_ns(text: str) -> int:
    """Read a human duration.

    Parameters
    ----------
    text : str
        One or more ``<number><unit>`` parts, units ``ns us ms s min h``.

    Returns
    -------
    int
        Nanoseconds, rounded to the nearest.

    Raises
    ------
    ConfigError
        If the text is not a duration.

    Examples
    --------
    >>> duration_ns("5min")
    300000000000
    >>> duration_ns("1.5s"), duration_ns("1min 30s")
    (1500000000, 90000000000)
    """
    parts = list(_PART.finditer(text.strip()))
    if not parts or _PART.sub("", text).strip():
        raise ConfigError(f"{text!r} is not a duration; write it as '250ms', '30s', '5min' or '1h 30min'")
    return sum(round(float(part[1]) * _UNIT_NS[part[2]]) for part in parts)


def duration_s(text: str) -> float:
    """Read a human duration as float seconds (see `duration_ns`).

    Examples
    --------
    >>> duration_s("250ms")
    0.25
    """
    return duration_ns(text) / NS_PER_S


def show_ns(value_ns: float) -> str:
    """Write nanoseconds in the unit a reader would choose.

    Examples
    --------
    >>> show_ns(1_500_000), show_ns(250), show_ns(92_000_000_000)
    ('1.5 ms', '250 ns', '92 s')
    """
    for unit, size in (("s", NS_PER_S), ("ms", NS_PER_MS), ("us", NS_PER_US)):
        if abs(value_ns) >= size:
            return (
                f"{value_ns / size:.3g} {unit}"
                if value_ns < 1000 * size
                else f"{value_ns / size:,.0f} {unit}"
            )
    return f"{value_ns:.0f} ns"
