"""Promise 4: the report names the bottleneck, with evidence and the gain expected from mending it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from perflab.analysis.bottleneck import bottlenecks
from perflab.cli._stage import Stage, Wishes, read_delay
from perflab.load.arrivals import Arrivals
from perflab.load.launch import launch
from perflab.traffic.scenario import Scenario

pytestmark = pytest.mark.demo

PLACES = (
    "cart: POST /carts/{user}/items",  # an HTTP handler
    "stock: SELECT stock",  # a SQL call
    "catalogue: GET product",  # a Redis call
    "payment: POST bank",  # the bank
)
EDGE = "order -> stock"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Open the demo's shop, once for all that only plant a delay in it."""
    with Stage(tmp_path_factory.mktemp("logs"), Wishes()) as stage:
        yield stage


def test_the_natural_hotspot_is_named(natural: Any) -> None:
    """With nothing planted the demo names what the shop documents as its hotspot."""
    # GIVEN the demo as it is
    # THEN the hotspot is named, with its service, and the run passed
    assert natural.told["bottleneck"]["entity"] == "stock: SELECT stock_movement", natural.stderr
    assert natural.told["bottleneck"]["service"] == "stock"
    assert natural.told["verdict"] == "passed", natural.stderr
    assert natural.code == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_delay_is_named(shop: Stage, tmp_path: Path, place: str) -> None:
    """A delay planted from outside is named as the bottleneck, wherever it is."""
    # GIVEN the demo's shop and its traffic
    with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
        scenario = Scenario.load(path)
    arrivals = Arrivals.ramp(4, 16, over="10s")
    # WHEN a run has a delay in one place
    delays_ns = dict([read_delay(f"{place}=200")])
    run = asyncio.run(
        launch(scenario, arrivals, target="shop", config=shop.config, runs=tmp_path, delays_ns=delays_ns)
    )
    # THEN that place is named
    first = bottlenecks(run.spans).first
    assert first is not None, run.events[-1]
    assert first["entity"] == place, run.events[-1]


def test_the_demo_names_a_delay_it_is_told_to_plant(demo: Callable[..., Any]) -> None:
    """The same by the command: here an edge between two services."""
    # WHEN the demo runs with a delay there
    played = demo("--for", "10s", "--rate", "16", "--slow", f"{EDGE}=200")
    # THEN that edge is named
    assert played.told["bottleneck"] is not None, played.stderr
    assert played.told["bottleneck"]["entity"] == EDGE, played.stderr


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
