"""An experiment on the real shop: what a millisecond costs is found, and no delay outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from perflab.analysis.causal import fit_causal
from perflab.cli._stage import Stage, Wishes
from perflab.config import load_config
from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.experiment import Experiment
from perflab.load.launch import launch
from perflab.run import Run
from perflab.shadow.control import decode
from perflab.traffic.scenario import Scenario
from perflab.units import NS_PER_MS

pytestmark = pytest.mark.demo

ENTITY = "stock: SELECT stock_movement"
DELAY_MS = 40


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Open the demo's shop, with its natural hotspot and real users in it."""
    with Stage(tmp_path_factory.mktemp("logs"), Wishes()) as stage:
        yield stage


def experiment(shop: Stage, runs: Path, asked: Experiment, watch: Any = None) -> Run:
    with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
        scenario = Scenario.load(path)
    arrivals = Arrivals.constant(20, f"{asked.lasts_ns}ns")
    return asyncio.run(
        launch(
            scenario, arrivals, target="shop", config=shop.config, runs=runs, experiment=asked, watch=watch
        )
    )


def delays_in_force(shop: Stage) -> Mapping[str, int]:
    """Return what attached processes are told to wait."""
    target = load_config(shop.config).target("shop")
    return decode(Path(target.control).read_bytes(), target.control_key.read().encode()).delays_ns


def test_the_hotspot_is_confirmed(shop: Stage, tmp_path: Path) -> None:
    """One call per order on the critical path: 1 ms there for 1 ms, and more if it queues; else none."""
    # GIVEN an experiment on the hotspot, by turns without and with a delay
    asked = Experiment(ENTITY, [DELAY_MS * NS_PER_MS], rounds=5, block_s=2.2, settles_s=0.8)
    # WHEN it is played
    run = experiment(shop, tmp_path, asked)
    assert run.verdict == "passed", run.events[-1]
    played = run.info["experiment"]
    found = fit_causal(run.spans, played["entity"], played["blocks"])
    # THEN orders feel it whole, by experiment and by their traces, and views of products not at all
    rows = found.table.set_index("entry")
    order, view = rows.loc["perflab: place order"], rows.loc["perflab: view product"]
    assert (found.verdict, order["verdict"], found.refused) == ("confirmed", "confirmed", ()), found
    assert 0.8 < order["slope"] < 1.8, order["evidence"]  # more than 1 where calls queue for the delayed
    assert order["predicted"] == pytest.approx(1.0, abs=0.05)
    assert abs(view["slope"]) < 0.2, view["evidence"]
    assert 0.8 < found.applied_ratio < 1.2
    assert delays_in_force(shop) == {}


def test_an_experiment_that_is_interrupted_leaves_no_delay(shop: Stage, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a block: the delay is gone with the run."""
    asked = Experiment(ENTITY, [DELAY_MS * NS_PER_MS], rounds=4, block_s=1.0, settles_s=0.8)
    seen: list[Mapping[str, int]] = []

    def interrupt(what: str, details: Mapping[str, Any]) -> None:
        if what == "block" and details["delay_ms"]:
            seen.append(delays_in_force(shop))
            asyncio.get_running_loop().call_later(0.5, _interrupt, asyncio.all_tasks())

    with pytest.raises((asyncio.CancelledError, KeyboardInterrupt)):
        experiment(shop, tmp_path, asked, interrupt)
    assert seen == [{ENTITY: DELAY_MS * NS_PER_MS}]
    assert delays_in_force(shop) == {}


def _interrupt(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def test_a_place_that_does_not_exist_lists_those_there_are(shop: Stage, tmp_path: Path) -> None:
    """Found before any load; load that ends too early before anything."""
    asked = Experiment("stock: SELECT nothing", [NS_PER_MS], rounds=4, block_s=0.1, settles_s=0.8)
    with pytest.raises(ConfigError, match="stock: SELECT stock_movement"):
        experiment(shop, tmp_path, asked)
    with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
        scenario = Scenario.load(path)
    with pytest.raises(ConfigError, match=r"the experiment 12\.4 s; let"):
        asyncio.run(
            launch(
                scenario, Arrivals.constant(5, "9s"), target="shop", config=shop.config, runs=tmp_path,
                experiment=asked,
            )
        )  # fmt: skip
