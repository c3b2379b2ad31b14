"""Plant every fault in the demo's shop, one after the other, and see what the analysis names.

    python tests/accuracy/play.py [--only TEXT] [--write]

Each fault has a run of its own. What is asked: which entity ranks first without any baseline, and which
against a run without a fault. Rows are kept in ``data/accuracy.jsonl``: what was played is not played again
until that file is removed. ``--write`` puts the table into ``docs/accuracy.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import redis
from planted import FAULTS, Fault
from psycopg.conninfo import make_conninfo

from perflab.analysis.bottleneck import bottlenecks
from perflab.cli._stage import PREFIX, Stage, Wishes
from perflab.load.arrivals import Arrivals
from perflab.load.launch import launch
from perflab.traffic.scenario import Scenario

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / "data/accuracy.jsonl"
SERVICES = ("bank", "cart", "catalogue", "order", "payment", "stock")
RATE_PER_S = 16.0
LASTS = "11s"


class FaultyShop:
    """The demo's stage with services that can be made faulty.

    Parameters
    ----------
    folder : Path
        Where logs and the file of faults are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults = folder / "faults.json"
        self._faults.write_text("{}")
        program = shlex.join([sys.executable, str(HERE / "faulty.py")])
        commands = {name: f"{program} {name} {{port}} {shlex.quote(str(self._faults))}" for name in SERVICES}
        self.stage = Stage(folder / "logs", Wishes(mended=True, commands=commands))

    def __enter__(self) -> FaultyShop:
        self.stage.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stage.__exit__(*exc_info)

    def run(self, fault: Fault | None) -> pd.DataFrame:
        """Return the spans of a run with a fault, or without one."""
        with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
            scenario = Scenario.load(path)
        with self._planted(fault):
            run = asyncio.run(
                launch(
                    scenario,
                    Arrivals.constant(RATE_PER_S, LASTS),
                    target="shop",
                    config=self.stage.config,
                    runs=self._folder / "runs",
                )
            )
        return run.spans

    @contextlib.contextmanager
    def _planted(self, fault: Fault | None) -> Iterator[None]:
        if fault is None:
            yield
            return
        secrets = self.stage.config.parent
        with contextlib.ExitStack() as stack:
            if fault.where == "rows":
                dsn = make_conninfo((secrets / "postgres.audit").read_text(), dbname="shop_shadow")
                stack.enter_context(rows_locked(dsn, **fault.what))
            elif fault.what.get("kind") == "get":
                client = stack.enter_context(redis.Redis.from_url((secrets / "redis.audit").read_text()))
                client.set(PREFIX + fault.what["key"], "x" * fault.what["bytes"])
            if fault.where != "rows":
                self._say({fault.where: fault.what})
                stack.callback(self._say, {})
            yield

    def _say(self, faults: dict[str, Any]) -> None:
        aside = self._faults.with_suffix(".new")
        aside.write_text(json.dumps(faults))
        aside.replace(self._faults)


@contextlib.contextmanager
def rows_locked(dsn: str, held_ms: int, free_ms: int) -> Iterator[None]:
    """Hold the row that orders take their stock from, most of the time."""
    over = threading.Event()

    def hold() -> None:
        with psycopg.connect(dsn) as connection:
            while not over.is_set():
                connection.execute("SELECT 1 FROM stock WHERE product_id = 12 FOR UPDATE")
                time.sleep(held_ms / 1000)
                connection.rollback()
                time.sleep(free_ms / 1000)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def judge(fault: Fault, spans: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, Any]:
    """Return a row: what ranks first and where the right entity ranks, without and with a baseline."""
    row: dict[str, Any] = {"fault": fault.name, "kind": fault.kind, "expected": list(fault.expected)}
    for name, found in (("alone", bottlenecks(spans)), ("compared", bottlenecks(spans, baseline=baseline))):
        entities = found.table["entity"].tolist()
        places = [entities.index(one) + 1 for one in fault.expected if one in entities]
        named = found.first["entity"] if found.first else ""
        row[name] = {
            "first": named or (entities[0] if entities else ""),
            "named": bool(named),
            "rank": 1 if named in fault.expected else min(places, default=len(entities) + 1),
            "gain_ms": float(found.table["gain_ms"].iloc[0]) if entities else math.nan,
        }
    row["requests"] = len(bottlenecks(spans).path.entries)
    return row


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table and the rates in Markdown."""
    told = [
        "| fault | right | alone: first | rank | compared: first | rank |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["fault"], " or ".join(row["expected"])]
        for name in ("alone", "compared"):
            cells += [
                row[name]["first"] + ("" if row[name]["named"] else " (not named)"),
                str(row[name]["rank"]),
            ]
        told.append(f"| {' | '.join(cells)} |")
    told.append("")
    for name in ("alone", "compared"):
        for what, most in (("first", 1), ("among the first three", 3)):
            hits = sum(row[name]["rank"] <= most for row in rows)
            low, high = wilson(hits, len(rows))
            interval = f"95 % interval {low:.0%} to {high:.0%}"
            told.append(f"- {name}, right {what}: {hits} of {len(rows)} ({hits / len(rows):.0%}, {interval})")
    return told


def wilson(hits: int, size: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate (E. B. Wilson, 1927)."""
    z2 = 1.959963984540054**2
    rate = hits / size
    middle = (rate + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (rate * (1 - rate) / size + z2 / (4 * size * size))) / (1 + z2 / size)
    return max(0.0, middle - half), min(1.0, middle + half)


def play(wanted: Sequence[Fault]) -> None:
    """Play the faults that were not played yet."""
    KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perflab-accuracy-") as folder, FaultyShop(Path(folder)) as shop:
        shop.run(None)  # caches and pools are filled
        baseline = shop.run(None)
        began = time.monotonic()
        for number, fault in enumerate(wanted):
            row = judge(fault, shop.run(fault), baseline)
            with KEPT.open("a") as file:
                file.write(json.dumps(row) + "\n")
            left_s = (time.monotonic() - began) / (number + 1) * (len(wanted) - number - 1)
            found = "; ".join(f"{name}, rank {row[name]['rank']}" for name in ("alone", "compared"))
            told = f"{number + 1}/{len(wanted)} {fault.name}: {found}; {left_s:.0f} s left"
            print(told, file=sys.stderr, flush=True)


def main() -> None:
    """Play, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name has this text")
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    played = {json.loads(line)["fault"]: json.loads(line) for line in KEPT.open()} if KEPT.exists() else {}
    wanted = [fault for fault in FAULTS if arguments.only in fault.name]
    if missing := [fault for fault in wanted if fault.name not in played]:
        play(missing)
        played = {json.loads(line)["fault"]: json.loads(line) for line in KEPT.open()}
    told = summary([played[fault.name] for fault in wanted])
    print("\n".join(told))
    if arguments.write:
        page = ROOT / "docs/accuracy.md"
        above = page.read_text().partition("<!-- table -->")[0]
        page.write_text(f"{above}<!-- table -->\n\n" + "\n".join(told) + "\n")


if __name__ == "__main__":
    main()
