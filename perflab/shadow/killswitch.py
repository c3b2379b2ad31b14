"""The kill switch: end runs from anywhere the control list can be written, also past a controller that hangs.

Killing writes twice. First the kill file (`perflab.shadow.killfile`): the controller flags the runs in every
list it publishes from then on, and stops. Then the list itself, with the flags set, for the attached
processes that are to hear of it while the controller does not move. They keep what they heard: a run once
seen killed never lives again (`perflab.shadow.control`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from perflab.errors import ConfigError
from perflab.shadow.control import ControlList, decode, encode
from perflab.shadow.killfile import note_killed, replace_file

_UNKNOWN_FOR_S = 86_400


def kill(control: Path, control_key: bytes, by: str, run_id: str = "") -> list[str]:
    """Kill one run, or all that are listed.

    Parameters
    ----------
    control : Path
        Of the control list.
    control_key : bytes
        Signs it.
    by : str
        Who kills, for the run's verdict.
    run_id : str
        The run; "" = all.

    Returns
    -------
    list of str
        The ids of the killed runs; empty when none was listed.

    Raises
    ------
    ConfigError
        If the list cannot be read and no run is named, or the named one is not on it.
    OSError
        If nothing can be written there.
    """
    try:
        listed = decode(control.read_bytes(), control_key)
    except (OSError, ConfigError) as error:
        if not run_id:
            raise ConfigError(f"cannot tell which runs are live, so name the one to kill: {error}") from error
        note_killed(control, control_key, by, {run_id: int(time.time()) + _UNKNOWN_FOR_S})
        return [run_id]
    ends_s = {run.run_id: run.not_after_s for run in listed.runs if run_id in ("", run.run_id)}
    if run_id and not ends_s:
        there = ", ".join(run.run_id for run in listed.runs) or "none"
        raise ConfigError(f"no run {run_id!r} is listed; there are: {there}")
    if ends_s:
        note_killed(control, control_key, by, ends_s)
        runs = tuple(replace(run, killed=run.killed or run.run_id in ends_s) for run in listed.runs)
        replace_file(control, encode(ControlList(time.time(), runs, listed.delays_ns), control_key))
    return list(ends_s)
