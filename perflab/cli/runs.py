"""List the runs there are, newest last."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from perflab.errors import PerflabError
from perflab.run import RUNS, Run, list_runs

_HEADER = ("run", "verdict", "requests", "bottleneck")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help=f"where the runs are (default: {RUNS})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print the runs under the folder."""
    rows = [_row(item) for item in list_runs(arguments.runs)]
    if arguments.json:
        print(json.dumps(rows, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        print(f"there is no run in {arguments.runs}; 'perflab demo' makes one")
    return 0


def _row(item: Run) -> dict[str, Any]:
    """Read one run; what cannot be read is told in its row and does not hide the others."""
    row: dict[str, Any] = {"run": item.run_id, "path": str(item.path)}
    try:
        info = item.info
    except PerflabError as error:
        return {**row, "verdict": "unreadable", "error": str(error)}
    kept: dict[str, Any] = {
        key: info[key] for key in ("requests", "bottleneck", "isolation", "report") if key in info
    }
    return {**row, "verdict": item.verdict, **kept}


def _print_table(rows: list[dict[str, Any]]) -> None:
    lines = [_HEADER, *((row["run"], row["verdict"], _requests(row), _bottleneck(row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    for line in lines:
        cells = [
            text.rjust(width) if i == 2 else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _requests(row: dict[str, Any]) -> str:
    requests = row.get("requests")
    sent = requests.get("sent") if isinstance(requests, dict) else None
    return "-" if sent is None else str(sent)


def _bottleneck(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    bottleneck = row.get("bottleneck")
    entity = bottleneck.get("entity") if isinstance(bottleneck, dict) else bottleneck
    return str(entity) if entity else "-"
