"""Name the bottleneck of a run or of a file of spans.

RUN is a run's id, its directory, or 'latest'; PATH is a Parquet file of spans or a folder of them. Each
row is an operation ('service: operation') or an edge ('caller -> callee'), worst first, with the gain to
be expected from removing its time on the critical path.
"""

from __future__ import annotations

import argparse

from perflab.cli._spans import (
    add_spans_arguments,
    find_spans,
    print_counts,
    print_json,
    print_table,
    records,
)
from perflab.errors import ConfigError

_SHOWN = ("rank", "entity", "kind", "calls", "mean_ms", "share_ratio", "gain_ms", "low_ms", "high_ms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("source", metavar="RUN|PATH", help="a run, or spans in Parquet")
    parser.add_argument(
        "--baseline", metavar="RUN|PATH", help="spans to compare with: what differs is ranked"
    )
    add_spans_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the bottleneck table."""
    from perflab.analysis.bottleneck import bottlenecks

    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top} shows nothing; give 1 or more")
    spans = find_spans(arguments.source, arguments.runs)
    baseline = find_spans(arguments.baseline, arguments.runs) if arguments.baseline else None
    result = bottlenecks(spans, baseline=baseline)
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
    if baseline is not None:
        print("\nAgainst the baseline:")
        print_table(result.differences, tuple(result.differences.columns), arguments.top)
    for why in result.refused:
        print(f"\nleft out: {why}")
    print()
    print_counts(result.counts)
    return 0
