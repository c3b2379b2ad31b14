"""Name the bottleneck of a run or of a file of spans.

RUN is a run's id, its directory, or 'latest'; PATH is a Parquet file of spans or a folder of them. Each
row is an operation ('service: operation') or an edge ('caller -> callee'), worst first, with the gain to
be expected from removing its time on the critical path.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perflab.errors import ConfigError
from perflab.run import RUNS, Run

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("rank", "entity", "kind", "calls", "mean_ms", "share_ratio", "gain_ms", "low_ms", "high_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("source", metavar="RUN|PATH", help="a run, or spans in Parquet")
    parser.add_argument(
        "--baseline", metavar="RUN|PATH", help="spans to compare with: what differs is ranked"
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table (default: 10)")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help=f"where the runs are (default: {RUNS})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every row instead")


def run(arguments: argparse.Namespace) -> int:
    """Print the bottleneck table."""
    from perflab.analysis.bottleneck import bottlenecks

    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top} shows nothing; give 1 or more")
    spans = _read(arguments.source, arguments.runs)
    baseline = _read(arguments.baseline, arguments.runs) if arguments.baseline else None
    result = bottlenecks(spans, baseline=baseline)
    if arguments.json:
        answer = {
            "answer": result.answer,
            "sentence": result.sentence,
            "first": result.first["entity"] if result.first else None,
            "counts": dict(result.counts),
            "refused": list(result.refused),
            "rows": _records(result.table),
            "differences": _records(result.differences),
        }
        print(json.dumps(answer, ensure_ascii=False, allow_nan=False, default=_plain))
        return 0
    print(result.sentence)
    _print_table(result.table, _SHOWN, arguments.top)
    if baseline is not None:
        print("\nAgainst the baseline:")
        _print_table(result.differences, tuple(result.differences.columns), arguments.top)
    for why in result.refused:
        print(f"\nleft out: {why}")
    told = {name: count for name, count in dict(result.counts).items() if count}
    print("\n" + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in told.items()))
    return 0


def _read(source: str, runs: Path) -> pd.DataFrame:
    """Return the spans of a run, by id, directory or 'latest', or of a path."""
    from perflab.trace.store import read_spans

    path = Path(source)
    if path.exists() and not (path / "run.json").is_file():
        return read_spans(path)
    spans: pd.DataFrame = Run.open(source, runs).spans
    return spans


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with every digit; what is no number becomes null, which JSON has."""
    rows: list[dict[Any, Any]] = table.to_dict("records")
    return [{str(name): None if value != value else value for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """Turn what numpy and pandas count with into what JSON knows."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _print_table(table: pd.DataFrame, columns: tuple[str, ...], top: int) -> None:
    if table.empty:
        return
    shown = table[[name for name in columns if name in table.columns]].head(top)
    print("\n" + shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if len(table) > top:
        print(f"({len(table) - top} more rows; --top {len(table)} shows them all)")
