"""Name the bottleneck of a run or of a file of spans.

RUN is a run's id, its directory, or 'latest'; PATH is a Parquet file of spans or a folder of them. Each
row is an operation ('service: operation') or an edge ('caller -> callee'), worst first, with the gain to
be expected from removing its time on the critical path. Tables too large for memory are read part by part.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perflab.cli._progress import following
from perflab.cli._spans import (
    add_spans_arguments,
    find_path,
    print_counts,
    print_json,
    print_table,
    records,
)
from perflab.errors import ConfigError, SpanFormatError

if TYPE_CHECKING:
    from perflab.analysis.bottleneck import Bottlenecks
    from perflab.trace.scan import SpanScan

AT_ONCE = 5_000_000
"""Spans held in memory: about 2 GB with all that is derived from them."""

_SHOWN = ("rank", "entity", "kind", "calls", "mean_ms", "share_ratio", "gain_ms", "low_ms", "high_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("source", metavar="RUN|PATH", help="a run, or spans in Parquet")
    parser.add_argument(
        "--baseline",
        metavar="RUN|PATH|fast|unloaded",
        help="what got slower against other spans, of slow requests against fast, under load against without",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=AT_ONCE,
        metavar="SPANS",
        help=f"spans to hold in memory; tables with more are read part by part (default: {AT_ONCE:,})",
    )
    add_spans_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the bottleneck table."""
    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top} shows nothing; give 1 or more")
    if arguments.at_once < 1:
        raise ConfigError(f"--at-once {arguments.at_once} reads nothing; give 1 or more")
    result = _analyse(arguments)
    if arguments.json:
        answer = {
            "answer": result.answer,
            "sentence": result.sentence,
            "first": result.first["entity"] if result.first else None,
            "counts": dict(result.counts),
            "refused": list(result.refused),
            "rows": records(result.table),
            "differences": records(result.differences),
        }
        print_json(answer)
        return 0
    print(result.sentence)
    print_table(result.table, _SHOWN, arguments.top)
    if arguments.baseline:
        print("\nAgainst the baseline:")
        print_table(result.differences, tuple(result.differences.columns), arguments.top)
    for why in result.refused:
        print(f"\nleft out: {why}")
    print()
    print_counts(result.counts)
    return 0


def _analyse(arguments: argparse.Namespace) -> Bottlenecks:
    """Look at all spans at once, or part by part where there are too many."""
    from perflab.analysis.bottleneck import bottlenecks
    from perflab.analysis.cohort import COHORTS
    from perflab.analysis.streamed import SAMPLED_SPANS, stream_bottlenecks
    from perflab.trace.store import read_spans

    cohort = arguments.baseline if arguments.baseline in COHORTS else None
    sources = [arguments.source, *([arguments.baseline] if arguments.baseline and not cohort else [])]
    paths = [find_path(source, arguments.runs) for source in sources]
    scans = [_scan_large(path, arguments.at_once) for path in paths]
    if len(paths) == 1 and not cohort and scans[0] is not None:
        with following(scans[0].spans, "spans") as watch:
            return stream_bottlenecks(paths[0], watch=watch)
    tables, sampled = [], []
    for source, path, scan in zip(sources, paths, scans, strict=True):
        tables.append(read_spans(path) if scan is None else scan.sample(SAMPLED_SPANS))
        if scan is not None:
            sampled.append(
                f"{source}: a sample of {len(tables[-1]):,} of {scan.spans:,} spans, all over the table"
            )
    result = bottlenecks(tables[0], baseline=tables[1] if len(tables) > 1 else cohort)
    return replace(result, refused=(*sampled, *result.refused))


def _scan_large(path: Path, at_once: int) -> SpanScan | None:
    """Return what there is to read if it is more than is held at once."""
    from perflab.trace.scan import scan_spans

    try:
        scan = scan_spans(path)
    except SpanFormatError:
        return None  # what is wrong with it, if anything, is told when it is read
    return scan if scan.spans > at_once else None
