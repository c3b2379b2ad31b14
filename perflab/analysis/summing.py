"""Sums and ranks over spans on paths, in machine code; `perflab.analysis.pathtable` makes tables of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from perflab.compiled import INT, INTS, Int64s, entrance, group


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


@entrance(INTS, INTS, INTS, INT, INT)
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
    places, offsets = group(request, requests)
    size = len(places)
    one_of, code_of = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    calls, exclusive = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    seen, at_of = np.full(entities, -1, dtype=np.int64), np.empty(entities, dtype=np.int64)
    size = 0
    for one in range(requests):
        begin = size
        for at in range(offsets[one], offsets[one + 1]):
            row = places[at]
            entity = code[row]
            if seen[entity] != one:
                seen[entity] = one
                back = size
                while back > begin and code_of[back - 1] > entity:
                    one_of[back], code_of[back] = one, code_of[back - 1]
                    calls[back], exclusive[back] = calls[back - 1], exclusive[back - 1]
                    at_of[code_of[back]] = back
                    back -= 1
                one_of[back], code_of[back], calls[back], exclusive[back] = one, entity, 0, 0
                at_of[entity] = back
                size += 1
            calls[at_of[entity]] += 1
            exclusive[at_of[entity]] += exclusive_ns[row]
    return one_of[:size].copy(), code_of[:size].copy(), calls[:size].copy(), exclusive[:size].copy()


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
