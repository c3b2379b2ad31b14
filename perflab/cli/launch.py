"""Run a shadow load test: perflab launch SCENARIO --target NAME.

SCENARIO is a scenario.toml; the target is described in perflab.toml, its services run behind
'perflab attach'. The run is refused where marked work would not be isolated, stopped by the target's guards,
and leaves a run directory with spans, events and the proof of isolation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from perflab.cli._progress import Teller, interruptible
from perflab.run import RUNS, Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario.toml")
    parser.add_argument("--target", required=True, metavar="NAME", help="a target of perflab.toml")
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"default: {RUNS}")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Launch and return 0 when the run passed, else 1."""
    from perflab.load.launch import launch
    from perflab.traffic.scenario import Scenario

    scenario = Scenario.load(arguments.scenario)
    teller = Teller(sys.stderr if arguments.json else sys.stdout)
    with interruptible():
        finished = asyncio.run(
            launch(
                scenario,
                target=arguments.target,
                config=arguments.config,
                runs=arguments.runs,
                watch=teller.watch,
            )
        )
    _tell_end(finished, teller, as_json=arguments.json)
    return 0 if finished.verdict == "passed" else 1


def _tell_end(finished: Run, teller: Teller, *, as_json: bool) -> None:
    info = finished.info
    teller.say(f"verdict: {info['verdict']}. {info['reason']}")
    teller.say(f"run: {finished.path}; 'perflab analyse {finished.run_id}' names the bottleneck")
    if as_json:
        counted = ("offered", "sent", "answered", "late", "missed", "errors")
        measured = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "lateness_p99_ms", "cpu_s")
        told = {
            "run": finished.run_id,
            "verdict": info["verdict"],
            "reason": info["reason"],
            **{name: info["requests"][name] for name in counted},
            **{name: info["generator"].get(name) for name in measured},
        }
        print(json.dumps(told, ensure_ascii=False))
