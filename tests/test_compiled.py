"""Compiled functions that others are made of, against Python's own sorting and grouping."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.compiled import group, in_one_piece, number, sort_places, translate

_FEW = st.integers(-2, 2)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(_FEW, _FEW, st.integers(0, 2), _FEW), max_size=200))
def test_places_are_sorted_by_four_keys(rows):
    """As `sorted` does: level ones stay in order, in long runs too."""
    keys = [np.array([row[at] for row in rows], dtype=np.int64) for at in range(4)]
    keys[2] = keys[2].astype(np.uint64)
    places, spare = np.arange(len(rows)), np.empty(len(rows), dtype=np.int64)
    sort_places(places, len(rows), *keys, spare)
    assert places.tolist() == sorted(range(len(rows)), key=lambda place: rows[place])


def test_only_the_first_places_are_sorted():
    """What lies behind ``size`` is somebody else's."""
    key = np.array([3, 2, 1, 0])
    places = np.arange(4)
    sort_places(places, 2, key, key, key, key, np.empty(4, dtype=np.int64))
    assert places.tolist() == [1, 0, 2, 3]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 5), max_size=60))
def test_places_are_grouped_in_their_order(codes):
    """A negative code is left out; a group nobody is in is empty."""
    places, offsets = group(in_one_piece(codes), 6)
    for code in range(6):
        found = places[offsets[code] : offsets[code + 1]].tolist()
        assert found == [place for place, other in enumerate(codes) if other == code]
    assert offsets[-1] == len(places)


def test_whatever_lies_otherwise_is_put_in_one_piece():
    """Views with steps and other kinds of numbers become arrays that compiled functions take."""
    stepped = np.arange(10, dtype=np.int32)[::2]
    found = in_one_piece(stepped)
    assert found.flags.c_contiguous
    assert (found.dtype, found.tolist()) == (np.int64, [0, 2, 4, 6, 8])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**62)), st.integers(0, 3000))
def test_keys_are_numbered_as_they_appear(keys, many):
    """Few or more than there is room for at first; equal ones alike."""
    keys = [*keys, *range(many), *keys[::-1]]
    numbers = np.array(keys, dtype=np.int64)
    distinct = number(numbers).tolist()
    assert distinct == list(dict.fromkeys(keys))
    assert [distinct[at] for at in numbers.tolist()] == keys


def test_numbers_are_replaced_by_what_they_stand_for():
    """-1, nothing, by the last."""
    numbers = np.array([2, -1, 0, 1])
    translate(numbers, np.array([7, 8, 9]))
    assert numbers.tolist() == [9, 9, 7, 8]
