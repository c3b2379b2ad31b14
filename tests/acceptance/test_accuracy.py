"""Promise 4, on faults made by what makes them elsewhere: some of the list of ``make accuracy``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "accuracy"))
from planted import FAULTS, Fault
from play import FaultyShop, judge, summary, wilson

pytestmark = pytest.mark.demo

PLAYED = (
    "CPU burn 60 ms in order.place",
    "N+1, 60 statements in stock.reserve",
    "network 100 ms before order",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyShop]:
    """Open the shop, once for all faults."""
    with FaultyShop(tmp_path_factory.mktemp("shop")) as opened:
        yield opened


@pytest.fixture(scope="module")
def baseline(shop: FaultyShop) -> pd.DataFrame:
    """Return a run without a fault."""
    return shop.run(None)


@pytest.mark.parametrize("name", PLAYED)
def test_a_fault_is_found(shop: FaultyShop, baseline: pd.DataFrame, name: str) -> None:
    """First without a baseline and first against one."""
    # GIVEN a shop with a fault
    (fault,) = [one for one in FAULTS if one.name == name]
    # WHEN a run is analysed
    row = judge(fault, shop.run(fault), baseline)
    # THEN the place that was written down beforehand comes first
    assert (row["alone"]["rank"], row["compared"]["rank"]) == (1, 1), row


def test_the_list_is_what_it_says() -> None:
    """At least 40 faults of every kind, over several services and strengths, each with what is right."""
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    kinds = {fault.kind for fault in FAULTS}
    assert sorted(kinds) == [
        *("CPU burn", "N+1", "lock", "network delay", "pool too small"),
        *("sleep", "slow cache", "slow query", "slow third party"),
    ]
    assert len({fault.expected[0].split(":")[0] for fault in FAULTS}) >= 5
    assert all(fault.expected for fault in FAULTS)


def test_rates_have_intervals() -> None:
    """Wilson's, by his formula: 9 of 10."""
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    row: dict[str, Any] = {"fault": "f", "expected": ["a: b"]}
    for name, rank in (("alone", 1), ("compared", 3)):
        row[name] = {"first": "a: b", "named": rank == 1, "rank": rank}
    told = summary([row])
    assert told[2] == "| f | a: b | a: b | 1 | a: b (not named) | 3 |"
    assert told[-2].startswith("- compared, right first: 0 of 1 (0%")
    assert told[-1].startswith("- compared, right among the first three: 1 of 1 (100%")
    assert isinstance(FAULTS[0], Fault)
