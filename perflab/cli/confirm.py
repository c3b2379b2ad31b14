"""Test whether an entity is the bottleneck: perflab confirm SCENARIO ENTITY --target NAME.

A shadow run in which marked calls of ENTITY ('service: operation' or 'caller -> callee') are delayed by
turns, in blocks drawn by lot; real users never are. Ends with what a millisecond there costs a request, with
its interval, beside what the traces alone say. 0: confirmed; 1: not felt, refuted, or it cannot be said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perflab.cli._progress import Teller, interruptible
from perflab.run import RUNS
from perflab.units import NS_PER_S, duration_ns

if TYPE_CHECKING:
    from perflab.analysis.causal import Causal
    from perflab.load.experiment import Experiment

DELAYS = "10ms,20ms"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario.toml")
    parser.add_argument("entity", metavar="ENTITY", help="'service: operation' or 'caller -> callee'")
    parser.add_argument("--target", required=True, metavar="NAME", help="a target of perflab.toml")
    parser.add_argument(
        "--rate", type=float, default=20.0, metavar="N", help="requests a second (default: 20)"
    )
    add_experiment(parser)
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"default: {RUNS}")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Declare how an experiment is done."""
    group = parser.add_argument_group("the experiment")
    group.add_argument("--delays", default=DELAYS, metavar="TIME,...", help=f"of a call (default: {DELAYS})")
    group.add_argument("--rounds", type=int, default=6, metavar="N", help="turns of each (default: 6)")
    group.add_argument("--block", default="2s", metavar="TIME", help="length of a block (default: 2s)")
    group.add_argument("--seed", type=int, metavar="N", help="of the blocks' order (default: drawn by lot)")


def read_experiment(arguments: argparse.Namespace, entity: str) -> Experiment:
    """Return the experiment the arguments ask for."""
    from perflab.load.experiment import Experiment

    delays_ns = [duration_ns(text.strip()) for text in arguments.delays.split(",")]
    block_s = duration_ns(arguments.block) / NS_PER_S
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    return Experiment(entity, delays_ns, arguments.rounds, block_s, seed=seed)


def run(arguments: argparse.Namespace) -> int:
    """Launch, fit, and return 0 when the entity is confirmed, else 1."""
    from perflab.load.arrivals import Arrivals
    from perflab.load.experiment import fit_experiment
    from perflab.load.launch import launch
    from perflab.traffic.scenario import Scenario

    experiment = read_experiment(arguments, arguments.entity)
    scenario = Scenario.load(arguments.scenario)
    teller = Teller(sys.stderr if arguments.json else sys.stdout)
    with interruptible():
        finished = asyncio.run(
            launch(
                scenario,
                Arrivals.constant(arguments.rate, f"{experiment.lasts_ns}ns"),
                target=arguments.target,
                config=arguments.config,
                runs=arguments.runs,
                experiment=experiment,
                watch=teller.watch,
            )
        )
    teller.say(f"verdict of the run: {finished.verdict}. {finished.info['reason']}")
    told: dict[str, Any] = {"run": finished.run_id, "verdict": finished.verdict}
    found = fit_experiment(finished)
    if found is not None:
        told["confirmation"] = as_told(found)
        teller.say(found.sentence)
    if arguments.json:
        print(json.dumps(told, ensure_ascii=False))
    is_confirmed = found is not None and found.verdict == "confirmed" and finished.verdict == "passed"
    return 0 if is_confirmed else 1


def as_told(found: Causal) -> dict[str, Any]:
    """Return a fit for JSON; what is not known is null."""
    rows = found.table.astype(object).where(found.table.notna(), None).to_dict("records")
    applied = None if found.applied_ratio != found.applied_ratio else found.applied_ratio
    return {
        "entity": found.entity,
        "verdict": found.verdict,
        "sentence": found.sentence,
        "applied_ratio": applied,
        "counts": dict(found.counts),
        "refused": list(found.refused),
        "rows": rows,
    }
