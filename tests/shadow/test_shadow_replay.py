"""Replay: the same mark below the same span is served once, in bounded memory."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from perflab.shadow.replay import Arrivals


def test_a_mark_arrives_once_below_each_span():
    """The first arrival is one; another span of the same mark is another call, the same span a copy."""
    arrivals = Arrivals()
    assert arrivals.is_first(7, 1)
    assert arrivals.is_first(7, 2)
    assert arrivals.is_first(8, 1)
    assert arrivals.is_first(7, 0)
    assert not arrivals.is_first(7, 1)
    assert not arrivals.is_first(7, 0)
    arrivals.forget()
    assert arrivals.is_first(7, 1)


def test_as_many_are_remembered_as_promised_and_not_more_than_twice():
    """Against a list of all arrivals: what came among the last n is known, what is older than 2n is not."""
    chance, arrivals, came = random.Random(5), Arrivals(kept=50), []
    for _ in range(3_000):
        again = came and chance.random() < 0.3
        back = chance.randrange(1, min(len(came), 160) + 1) if again else 0
        nonce = came[-back] if again else chance.getrandbits(64)
        first = arrivals.is_first(nonce, 3)
        if nonce in came[-50:]:
            assert not first
        if nonce not in came[-101:]:
            assert first
        if first:
            came.append(nonce)


def test_of_many_at_once_one_is_the_first():
    """However many threads bring the same mark at the same time, one of them is served."""
    arrivals = Arrivals()
    with ThreadPoolExecutor(8) as threads:
        for nonce in range(200):
            assert sum(threads.map(lambda _: arrivals.is_first(nonce, 1), range(16))) == 1  # noqa: B023 - done in this turn
