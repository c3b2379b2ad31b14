"""Requests that have not ended."""

from __future__ import annotations

from perflab.load.flight import Flight, Unended


def flight(row, due_ns):
    return Flight(row, due_ns, None, b"")


def test_flights_wait_begin_and_end():
    """Each is in one place at a time, and off when it has ended."""
    unended = Unended(timeout_ns=100)
    first, second = flight(1, 10), flight(2, 20)
    unended.waiting.extend([first, second])
    assert unended.begin(30) is first
    assert (len(unended), unended.begun(), list(unended.waiting)) == (2, (first,), [second])
    assert list(unended) == [first, second]
    assert first in unended
    assert second not in unended
    assert unended.end(first)
    assert not unended.end(first)
    assert len(unended) == 1


def test_deadlines_are_from_due_while_waiting_and_from_the_beginning_after():
    """The first to run out of time is told; all that have are found."""
    unended = Unended(timeout_ns=100)
    assert unended.first_deadline_ns() is None
    unended.waiting.extend(flight(row, row * 10) for row in range(4))
    assert unended.first_deadline_ns() == 100
    for now_ns in (50, 55):
        unended.begin(now_ns)
    assert unended.first_deadline_ns() == 120  # the third, due at 20, still waits
    assert [item.row for item in unended.expired_waiting(125)] == [2]
    assert unended.first_deadline_ns() == 130
    assert [item.row for item in unended.expired(150)] == [0]
    assert [item.row for item in unended.expired(149)] == []
    assert [item.row for item in unended.expired(200)] == [0, 1]
