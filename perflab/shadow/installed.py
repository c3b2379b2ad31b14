"""Whether the agent's files are still those this process started with.

A package manager replaces the files of a running service when the agent is upgraded or rolled back. What was
imported goes on as it was; what is imported later would be another version's, and must not be mixed in: a
library that is imported then is left unhooked and reported, until the service is restarted. Ordinary work
does not notice.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import perflab

_FILE = Path(perflab.__file__)


def _identity() -> tuple[int, int, int] | None:
    try:
        found = os.stat(_FILE)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


_at_start = _identity()


def may_import(module: str) -> bool:
    """Tell whether a module of ours is this version's: imported already, or on disk as at the start."""
    return module in sys.modules or (_at_start is not None and _identity() == _at_start)
