"""What is refused before anything is started: what a target does not allow or nobody could watch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perflab.config import Target
from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.guard import Guard
from perflab.units import NS_PER_S, duration_ns


def check_limits(arrivals: Arrivals, target: Target, guards: Sequence[Guard]) -> None:
    """Check a run against its target.

    Parameters
    ----------
    arrivals : Arrivals
        When requests are sent.
    target : Target
        What is allowed.
    guards : sequence of Guard
        Limits on top of the target's.

    Raises
    ------
    ConfigError
        If rate or length are above the target's, a guard has nothing to look at, the control key cannot be
        read, or there is no place for the list of live runs.
    """
    if arrivals.peak_per_s > target.max_rate_per_s:
        raise ConfigError(
            f"the arrivals reach {arrivals.peak_per_s:g} requests a second; "
            f"the target allows {target.max_rate_per_s:g}"
        )
    if arrivals.duration_ns > duration_ns(target.max_duration):
        seconds = arrivals.duration_ns / NS_PER_S
        raise ConfigError(f"the arrivals last {seconds:g} s; the target allows {target.max_duration}")
    rules = [*target.guards, *(guard.rule for guard in guards)]
    if target.real_users is None and any(rule.of == "real_users" for rule in rules):
        raise ConfigError("a guard watches real users, but the target does not say where; add real_users")
    if target.real_users is not None and target.real_users.service not in target.services:
        raise ConfigError(
            f"real users are measured in service {target.real_users.service!r}, which the target does not "
            f"list; there are: {', '.join(sorted(target.services)) or 'none'}"
        )
    target.control_key.read()
    folder = Path(target.control).absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"there is no directory {folder} for the list of live runs ('control')")
