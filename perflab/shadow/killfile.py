"""The kill file: beside the control list, signed as it is, it says which runs were killed and by whom.

The controller of a run looks at it four times a second; `perflab.shadow.killswitch` writes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from perflab.errors import ConfigError
from perflab.shadow.signing import opened, signed

_WHAT = "kill file"


def killers(control: Path, control_key: bytes) -> dict[str, str]:
    """Return who killed which run, by run id; a file that is not there or not believed says nothing."""
    return {run_id: by for run_id, (by, _) in _entries(control, control_key).items()}


def note_killed(control: Path, control_key: bytes, by: str, ends_s: Mapping[str, int]) -> None:
    """Add runs to the kill file; those whose time is over leave it.

    Parameters
    ----------
    control : Path
        Of the control list.
    control_key : bytes
        Signs the file.
    by : str
        Who kills, for the run's verdict.
    ends_s : mapping of str to int
        Run id -> Unix time after which its marks are worth nothing anyway.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    now_s = time.time()
    before = {run_id: entry for run_id, entry in _entries(control, control_key).items() if entry[1] >= now_s}
    entries = {**{run_id: (by, end_s) for run_id, end_s in ends_s.items()}, **before}
    replace_file(_beside(control), signed(_WHAT, entries, control_key))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, by rename, and leave nothing else behind.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _beside(control: Path) -> Path:
    return control.with_name(f"{control.name}.kill")


def _entries(control: Path, control_key: bytes) -> dict[str, tuple[str, int]]:
    try:
        content, _ = opened(_WHAT, _beside(control).read_bytes(), control_key)
        return {str(run_id): (str(by), int(end_s)) for run_id, (by, end_s) in content.items()}
    except (OSError, ConfigError, ValueError, TypeError, KeyError, AttributeError):
        return {}
