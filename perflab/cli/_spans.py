"""What the verbs that analyse spans have in common: where the spans come from, how rows are shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perflab.run import RUNS, Run

if TYPE_CHECKING:
    import pandas as pd


def add_spans_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where runs are looked for, how much is shown, and in which form."""
    parser.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table (default: 10)")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help=f"where the runs are (default: {RUNS})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every row instead")


def find_spans(source: str, runs: Path) -> pd.DataFrame:
    """Return the spans of a run, by id, directory or 'latest', or of a path."""
    from perflab.trace.store import read_spans

    return read_spans(find_path(source, runs))


def find_path(source: str, runs: Path) -> Path:
    """Return where the spans of a run or of a path lie."""
    path = Path(source)
    if path.exists() and not (path / "run.json").is_file():
        return path
    return Run.open(source, runs).path / "spans"


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(answer, ensure_ascii=False, allow_nan=False, default=_plain))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with every digit; what is no number becomes null, which JSON has."""
    rows: list[dict[Any, Any]] = table.to_dict("records")
    return [{str(name): None if value != value else value for name, value in row.items()} for row in rows]


def print_table(table: pd.DataFrame, columns: Sequence[str], top: int) -> None:
    """Print the first rows of some columns, and how many more there are."""
    if table.empty:
        return
    shown = table[[name for name in columns if name in table.columns]].head(top)
    print("\n" + shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if len(table) > top:
        print(f"({len(table) - top} more rows; --top {len(table)} shows them all)")


def print_counts(counts: Mapping[str, int], of: str = "") -> None:
    """Print the counts that are not zero in one line."""
    told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    print(f"{of}: {told}" if of else told)


def _plain(value: Any) -> Any:
    """Turn what numpy and pandas count with into what JSON knows."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
