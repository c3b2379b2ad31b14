"""Find where shadow traffic would not be isolated: perflab preflight SCENARIO --target NAME.

One marked request per endpoint is sent through the target's services, and drawn: where its mark travelled and
where it died, every store it met, every driver that is not covered, every service without an agent. Nothing
else is sent. Exit code 0 when no hole is open, 1 when a run would be refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perflab.cli._progress import Teller, interruptible
from perflab.run import RUNS

_SIGNS = {"carried": "●", "lost": "✗ mark lost", "died": "✗ mark died here", "refused": "▲ refused"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario.toml")
    parser.add_argument(
        "--target", default="", metavar="NAME", help="a target of perflab.toml, if it has several"
    )
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"default: {RUNS}")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Inspect, draw, and return 0 when no hole is open, else 1."""
    from perflab.load.launch import preflight
    from perflab.traffic.scenario import Scenario

    scenario = Scenario.load(arguments.scenario)
    teller = Teller(sys.stderr)
    with interruptible():
        finished = asyncio.run(
            preflight(
                scenario,
                target=arguments.target,
                config=arguments.config,
                runs=arguments.runs,
                watch=teller.watch,
            )
        )
    info, found = finished.info, finished.preflight
    if arguments.json:
        told = {"run": finished.run_id, "verdict": info["verdict"], "reason": info["reason"], **found}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print("\n".join(drawing(found)))
        print(f"\n{info['verdict']}: {info['reason']}")
    return 0 if finished.verdict == "passed" else 1


def drawing(found: Mapping[str, Any]) -> list[str]:
    """Draw what the preflight found, as lines of text.

    Parameters
    ----------
    found : mapping
        ``preflight.json``: ``services stores endpoints holes notices``.
    """
    lines: list[str] = []
    for endpoint in found.get("endpoints", ()):
        what = endpoint.get("reason") or endpoint.get("status") or ""
        lines += ["", f"{endpoint['endpoint']}: {endpoint['outcome']} {what}  trace {endpoint['trace_id']}"]
        if endpoint["stops"] is None:
            lines.append("  ✗ no service shows any work for it: the mark died before the first one")
        else:
            lines += [f"  {line}" for line in _tree(endpoint["stops"])]
    lines += _table("services", ("service", "agent", "processes", "hooked", "not hooked", "not covered"), [
        (row["service"], row["agent"] or "none", str(row["processes"]), *_hooks(row["hooks"]),
         ", ".join(row["uncovered"]))
        for row in found.get("services", ())
    ])  # fmt: skip
    lines += _table("stores and peers", ("store", "state", "accesses", "service", "why"), [
        (row["store"], row["state"], str(row["calls"]), row["service"], row["why"])
        for row in found.get("stores", ())
    ])  # fmt: skip
    lines += _table("holes", ("name", "accepted", "why"), [
        (row["name"], "yes" if row["accepted"] else "NO", row["why"]) for row in found.get("holes", ())
    ])  # fmt: skip
    lines += [f"note: {notice}" for notice in found.get("notices", ())]
    return lines[1:] if lines[:1] == [""] else lines


def _tree(stop: Mapping[str, Any]) -> Iterator[str]:
    """Draw a request's places, each under its caller; iterative, since traces may be deep."""
    pending: list[tuple[Mapping[str, Any], str, str]] = [(stop, "", "")]
    while pending:
        place, first, rest = pending.pop()
        service = f"{place['service']}: " if place["service"] else ""
        yield f"{first}{service}{place['name']}  {_SIGNS[place['mark']]}"
        below = place["calls"]
        for index in range(len(below) - 1, -1, -1):
            last = index == len(below) - 1
            pending.append(
                (below[index], rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
            )


def _hooks(hooks: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    on = [
        f"{name} {hook['version']}".strip() for name, hook in sorted(hooks.items()) if hook["state"] == "on"
    ]
    off = [
        f"{name} {hook['state']}" + (f" ({hook['reason']})" if hook["reason"] else "")
        for name, hook in sorted(hooks.items())
        if hook["state"] != "on"
    ]
    return ", ".join(on), ", ".join(off)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    written = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
               for row in [columns, *rows]]  # fmt: skip
    return ["", title, *(f"  {line}" for line in written)]
