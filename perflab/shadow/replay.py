"""Replay: one mark is served once. A copy of a marked request is refused where the first was served.

Every hop, and every call of a fan-out, has a span of its own, so the same mark below the same parent span
is a copy: a captured request that is sent again, or a proxy that repeats one it had no answer to (as
``proxy_next_upstream`` does, and urllib3's own retries): its work may have been done, so it is not done
twice. The memory is bounded by count, not by time, since a bare trace-id has no time in it: a mark is
remembered for at least the next `KEPT` marked requests of the process, so longer than a token lives up to
a thousand of them a second.

What is left: each process of a service has a memory of its own (a forked one begins with its parent's). So a
copy may be served once by each other process, within the life of its token; and a bare trace-id, whose life
is its run's, again after `KEPT` others.
"""

from __future__ import annotations

import threading

KEPT = 131_072
"""Marks remembered at least; at most twice as many, about 20 MB."""


class Arrivals:
    """The marks that have arrived in one process, in two generations of which the older is dropped whole.

    Parameters
    ----------
    kept : int
        How many are remembered at least.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._recent: set[int] = set()
        self._before: set[int] = set()

    def is_first(self, nonce: int, span_id: int) -> bool:
        """Note the arrival of a mark, and tell whether it is the first below this parent span (0 = none)."""
        arrival = nonce << 64 | span_id
        with self._lock:
            if arrival in self._recent or arrival in self._before:
                return False
            if len(self._recent) >= self._kept:
                self._before, self._recent = self._recent, set()
            self._recent.add(arrival)
            return True

    def forget(self) -> None:
        """Forget all: no run is live whose marks could come again."""
        with self._lock:
            self._recent, self._before = set(), set()
