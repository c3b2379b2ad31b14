"""Functions over arrays, compiled to machine code, where loops in Python would take a hundred times as long.

A module of such functions is imported where it is used, not at the top: the compiler itself takes half a
second to load. What it made is kept beside the module, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])
Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Shorts = npt.NDArray[np.int8]

INTS, IDS, FLAGS, SHORTS, CODES, FLOATS = (
    numba.types.Array(kind, 1, "C", readonly=True)
    for kind in (numba.int64, numba.uint64, numba.boolean, numba.int8, numba.int32, numba.float64)
)
"""Types of arguments: int64, uint64, bool, int8, int32 and float64 arrays in one piece, only read."""
ROOM, ROOMS = (numba.types.Array(numba.int64, dimensions, "C") for dimensions in (1, 2))
"""int64 arrays of one and of two dimensions that are written to."""
INT, FLAG = numba.int64, numba.boolean

_SHORT = 24
_FEW = 256


def compiled(function: F) -> F:
    """Have a function compiled that other compiled ones call.

    It makes no arrays, slices included: without numba's reference counts, which would be kept for every array
    of every call, a function called per span costs a fifth.
    """
    options: dict[str, Any] = {"nogil": True, "_nrt": False}
    return cast("F", numba.njit(**options)(function))


def entrance(*arguments: Any) -> Callable[[F], F]:
    """Compile a function that is called from Python, for one list of argument types, or load what was kept.

    Parameters
    ----------
    *arguments
        `INTS`, `INT` and so on. Arrays that lie otherwise are to be made so by `in_one_piece`; every other
        kind would be compiled anew, which takes longer than it ever gives back.
    """

    def decorate(function: F) -> F:
        return cast("F", numba.njit([arguments], cache=True, nogil=True)(function))

    return decorate


def in_one_piece(values: Any, dtype: Any = np.int64) -> npt.NDArray[Any]:
    """Return values as an array that `entrance` takes."""
    return np.ascontiguousarray(values, dtype=dtype)


@compiled
def _comes_first(
    one: int,
    other: int,
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    third: npt.NDArray[Any],
    fourth: npt.NDArray[Any],
) -> bool:
    """Tell whether place ``one`` is before ``other`` or level with it."""
    if first[one] != first[other]:
        return bool(first[one] < first[other])
    if second[one] != second[other]:
        return bool(second[one] < second[other])
    if third[one] != third[other]:
        return bool(third[one] < third[other])
    return bool(fourth[one] <= fourth[other])


@compiled
def sort_places(
    places: Int64s,
    size: int,
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    third: npt.NDArray[Any],
    fourth: npt.NDArray[Any],
    spare: Int64s,
) -> None:
    """Sort the first ``size`` of ``places`` by four keys of them, ascending; level ones stay in order.

    Parameters
    ----------
    places : int64[n]
        Indices into the keys; sorted in place.
    size : int
        How many of them.
    first, second, third, fourth : arrays
        The keys.
    spare : int64[n]
        Room to work in.
    """
    for begin in range(0, size, _SHORT):  # short runs by insertion
        for at in range(begin + 1, min(begin + _SHORT, size)):
            place = places[at]
            back = at - 1
            while back >= begin and not _comes_first(places[back], place, first, second, third, fourth):
                places[back + 1] = places[back]
                back -= 1
            places[back + 1] = place
    width = _SHORT
    while width < size:  # then merged, pair by pair
        for begin in range(0, size, 2 * width):
            middle, end = min(begin + width, size), min(begin + 2 * width, size)
            left, right = begin, middle
            for at in range(begin, end):
                is_left = left < middle
                if is_left and right < end:
                    is_left = _comes_first(places[left], places[right], first, second, third, fourth)
                if is_left:
                    spare[at] = places[left]
                    left += 1
                else:
                    spare[at] = places[right]
                    right += 1
        for at in range(size):
            places[at] = spare[at]
        width *= 2


@entrance(INTS, INT, ROOM)
def group_into(codes: Int64s, groups: int, places: Int64s) -> Int64s:
    """Write what `group` returns as places to ``places``; return where each group begins."""
    offsets = np.zeros(groups + 2, dtype=np.int64)  # one place on: what follows is counted up in place
    for code in codes:
        if code >= 0:
            offsets[code + 2] += 1
    for at in range(groups):
        offsets[at + 2] += offsets[at + 1]
    for row in range(len(codes)):
        code = codes[row]
        if code >= 0:
            places[offsets[code + 1]] = row
            offsets[code + 1] += 1
    return offsets[:-1]


def group(codes: Int64s, groups: int) -> tuple[Int64s, Int64s]:
    """Return the places of all codes, group by group in the order given, and where each group begins.

    Parameters
    ----------
    codes : int64[n]
        0 to ``groups - 1``; a negative one is left out.
    groups : int
        How many there are.

    Returns
    -------
    places : int64[m]
    offsets : int64[groups + 1]
        Group ``g`` is ``places[offsets[g]:offsets[g + 1]]``.
    """
    places = np.empty(len(codes), dtype=np.int64)
    offsets = group_into(codes, groups, places)
    return places[: offsets[-1]], offsets


@entrance(ROOM, INTS)
def translate(numbers: Int64s, meaning: Int64s) -> None:
    """Replace numbers by what each of them stands for; -1 is the last."""
    for at in range(len(numbers)):
        numbers[at] = meaning[numbers[at]]


@compiled
def mix(number: np.uint64) -> np.uint64:
    """Spread a number over all bits (the finaliser of splitmix64, S. Vigna)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@entrance(ROOM)
def number(keys: Int64s) -> Int64s:
    """Replace keys by the numbers of the distinct ones, in the order in which they appear.

    Parameters
    ----------
    keys : int64[n]
        Not negative; they are overwritten with their numbers.

    Returns
    -------
    int64[m]
        The key of each number.
    """
    distinct = np.empty(_FEW, dtype=np.int64)
    table = np.full(4 * _FEW, -1, dtype=np.int64)  # the number of the key that hashes there
    found = 0
    for at in range(len(keys)):
        key = keys[at]
        mask = np.uint64(len(table) - 1)
        slot = mix(np.uint64(key)) & mask
        while table[slot] >= 0 and distinct[table[slot]] != key:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] >= 0:
            keys[at] = table[slot]
            continue
        table[slot] = keys[at] = found
        distinct[found] = key
        found += 1
        if found == len(distinct):
            distinct = np.concatenate((distinct, np.empty(found, dtype=np.int64)))
            table = np.full(8 * found, -1, dtype=np.int64)
            mask = np.uint64(len(table) - 1)
            for one in range(found):
                slot = mix(np.uint64(distinct[one])) & mask
                while table[slot] >= 0:
                    slot = (slot + np.uint64(1)) & mask
                table[slot] = one
    return distinct[:found].copy()
