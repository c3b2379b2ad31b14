"""The pool of captured values."""

from __future__ import annotations

import pytest

from perflab.errors import TrafficError
from perflab.load.captured import CapturedValues
from perflab.load.plan import Captured
from perflab.traffic.scenario import Endpoint, Scenario

SCENARIO = Scenario(
    "s",
    (
        Endpoint("pay", "/pay/${order}/${token}"),
        Endpoint("order", "/order/${user}", capture={"order": "$.id", "token": "$.t"}),
        Endpoint("login", "/login", capture={"user": "$.u"}),
        Endpoint("again", "/again/${order}", capture={"token": "$.t"}),
    ),
)
PAY, ORDER, LOGIN, AGAIN = range(4)


def test_values_of_one_answer_stay_together_and_fresh_ones_go_first():
    """Order and token belong together; each pair is used once before any is used again."""
    pool = CapturedValues(SCENARIO)
    for number in range(3):
        pool.put(ORDER, {"order": number, "token": f"t{number}"})
    drawn = [pool.draw({"order", "token"}) for _ in range(5)]
    assert [values["order"] for values in drawn] == [0, 1, 2, 0, 1]
    assert all(values["token"] == f"t{values['order']}" for values in drawn)
    # and a new one goes before the used ones
    pool.put(ORDER, {"order": 9, "token": "t9"})
    assert pool.draw({"order"})["order"] == 9


def test_what_is_missing_leads_to_an_endpoint_that_needs_nothing():
    """Pay needs an order, an order needs a login."""
    pool = CapturedValues(SCENARIO)
    assert pool.missing({"order", "token"}) == ORDER
    assert pool.missing({"user"}) == LOGIN
    assert pool.missing(()) is None
    pool.put(LOGIN, {"user": "u"})
    assert pool.missing({"user"}) is None
    # the token has two producers; the one that can be asked first is named
    assert pool.missing({"token"}) == ORDER
    pool.put(AGAIN, {"token": "x"})
    assert pool.missing({"token"}) is None


def test_a_pool_begins_with_what_it_is_given():
    """Values of a preflight are there; those of unknown endpoints are not."""
    pool = CapturedValues(SCENARIO, [Captured("login", {"user": 7}), Captured("gone", {"user": 8})])
    assert [pool.draw({"user"}) for _ in range(2)] == [{"user": 7}, {"user": 7}]
    with pytest.raises(TrafficError, match=r"\$\{order\}"):
        pool.draw({"order"})
