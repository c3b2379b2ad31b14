"""Sums and ranks over spans on paths, in machine code; `perflab.analysis.pathtable` makes tables of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from perflab.compiled import INT, INTS, ROOMS, Int64s, entrance, group, group_into


def sort_by_group(values: Int64s, codes: Int64s, groups: int) -> tuple[Int64s, Int64s]:
    """Return values group by group, ascending in each, and where each group begins.

    Parameters
    ----------
    values, codes : int64[n]
        ``codes`` are 0 to ``groups - 1``.
    groups : int

    Returns
    -------
    sorted : int64[n]
    offsets : int64[groups + 1]
    """
    places, offsets = group(codes, groups)
    ascending: Int64s = values[places]
    for begin, end in pairwise(offsets.tolist()):
        ascending[begin:end].sort()  # numpy's sort is several times as fast as a compiled one
    return ascending, offsets


@entrance(INTS, INTS, INT)
def sum_by(codes: Int64s, values: Int64s, groups: int) -> Int64s:
    """Sum values per group, exactly.

    Parameters
    ----------
    codes, values : int64[n]
        ``codes`` are 0 to ``groups - 1``.
    groups : int

    Returns
    -------
    int64[groups]
    """
    sums = np.zeros(groups, dtype=np.int64)
    for place in range(len(codes)):
        sums[codes[place]] += values[place]
    return sums


def sum_per_request(
    request: Int64s, code: Int64s, exclusive_ns: Int64s, requests: int, entities: int
) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Sum exclusive times per request and entity.

    Parameters
    ----------
    request, code, exclusive_ns : int64[n]
        Of each span; ``request`` below 0 is left out.
    requests, entities : int
        How many there are.

    Returns
    -------
    request, code, calls, exclusive_ns : int64[m]
        Sorted by request, then code.
    """
    sums = np.empty((5, len(request)), dtype=np.int64)
    size = _sum_groups(request, code, exclusive_ns, requests, entities, sums)
    return sums[0, :size], sums[1, :size], sums[2, :size], sums[3, :size]


@entrance(INTS, INTS, INTS, INT, INT, ROOMS)
def _sum_groups(
    request: Int64s, code: Int64s, exclusive_ns: Int64s, requests: int, entities: int, sums: Int64s
) -> int:
    """Fill the first four of ``sums`` with what `sum_per_request` returns; return how many there are."""
    one_of, code_of, calls, exclusive, places = sums[0], sums[1], sums[2], sums[3], sums[4]
    offsets = group_into(request, requests, places)
    met = np.empty(entities, dtype=np.int64)  # of one request: the entities, sorted, and their sums
    calls_of, exclusive_of = np.zeros(entities, dtype=np.int64), np.empty(entities, dtype=np.int64)
    size = 0
    for one in range(requests):
        many = 0
        for at in range(offsets[one], offsets[one + 1]):
            row = places[at]
            entity = code[row]
            if not calls_of[entity]:
                exclusive_of[entity] = 0
                back = many
                while back > 0 and met[back - 1] > entity:
                    met[back] = met[back - 1]
                    back -= 1
                met[back] = entity
                many += 1
            calls_of[entity] += 1
            exclusive_of[entity] += exclusive_ns[row]
        for at in range(many):
            entity = met[at]
            one_of[size], code_of[size] = one, entity
            calls[size], exclusive[size] = calls_of[entity], exclusive_of[entity]
            calls_of[entity] = 0
            size += 1
    return size


@entrance(INTS, INTS, INTS, INT, INT)
def most_per_group(code: Int64s, weight: Int64s, tie: Int64s, groups: int, most: int) -> Int64s:
    """Return the places with most weight in each group.

    Parameters
    ----------
    code, weight, tie : int64[n]
        Of two of one weight the one with the smaller ``tie`` comes first.
    groups, most : int
        How many groups, and how many places of each.

    Returns
    -------
    int64[groups, most]
        Heaviest first, -1 where there are fewer.
    """
    found = np.full((groups, most), -1, dtype=np.int64)
    for place in range(len(code)):
        row = found[code[place]]
        at = most
        while at > 0 and (
            row[at - 1] < 0
            or weight[row[at - 1]] < weight[place]
            or (weight[row[at - 1]] == weight[place] and tie[row[at - 1]] > tie[place])
        ):
            at -= 1
        if at < most:
            for back in range(most - 1, at, -1):
                row[back] = row[back - 1]
            row[at] = place
    return found


@entrance(INTS, INTS, INTS, INT, INT)
def places_of_ranks(weights: Int64s, cell: Int64s, ranks: Int64s, cells: int, wanted: int) -> Int64s:
    """Return where given ranks lie among values each of which is there several times, or not at all.

    Parameters
    ----------
    weights : int64[rounds * cells]
        How often the values of each cell are there, round by round.
    cell : int64[n]
        Cell of each value, the values ascending.
    ranks : int64[rounds * wanted]
        1-based, ascending within a round.
    cells, wanted : int
        How many cells there are, and ranks in a round.

    Returns
    -------
    int64[rounds * wanted]
        Places of values; the last one for ranks beyond.
    """
    found = np.full(len(ranks), len(cell) - 1, dtype=np.int64)
    for one in range(len(ranks) // wanted):
        reached, at, end = 0, one * wanted, (one + 1) * wanted
        for place in range(len(cell)):
            reached += weights[one * cells + cell[place]]
            while at < end and ranks[at] <= reached:
                found[at] = place
                at += 1
            if at == end:
                break
    return found
