"""What judging a request costs, as a ratio to one plain HMAC in the same session."""

from __future__ import annotations

import hmac
import statistics
import timeit
from collections.abc import Callable

import pytest

from perflab.shadow.mark import RunKey, judge, mint

RUN = RunKey(0x1A2B, b"r" * 32, 1_800_000_600)
LIVE = {RUN.tag: RUN}
MARK = mint(RUN, 0x0123_4567_89AB_CDEF, 1_800_000_000)
STATE, BAGGAGE = (f"perflab={MARK.token}" for _ in range(2))
UNRELATED = 0xFACE_0000_0000_0000_0000_0000_0000_0001


def marked() -> str:
    return judge(MARK.trace_id, STATE, BAGGAGE, LIVE, 1_800_000_001).kind


def by_trace_id() -> str:
    return judge(MARK.trace_id, "vendor=a;b", "user=7", LIVE, 1_800_000_001).kind


def unmarked() -> str:
    return judge(UNRELATED, "vendor=a;b", "user=7", LIVE, 1_800_000_001).kind


@pytest.mark.parametrize(
    ("judging", "kind", "at_most"),
    [(marked, "marked", 3.0), (by_trace_id, "marked", 7.0), (unmarked, "ordinary", 0.5)],
)
def test_judging_costs_about_an_hmac(judging: Callable[[], str], kind: str, at_most: float):
    """Marked by a token: about 1.6 of `hmac.digest`, the shortest there is; unmarked: about an eighth."""
    assert judging() == kind
    ratios = []
    for _ in range(41):
        ours = timeit.timeit(judging, number=1_000)
        plain = timeit.timeit(lambda: hmac.digest(RUN.key, b"x" * 65, "sha256"), number=1_000)
        ratios.append(ours / plain)
    print(f"{judging.__name__}: {statistics.median(ratios):.2f} of an HMAC")
    assert statistics.median(ratios) < at_most
