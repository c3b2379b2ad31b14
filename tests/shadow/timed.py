"""How long a call takes, for tests that compare two of them."""

from __future__ import annotations

import time
from collections.abc import Callable


def fastest(call: Callable[[], object]) -> float:
    """Return the shortest of several times a call took, in CPU seconds: others use the machine, too."""
    times = []
    for _ in range(7):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)
