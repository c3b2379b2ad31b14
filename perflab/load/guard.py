"""What stops a run: a limit, watched window by window, and a probe that feeds it.

A guard is a synchronous step, `Guard.observe`: one reading in, a `Breach` or nothing out. It does not know
where readings come from; any async callable that returns one per window is a probe. Nothing measured is
not nothing wrong: a probe that fails or stays silent breaches too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from perflab.config import GuardRule
from perflab.errors import ConfigError, LoadError
from perflab.units import NS_PER_MS, duration_ns

logger = logging.getLogger(__name__)

Whose = Literal["shadow", "real_users"]
Metric = Literal["p50_ms", "p95_ms", "p99_ms", "error_ratio"]

FEWEST = 5
"""Requests a judgement needs; windows with fewer are gathered until they have as many."""

VANISHED_WINDOWS = 3
"""Windows without any request, where the baseline had plenty, that count as a breach."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe saw in one window.

    Parameters
    ----------
    count : int
        Requests that ended in the window, or waited for their answer through all of it.
    errors : int
        How many of them failed.
    p50_ms, p95_ms, p99_ms : float
        Latency percentiles; a request still waiting counts with its age.
    """

    count: int
    errors: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def error_ratio(self) -> float:
        """Share of failed requests, 0 where there were none at all."""
        return self.errors / self.count if self.count else 0.0


Probe = Callable[[], Awaitable[Reading | None]]
"""Called once per window; returns what was seen since the last call, or None if nothing is known."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit broken for long enough to stop the run.

    Parameters
    ----------
    rule : GuardRule
        The limit.
    reason : str
        One English sentence for people.
    value, limit : float
        What was seen last and what was allowed, in the metric's unit; both 0 where nothing was measured.
    """

    rule: GuardRule
    reason: str
    value: float = 0.0
    limit: float = 0.0


class Guard:
    """A limit that stops the run after N consecutive windows beyond it.

    Windows of fewer than ``fewest`` requests neither breach nor clear. They are gathered until together
    they have enough and then judged as one window: counts add up, p95 and p99 are the highest seen
    (exact for so few), p50 is the mean weighted by count. So traffic that trickles is judged as well,
    only later.

    Parameters
    ----------
    rule : GuardRule
        The limit, as ``perflab.toml`` describes it.
    probe : Probe, optional
        Where readings come from, for `check`.
    fewest : int
        Requests a judgement needs.
    """

    def __init__(self, rule: GuardRule, probe: Probe | None = None, *, fewest: int = FEWEST) -> None:
        self.rule = rule
        self.probe = probe
        self.fewest = fewest
        self._baseline: Reading | None = None
        self._baseline_windows = 1
        self._gathered: list[Reading] = []
        self._beyond = 0
        self._silent = 0
        self._empty = 0

    @classmethod
    def p50(cls, below: str, of: Whose = "shadow", windows: int = 2) -> Guard:
        """Stop when the median latency is above a human duration."""
        return cls(_latency_rule("p50_ms", below, of, windows))

    @classmethod
    def p95(cls, below: str, of: Whose = "shadow", windows: int = 2) -> Guard:
        """Stop when the 95th percentile of the latency is above a human duration."""
        return cls(_latency_rule("p95_ms", below, of, windows))

    @classmethod
    def p99(cls, below: str, of: Whose = "shadow", windows: int = 2) -> Guard:
        """Stop when the 99th percentile of the latency is above a human duration.

        Examples
        --------
        >>> guard = Guard.p99(below="800ms", windows=2)
        >>> guard.observe(Reading(50, p99_ms=900.0))
        >>> guard.observe(Reading(50, p99_ms=950.0)).reason
        'p99 of shadow requests was 950 ms, above its limit of 800 ms, in 2 windows one after another'
        """
        return cls(_latency_rule("p99_ms", below, of, windows))

    @classmethod
    def errors(cls, below: float, of: Whose = "shadow", windows: int = 2) -> Guard:
        """Stop when the share of failed requests is above a ratio between 0 and 1."""
        if not 0 <= below <= 1:
            raise ConfigError(f"an error ratio lies between 0 and 1, not {below}")
        return cls(_rule(of, "error_ratio", below, windows))

    def on(self, probe: Probe | None) -> Guard:
        """Return a fresh guard with the same rule on another probe."""
        return Guard(self.rule, probe, fewest=self.fewest)

    def set_baseline(self, reading: Reading | None, windows: int = 1) -> None:
        """Take what was seen before the run as what is normal.

        Parameters
        ----------
        reading : Reading or None
            All requests before the run; None if nothing is known.
        windows : int
            How many windows the reading covers.

        Raises
        ------
        LoadError
            If the rule compares with it and it has too few requests to compare with.
        """
        if self.rule.factor is not None and (reading is None or reading.count < self.fewest):
            seen = 0 if reading is None else reading.count
            raise LoadError(
                f"cannot guard {_subject(self.rule)} against what is normal: {seen} requests were seen "
                f"before the run, {self.fewest} are needed; wait longer, check the probe, or use 'below'"
            )
        self._baseline = reading
        self._baseline_windows = max(windows, 1)

    @property
    def limit(self) -> float:
        """The limit in the metric's unit.

        Raises
        ------
        LoadError
            If the rule is a factor and there is no baseline yet.
        """
        if self.rule.below is not None:
            return self.rule.below
        if self._baseline is None or self.rule.factor is None:
            raise LoadError(f"the guard on {_subject(self.rule)} has no baseline; set_baseline comes first")
        normal: float = getattr(self._baseline, self.rule.metric)
        return normal * self.rule.factor + self.rule.slack

    async def check(self, timeout_s: float = 1.0) -> Breach | None:
        """Ask the probe for one window and judge it; a probe that fails counts as silent.

        Raises
        ------
        LoadError
            If the guard has no probe.
        """
        if self.probe is None:
            raise LoadError(f"the guard on {_subject(self.rule)} has no probe")
        try:
            async with asyncio.timeout(timeout_s):
                reading = await self.probe()
        except Exception as error:  # a stranger's probe may raise anything; silence is a breach in time
            logger.warning("the probe of %s failed: %s", _subject(self.rule), str(error) or repr(error))
            reading = None
        return self.observe(reading)

    def observe(self, reading: Reading | None) -> Breach | None:
        """Judge one window.

        Parameters
        ----------
        reading : Reading or None
            What was seen; None if the probe failed.

        Returns
        -------
        Breach or None
            A breach when this window makes the run stop.
        """
        if reading is None:
            self._silent += 1
            if self._silent < self.rule.windows:
                return None
            return Breach(
                self.rule,
                f"nothing could be measured of {_subject(self.rule)} in {self._silent} windows "
                "one after another",
            )
        self._silent = 0
        if reading.count == 0:
            return self._observe_empty()
        self._empty = 0
        self._gathered.append(reading)
        window = _gather(self._gathered)
        if window.count < self.fewest:
            return None
        self._gathered.clear()
        return self._judge(window)

    def __repr__(self) -> str:
        return f"Guard({self.rule!r})"

    def _observe_empty(self) -> Breach | None:
        normal = self._baseline.count / self._baseline_windows if self._baseline else 0.0
        if normal < self.fewest:
            return None
        self._empty += 1
        if self._empty < max(self.rule.windows, VANISHED_WINDOWS):
            return None
        return Breach(
            self.rule,
            f"requests of {_who(self.rule)} vanished: none in {self._empty} windows one after another, "
            f"{normal:.3g} in each before the run",
        )

    def _judge(self, window: Reading) -> Breach | None:
        value, limit = getattr(window, self.rule.metric), self.limit
        if value <= limit:
            self._beyond = 0
            return None
        self._beyond += 1
        if self._beyond < self.rule.windows:
            return None
        factor = f" ({self.rule.factor:g} times what it was before the run)" if self.rule.factor else ""
        reason = (
            f"{_subject(self.rule)} was {_show(self.rule, value)}, above its limit of "
            f"{_show(self.rule, limit)}{factor}, in {self._beyond} windows one after another"
        )
        return Breach(self.rule, reason, value, limit)


def _latency_rule(metric: Metric, below: str, of: Whose, windows: int) -> GuardRule:
    return _rule(of, metric, duration_ns(below) / NS_PER_MS, windows)


def _rule(of: Whose, metric: Metric, below: float, windows: int) -> GuardRule:
    try:
        return GuardRule(of=of, metric=metric, below=below, windows=windows)
    except ValueError as error:
        raise ConfigError(f"cannot guard {metric}: {error}") from error


def _gather(readings: Iterable[Reading]) -> Reading:
    readings = tuple(readings)
    count = sum(reading.count for reading in readings)
    return Reading(
        count,
        sum(reading.errors for reading in readings),
        sum(reading.p50_ms * reading.count for reading in readings) / count,
        max(reading.p95_ms for reading in readings),
        max(reading.p99_ms for reading in readings),
    )


def _who(rule: GuardRule) -> str:
    return "real users" if rule.of == "real_users" else "the shadow traffic"


def _subject(rule: GuardRule) -> str:
    whose = "real users'" if rule.of == "real_users" else "shadow"
    name = "error ratio" if rule.metric == "error_ratio" else rule.metric.removesuffix("_ms")
    return f"{name} of {whose} requests"


def _show(rule: GuardRule, value: float) -> str:
    return f"{value:.2%}" if rule.metric == "error_ratio" else f"{value:.4g} ms"
