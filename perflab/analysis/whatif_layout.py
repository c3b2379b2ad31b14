"""Requests laid out to be replayed: what each span waited for, and its own work in between.

`Layout.of` takes what a trace says about order; the other methods ask what follows from it. The work itself
is done in machine code (`perflab.analysis.whatif_replay`), once per span and question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perflab.analysis.pathtable import Walked
from perflab.analysis.summing import sum_per_request

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layout:
    """The spans requests could have waited for, as arrays over places.

    Places run request by request; within one breadth first, the children of a span side by side in the
    order they began.

    Attributes
    ----------
    offsets : int64[requests + 1]
        Request ``r`` is at ``offsets[r]`` to ``offsets[r + 1] - 1``, its root first.
    row : int64[m]
        Row of the span table.
    code : int64[m]
        Its entity.
    begin, finish : int64[m]
        The span's derived interval, clipped to its parent's.
    first, last : int64[m]
        The places of its children, ``last`` not included.
    before : int64[m]
        What its parent worked before this span began, since it last waited for anything.
    after : int64[m]
        What it worked itself after all its children were over; of a span without children all of it.
    follower : int64[m]
        The first place beside it that begins after it; the end of its siblings where there is none.
    overlap : int64[m]
        How long after its follower began it was over: forgiven, as by the strict rule.
    """

    offsets: Int64s
    row: Int64s
    code: Int64s
    begin: Int64s
    finish: Int64s
    first: Int64s
    last: Int64s
    before: Int64s
    after: Int64s
    follower: Int64s
    overlap: Int64s

    @classmethod
    def of(cls, walked: Walked) -> Layout:
        """Lay the requests of walked traces out, in the order of ``walked.roots``."""
        from perflab.analysis.whatif_replay import lay_out
        from perflab.compiled import in_one_piece

        tree = walked.tree
        offsets, row, *rest = lay_out(
            in_one_piece(tree.parent_row),
            in_one_piece(tree.start_ns),
            in_one_piece(tree.end_ns),
            in_one_piece(tree.span_id, np.uint64),
            in_one_piece(tree.kind_rank),
            in_one_piece(tree.is_call, bool),
            in_one_piece(tree.is_detached, bool),
            in_one_piece(walked.roots),
        )
        return cls(offsets, row, walked.entities.code[row], *rest)

    @property
    def before_ns(self) -> Int64s:
        """Duration of each request, as it was."""
        roots = self.offsets[:-1]
        return self.finish[roots] - self.begin[roots]

    def replay(self, factor: Floats) -> Int64s:
        """Return the duration of each request with each entity's work multiplied by its factor."""
        from perflab.analysis.whatif_replay import replay_all
        from perflab.compiled import in_one_piece

        return replay_all(in_one_piece(factor, np.float64), self.code, self.offsets, *self._orders)

    def own_work(self, entities: int) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """Return ``request code calls own_ns``: what each entity worked in each request, on a path or not."""
        own = self.after.copy()
        np.add.at(own, self.parent, self.before)  # a root's is 0
        return sum_per_request(self._request, self.code, own, len(self.offsets) - 1, entities)

    def without(self, request: Int64s, code: Int64s, factor: Floats) -> Int64s:
        """Return the duration of requests without the work of one entity, for pairs of both.

        Parameters
        ----------
        request, code : int64[pairs]
            The pairs.
        factor : float64[entities]
            Of all other entities.
        """
        from perflab.analysis.whatif_replay import replay_without
        from perflab.compiled import in_one_piece

        by = in_one_piece(factor, np.float64)
        return replay_without(by, request, code, self.code, self.offsets, *self._orders)

    def places(self, before: Int64s, after: Int64s) -> tuple[Int64s, Int64s]:
        """Return when each span begins, counted from its request's begin, and how long it takes.

        Parameters
        ----------
        before, after : int64[m]
            Working times instead of those that were.
        """
        from perflab.analysis.whatif_replay import replay_places

        return replay_places(self.offsets, self.first, self.last, before, after, self.follower, self.overlap)

    @property
    def parent(self) -> Int64s:
        """Return the place of each span's parent; a root is its own."""
        parent = np.arange(len(self.row))
        children = np.delete(parent, self.offsets[:-1])
        parent[children] = np.repeat(np.arange(len(self.row)), self.last - self.first)
        return parent

    def slack(self) -> Int64s:
        """Return how much later each span could end, alone, without its request ending later."""
        from perflab.analysis.whatif_replay import find_slack

        return find_slack(self.begin, self.finish, *self._orders)

    @property
    def _orders(self) -> tuple[Int64s, ...]:
        return self.first, self.last, self.before, self.after, self.follower, self.overlap

    @property
    def _request(self) -> Int64s:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
