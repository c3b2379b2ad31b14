"""How often something is named where nothing is wrong: ``python tests/accuracy/chance.py [RUNS]``.

Two questions, on the demo's mended shop without a fault: of runs one after the other, each compared with the
one before; and of random halves of one run, by traces and by stretches of time. At most one in twenty may
name anything. And how much is missed for it: runs with a small delay planted by the agent are compared, too.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from play import wilson

from perflab.analysis.bottleneck import NAMED, bottlenecks
from perflab.cli._stage import Stage, Wishes, read_delay
from perflab.load.arrivals import Arrivals
from perflab.load.launch import launch
from perflab.traffic.scenario import Scenario

SPLITS = 200
DELAYS = ("stock: SELECT stock", "order -> stock", "catalogue: GET product", "payment: POST bank")
DELAYS_MS = (5, 10, 20)
RATE_PER_S, LASTS = 16.0, "11s"


def play(runs: int, folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the spans of runs without a fault, then with a small one, and what was planted."""
    with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
        scenario = Scenario.load(path)
    planted = [""] * (runs + 1) + [f"{place}={ms}" for ms in DELAYS_MS for place in DELAYS]
    with Stage(folder / "logs", Wishes(mended=True)) as stage:
        for number, text in enumerate(planted):
            run = asyncio.run(
                launch(
                    msgspec.structs.replace(scenario, seed=number + 1),  # other products each time
                    Arrivals.constant(RATE_PER_S, LASTS),
                    target="shop",
                    config=stage.config,
                    runs=folder / "runs",
                    delays_ns=dict([read_delay(text)]) if text else None,
                )
            )
            print(f"{number + 1}/{len(planted)} {text or 'without a fault'}", file=sys.stderr, flush=True)
            yield text, run.spans


def halves(table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return random halves of a run: of its traces, or (every other seed) of its seconds."""
    rng = np.random.default_rng(seed)
    start_ns = table.groupby("trace_id", observed=True)["start_ns"].transform("min").to_numpy()
    number = table["trace_id"].cat.codes.to_numpy() if seed % 2 else (start_ns - start_ns.min()) // 10**9
    is_first = (rng.random(number.max() + 1) < 0.5)[number]
    return table[is_first], table[~is_first]


def tell(what: str, named: list[str], size: int) -> None:
    """Print a rate with its interval."""
    low, high = wilson(len(named), size)
    interval = f"95 % interval {low:.1%} to {high:.1%}"
    print(f"{what}: {len(named)} of {size} named something ({len(named) / size:.1%}, {interval})")
    for one in named:
        print(f"    {one}")


def main() -> None:
    """Play, compare, print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    named: list[str] = []
    halved: list[str] = []
    found: list[tuple[str, bool, bool]] = []
    kept: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory(prefix="perflab-chance-") as folder:
        for planted, spans in play(runs, Path(folder)):
            if not planted:
                kept.append(spans)
                if len(kept) > 2:  # the first fills caches and pools
                    answer = bottlenecks(spans, baseline=kept[-2])
                    named += [answer.sentence] if answer.answer == NAMED else []
                continue
            answer = bottlenecks(spans, baseline=kept[-1])
            entity = planted.rpartition("=")[0]
            first = answer.table["entity"].iloc[0]
            found.append(
                (planted, answer.answer == NAMED and answer.first["entity"] == entity, first == entity)
            )
    for seed in range(SPLITS):
        after, before = halves(kept[1 + seed % (len(kept) - 1)], seed)
        answer = bottlenecks(after, baseline=before)
        halved += [answer.sentence] if answer.answer == NAMED else []
    tell("separate runs without a fault", named, len(kept) - 2)
    tell("random halves of one run", halved, SPLITS)
    for ms in DELAYS_MS:
        of_ms = [one for one in found if one[0].endswith(f"={ms}")]
        rights = (sum(one[1] for one in of_ms), sum(one[2] for one in of_ms))
        print(f"delays of {ms} ms a call, {len(of_ms)}: {rights[0]} named, {rights[1]} ranked first")


if __name__ == "__main__":
    main()
