"""Promise 4: the report names the bottleneck, with evidence and the gain expected from mending it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.demo

PLACES = (
    "cart: POST /carts/{user}/items",  # an HTTP handler
    "stock: SELECT stock",  # a SQL call
    "catalogue: GET product",  # a Redis call
    "order -> stock",  # an edge between two services
    "payment: POST bank",  # the bank
)


def test_the_natural_hotspot_is_named(natural: Any) -> None:
    """With nothing planted the demo names what the shop documents as its hotspot."""
    # GIVEN the demo as it is
    # THEN the hotspot is named, with its service, and the run passed
    assert natural.told["bottleneck"]["entity"] == "stock: SELECT stock_movement", natural.stderr
    assert natural.told["bottleneck"]["service"] == "stock"
    assert natural.told["verdict"] == "passed", natural.stderr
    assert natural.code == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_delay_is_named(demo: Callable[..., Any], place: str) -> None:
    """A delay planted from outside is named as the bottleneck, wherever it is."""
    # GIVEN a delay in one place
    # WHEN the demo runs
    played = demo("--for", "10s", "--rate", "16", "--slow", f"{place}=200")
    # THEN that place is named
    assert played.told["bottleneck"] is not None, played.stderr
    assert played.told["bottleneck"]["entity"] == place, played.stderr


def test_nothing_stands_out_once_mended(demo: Callable[..., Any]) -> None:
    """With the hotspot mended by the shop's own switch, the demo says that nothing stands out."""
    # GIVEN the shop with its index
    # WHEN the demo runs
    played = demo("--for", "12s", "--mended")
    # THEN no bottleneck is named
    assert played.told["bottleneck"] is None, played.stderr
    assert played.told["answer"] == "nothing stands out"


def test_a_place_that_does_not_exist_is_wrong_input(demo: Callable[..., Any]) -> None:
    """A wrong --slow place exits with 2 and lists the services' places there are."""
    # GIVEN a place nobody has
    # WHEN the demo is asked to delay it
    played = demo("--for", "5s", "--slow", "nobody: GET nothing=100")
    # THEN it refuses and says what there is
    assert played.code == 2
    for place in ("stock: SELECT stock", "order -> stock", "payment: POST bank"):
        assert place in played.stderr
