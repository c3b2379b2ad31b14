"""Say what every attached process believes: which runs are live, how old its list is, what it hooks.

Asks the launch that listens on the target's collector address. Where none does, this command listens there
itself for two seconds: a launch that begins just then finds the address taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from perflab.config import Target, load_config
from perflab.errors import PerflabError, TraceError

LISTEN_S = 2.0
_HEADER = ("service", "process", "agent", "list", "live runs", "hooks", "says")
_AGES_KEPT_S = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--target", help="a target of perflab.toml; may be left out when there is only one")
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print a row per attached process; 3 where a service of the target is not heard of."""
    target = load_config(arguments.config).target(arguments.target or "")
    names = _run_ids(target)
    rows = [
        {**row, "live": [names.get(tag, f"{tag:#06x}") for tag in row["live"]]}
        for row in asyncio.run(_rows(target))
    ]
    absent = sorted(set(target.services) - {row["service"] for row in rows})
    if arguments.json:
        silent = [{"service": name, "problem": "no agent of it was heard"} for name in absent]
        print(json.dumps(rows + silent, ensure_ascii=False))
    else:
        _print_table(rows)
        for name in absent:
            print(f"{name}: no agent of it was heard; is it started with 'perflab attach --service {name}'?")
    return 3 if absent else 0


async def _rows(target: Target) -> list[dict[str, Any]]:
    """Return the rows of who listens on the collector's address, or listen there."""
    from perflab.shadow.fleet import Fleet
    from perflab.trace.collector import Collector

    fleet = Fleet()
    try:
        async with Collector(target.collector, {"/v1/agents": fleet.receive}):
            await asyncio.sleep(LISTEN_S)
    except TraceError as taken:
        try:
            return await _asked(target.collector)
        except (OSError, ValueError) as error:
            raise TraceError(f"{taken}; and what listens there knows no agents: {error!r}") from error
    return fleet.agents()


async def _asked(collector: str) -> list[dict[str, Any]]:
    import urllib.request

    def ask() -> list[dict[str, Any]]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{collector}/v1/agents", timeout=5) as answer:
            return list(json.load(answer))

    return await asyncio.to_thread(ask)


def _run_ids(target: Target) -> dict[int, str]:
    """Return the names of listed runs by tag, as far as the list can be read here."""
    from perflab.shadow.control import decode

    try:
        listed = decode(Path(target.control).read_bytes(), target.control_key.read().encode())
    except (OSError, PerflabError):
        return {}
    return {run.tag: run.run_id for run in listed.runs}


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no agent was heard")
        return
    lines = [_HEADER, *map(_cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEADER))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    age_s = row["control_age_s"]
    hooks = [
        f"{name} {hook['version']}" + ("" if hook["state"] == "on" else f" ({hook['state']})")
        for name, hook in row["hooks"].items()
    ]
    aside = [f"stepped aside {count} times at {where}" for where, count in row["stepped_aside"].items()]
    told = [*filter(None, [row["problem"]]), *(f"hole: {hole}" for hole in row["holes"]), *aside]
    return (
        row["service"] + (" (shadow consumer)" if row["shadow_consumer"] else ""),
        f"{row['pid']}@{row['host']}",
        row["agent_version"],
        f"{age_s:.1f} s old" if age_s < _AGES_KEPT_S else "none",
        ", ".join(row["live"]) or "-",
        ", ".join(hooks) or "-",
        "; ".join(told) or "-",
    )
