"""Say which of production's changes the agents' unmarked work accounts for, and which nothing does.

An attached process files a *claim* for every write of unmarked work: what it changed, and between which
two moments. Production's change stream says what was changed, and when. Every change is given a
claim of its own; what is left over is *unattributed*. The assignment is a maximum matching, so that a
change is left over only if no assignment at all covers more.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_SEARCH_STEPS = 2_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """One thing production did: a PostgreSQL transaction, a Redis command or MULTI block.

    Parameters
    ----------
    time_ns : int
        When, in Unix ns.
    fingerprints : tuple of str
        What; a claim of any of them accounts for it.
    weight : int
        How many changes it stands for (commands of a block).
    expirable : bool
        Whether the server may have made it by itself: a removal by expiry or eviction.
    where, what : str
        For people: where it happened, and what was done.
    """

    time_ns: int
    fingerprints: tuple[str, ...]
    weight: int = 1
    expirable: bool = False
    where: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What unmarked work says it wrote between two moments (Unix ns).

    ``count`` changes are accounted for by it. An ``opaque`` one could not tell what it changed: it
    accounts for any change in its interval that no exact claim accounts for. A ``background`` one was done
    outside of every request.
    """

    fingerprint: str
    begin_ns: int
    end_ns: int
    count: int = 1
    opaque: bool = False
    background: bool = False


@dataclass(frozen=True, slots=True)
class Attribution:
    """What `attribute` found.

    ``attributed`` counts changes with a claim of equal fingerprint, ``opaque`` those covered by time
    only, ``background`` those of either whose claim was filed outside of every request; ``unattributed`` are
    the others, oldest first. ``exhausted`` says that the search was cut
    short, so that a change may be left over although an assignment exists.
    """

    attributed: int
    opaque: int
    unattributed: tuple[Change, ...]
    exhausted: bool = False
    background: int = 0


def attribute(changes: Iterable[Change], claims: Iterable[Claim], slack_ns: int) -> Attribution:
    """Give every change a claim of its own.

    Parameters
    ----------
    changes : iterable of Change
        What the change stream brought.
    claims : iterable of Claim
        What the agents counted; claims nobody needs are left over without further ado.
    slack_ns : int
        By how much a change may lie outside its claim: differing clocks, and when it was read.

    Returns
    -------
    Attribution
        Of maximum size, and of those one that leaves over as few as possible of the changes that the server
        cannot have made by itself: a key that expires and is set again at once must not take the claim of the
        setting. Exact claims are assigned by sweeping the time and taking, at each change, the
        open claim that ends first, which is optimal for intervals and points (Glover 1967, "Maximum
        matching in a convex bipartite graph"); what remains goes along augmenting paths (Berge), which
        never uncover what is covered.

    Examples
    --------
    >>> insert = '[["orders","insert",1]]'
    >>> found = attribute([Change(15, (insert,)), Change(16, (insert,))], [Claim(insert, 10, 20)], slack_ns=0)
    >>> found.attributed, [change.time_ns for change in found.unattributed]
    (1, [16])
    """
    matching = _Matching(sorted(changes, key=lambda change: change.time_ns), list(claims), slack_ns)
    exhausted = matching.cover(expirable=False)
    exhausted = matching.cover(expirable=True) or exhausted
    exact = opaque = background = 0
    left: list[Change] = []
    for index, change in enumerate(matching.changes):
        at = matching.claim_of[index]
        if at < 0:
            left.append(change)
            continue
        claim = matching.claims[at]
        background += change.weight * claim.background
        if claim.fingerprint in change.fingerprints:
            exact += change.weight
        else:
            opaque += change.weight
    return Attribution(exact, opaque, tuple(left), exhausted, background)


@dataclass(slots=True)
class _Pool:
    """Claims that share a fingerprint, by their beginning."""

    members: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    longest_ns: int = 0


class _Matching:
    def __init__(self, changes: Sequence[Change], claims: Sequence[Claim], slack_ns: int) -> None:
        self.changes, self.claims, self.slack_ns = changes, claims, slack_ns
        self.claim_of = [-1] * len(changes)
        self._holds: list[list[int]] = [[] for _ in claims]
        self._pools: defaultdict[str, _Pool] = defaultdict(_Pool)
        self._opaque = _Pool()
        self._spent: set[int] = set()
        for index in sorted(range(len(claims)), key=lambda number: claims[number].begin_ns):
            claim = claims[index]
            for pool in [self._pools[claim.fingerprint]] + ([self._opaque] if claim.opaque else []):
                pool.members.append(index)
                pool.begins.append(claim.begin_ns)
                pool.longest_ns = max(pool.longest_ns, claim.end_ns - claim.begin_ns)

    def cover(self, *, expirable: bool) -> bool:
        """Give claims to one kind of changes, as many as can be; return whether the search was cut short."""
        wanted = [index for index, change in enumerate(self.changes) if change.expirable == expirable]
        self._sweep(wanted)
        left = [index for index in wanted if self.claim_of[index] < 0]
        # over intervals of one kind of claim that are all free the sweep is optimal
        is_mixed = bool(self._opaque.members) or any(len(self.changes[at].fingerprints) > 1 for at in wanted)
        return self._augment(left) if expirable or is_mixed else False

    def _sweep(self, wanted: Sequence[int]) -> None:
        """Assign exact claims per fingerprint, then opaque ones to what is left."""
        by_fingerprint: defaultdict[str, list[int]] = defaultdict(list)
        for index in wanted:
            for name in self.changes[index].fingerprints:
                if name in self._pools:
                    by_fingerprint[name].append(index)
        for name, points in by_fingerprint.items():
            self._sweep_pool(points, self._pools[name])
        self._sweep_pool(wanted, self._opaque)

    def _sweep_pool(self, points: Iterable[int], pool: _Pool) -> None:
        waiting: list[tuple[int, int]] = []
        entered = 0
        for index in points:
            if self.claim_of[index] >= 0:
                continue
            now_ns = self.changes[index].time_ns
            while entered < len(pool.members) and pool.begins[entered] - self.slack_ns <= now_ns:
                claim = pool.members[entered]
                heapq.heappush(waiting, (self.claims[claim].end_ns, claim))
                entered += 1
            while waiting and (waiting[0][0] + self.slack_ns < now_ns or not self._free(waiting[0][1])):
                heapq.heappop(waiting)
            if waiting:
                self._assign(index, waiting[0][1])

    def _augment(self, left: Iterable[int]) -> bool:
        """Search an augmenting path from changes without a claim; return whether it was cut short."""
        steps = _SEARCH_STEPS
        for start in left:
            reached_from: dict[int, int] = {}
            queue, found = [start], -1
            for index in queue:
                for claim in self._candidates(self.changes[index]):
                    steps -= 1
                    if claim in reached_from or claim in self._spent:
                        continue
                    reached_from[claim] = index
                    if self._free(claim):
                        found = claim
                        break
                    queue += self._holds[claim]
                if found >= 0 or steps <= 0:
                    break
            if found < 0 and steps > 0:  # whatever is reached from here leads to no free claim, now or later
                self._spent |= reached_from.keys()
            while found >= 0:
                index = reached_from[found]
                previous = self.claim_of[index]
                self._assign(index, found)
                found = previous
            if steps <= 0:
                return True
        return False

    def _candidates(self, change: Change) -> Iterable[int]:
        pools = [self._pools[name] for name in change.fingerprints if name in self._pools]
        for pool in [*pools, self._opaque]:
            first = bisect_left(pool.begins, change.time_ns - self.slack_ns - pool.longest_ns)
            last = bisect_right(pool.begins, change.time_ns + self.slack_ns)
            for claim in pool.members[first:last]:
                if self.claims[claim].end_ns + self.slack_ns >= change.time_ns:
                    yield claim

    def _free(self, claim: int) -> bool:
        return len(self._holds[claim]) < self.claims[claim].count

    def _assign(self, index: int, claim: int) -> None:
        previous = self.claim_of[index]
        if previous >= 0:
            self._holds[previous].remove(index)
        self._holds[claim].append(index)
        self.claim_of[index] = claim
