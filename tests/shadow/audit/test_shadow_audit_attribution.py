"""Attribution against a brute-force maximum matching."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perflab.shadow.audit.attribution import Change, Claim, attribute

INSERT = '[["orders","insert",1]]'


def _covers(claim: Claim, change: Change, slack_ns: int) -> bool:
    in_time = claim.begin_ns - slack_ns <= change.time_ns <= claim.end_ns + slack_ns
    return in_time and (claim.opaque or claim.fingerprint in change.fingerprints)


def _most(changes: list[Change], claims: list[Claim], slack_ns: int) -> int:
    """Return the size of a maximum matching, by trying everything."""
    if not changes:
        return 0
    first, rest = changes[0], changes[1:]
    best = _most(rest, claims, slack_ns)
    for index, claim in enumerate(claims):
        if claim.count and _covers(claim, first, slack_ns):
            less = Claim(claim.fingerprint, claim.begin_ns, claim.end_ns, claim.count - 1, claim.opaque)
            best = max(best, 1 + _most(rest, [*claims[:index], less, *claims[index + 1 :]], slack_ns))
    return best


names = st.sampled_from("abc")
changes = st.lists(
    st.builds(
        Change,
        st.integers(0, 12),
        st.lists(names, min_size=1, max_size=2, unique=True).map(tuple),
        expirable=st.booleans(),
    ),
    max_size=5,
)
claims = st.lists(
    st.builds(
        lambda name, begin, length, count, opaque: Claim(name, begin, begin + length, count, opaque),
        st.sampled_from(["a", "b", "c", ""]),
        st.integers(0, 12),
        st.integers(0, 6),
        st.integers(1, 2),
        st.booleans(),
    ),
    max_size=5,
)


@settings(max_examples=400, deadline=None)
@given(changes, claims, st.integers(0, 2))
def test_as_many_are_attributed_as_can_be(changes: list[Change], claims: list[Claim], slack_ns: int) -> None:
    """Greedy sweeps and augmenting paths reach what brute force finds."""
    # When
    found = attribute(changes, claims, slack_ns)

    # Then
    assert found.attributed + found.opaque == _most(changes, claims, slack_ns)
    assert found.attributed + found.opaque + len(found.unattributed) == len(changes)
    assert not found.exhausted
    # and of those the server cannot have made by itself no more are left over than must be
    certain = [change for change in changes if not change.expirable]
    left = sum(not change.expirable for change in found.unattributed)
    assert len(certain) - left == _most(certain, claims, slack_ns)


def test_a_key_that_expires_does_not_take_the_claim_of_what_sets_it_again() -> None:
    """A cache finds its key expired and fills it at once: the server's removal is what has no claim."""
    # Given
    removed, filled = Change(100, ("product:7",), expirable=True), Change(102, ("product:7",))

    # When
    found = attribute([removed, filled], [Claim("product:7", 101, 103)], slack_ns=50)

    # Then
    assert (found.attributed, found.unattributed) == (1, (removed,))


def test_one_claim_covers_one_change() -> None:
    """A leak hidden among equal writes of real users is left over: claims are used once."""
    # Given
    changes = [Change(time_ns, (INSERT,)) for time_ns in (100, 105, 110)]
    claims = [Claim(INSERT, 95, 120), Claim(INSERT, 95, 120)]

    # When
    found = attribute(changes, claims, slack_ns=0)

    # Then
    assert (found.attributed, len(found.unattributed)) == (2, 1)


def test_the_claim_that_ends_first_is_taken_first() -> None:
    """Taking the longer claim for the first change would leave the second without one."""
    # Given
    changes = [Change(10, (INSERT,)), Change(20, (INSERT,))]
    claims = [Claim(INSERT, 0, 30), Claim(INSERT, 0, 12)]

    # Then
    assert attribute(changes, claims, slack_ns=0).unattributed == ()


def test_opaque_claims_are_counted_apart() -> None:
    """An opaque claim covers anything in its interval, and is counted as such."""
    # When
    found = attribute(
        [Change(10, (INSERT,)), Change(40, (INSERT,))], [Claim("", 5, 15, opaque=True)], slack_ns=0
    )

    # Then
    assert (found.attributed, found.opaque) == (0, 1)
    assert [change.time_ns for change in found.unattributed] == [40]


def test_slack_widens_both_ends() -> None:
    """A change is covered up to the slack outside its claim, and not beyond."""
    claim = Claim(INSERT, 1000, 2000)
    covered = {
        time_ns: not attribute([Change(time_ns, (INSERT,))], [claim], slack_ns=50).unattributed
        for time_ns in (949, 950, 2050, 2051)
    }
    assert covered == {949: False, 950: True, 2050: True, 2051: False}


def test_a_key_that_always_expires_and_is_set_again_does_not_exhaust_the_search() -> None:
    """Claims that overlap from the first to the last, and as many removals that have none."""
    # Given
    second = 1_000_000_000
    filled = [Change(at * second, ("hot",)) for at in range(1500)]
    removed = [Change(at * second - 1_000_000, ("hot",), expirable=True) for at in range(1500)]
    claims = [Claim("hot", at * second - 2000, at * second + 2000) for at in range(1500)]

    # When
    found = attribute([*filled, *removed], claims, slack_ns=second)

    # Then
    assert (found.attributed, found.exhausted) == (1500, False)
    assert all(change.expirable for change in found.unattributed)


def test_many_overlapping_claims_are_fast_enough() -> None:
    """Fifty thousand changes with as many overlapping claims leave nothing over."""
    # Given
    changes = [Change(number * 10, (f"{number % 5}",)) for number in range(50_000)]
    claims = [Claim(f"{number % 5}", number * 10 - 5000, number * 10 + 3) for number in range(50_000)]

    # Then
    assert attribute(changes, claims, slack_ns=0).unattributed == ()
