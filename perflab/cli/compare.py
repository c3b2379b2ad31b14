"""Tell what changed between two runs, and fail if it is what must not be.

A and B are runs (an id, a directory or 'latest') or spans in Parquet: before and after. Each row is an
entity of an entry operation with its verdict: better, worse, same, or cannot say.

A gate is METRIC [@ ENTRY] OP VALUE: 'p99 > 5%' fails when p99 has risen by more than 5 % against A,
'p99 > +20ms' when it has risen by more than 20 ms, 'p99 > 20ms' when it is above 20 ms in B. METRIC is p50,
p90, p95, p99, p999, mean, errors, exclusive:ENTITY (ms per request) or share:ENTITY (of the time); OP is > or
>=; errors and shares are ratios ('errors > 0.01'). A gate fails only when that is certain, that is when the
whole 95 % interval is above the limit.

Exit code: 0 fine, 1 a gate failed, 2 wrong input, 3 a gate could not be judged, for want of requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perflab.cli._spans import (
    add_spans_arguments,
    find_spans,
    print_counts,
    print_json,
    print_table,
    records,
)
from perflab.errors import ConfigError

if TYPE_CHECKING:
    from perflab.analysis.compare import Comparison
    from perflab.analysis.gate import Ruling

FINE, GATE_FAILED, COULD_NOT = 0, 1, 3

_SHOWN = (
    *("entry", "entity", "before_ms", "after_ms", "delta_ms", "low_ms", "high_ms"),
    *("calls_before", "calls_after", "more_calls_ms", "slower_calls_ms", "structure_ms", "verdict"),
)
_SHOWN_LATENCY = ("entry", "verdict", "evidence")
_SHOWN_STRUCTURE = ("entity", "kind", "requests_before", "requests_after", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("before", metavar="A", help="before: a run, or spans in Parquet")
    parser.add_argument("after", metavar="B", help="after: a run, or spans in Parquet")
    parser.add_argument(
        "--fail-on", action="append", default=[], metavar="GATE", help="e.g. 'p99 > 5%%'; several are allowed"
    )
    parser.add_argument(
        "--strict", action="store_true", help="a gate fails by the estimate, however uncertain it is"
    )
    add_spans_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what changed and what became of the gates."""
    from perflab.analysis.compare import compare
    from perflab.analysis.gate import judge_gate, parse_gate

    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top} shows nothing; give 1 or more")
    gates = [parse_gate(text) for text in arguments.fail_on]
    before, after = (find_spans(source, arguments.runs) for source in (arguments.before, arguments.after))
    result = compare(before, after)
    rulings = [judge_gate(gate, result, strict=arguments.strict) for gate in gates]
    if arguments.json:
        print_json(
            {
                "answer": result.answer,
                "sentence": result.sentence,
                "counts": {side: dict(counts) for side, counts in result.counts.items()},
                "refused": list(result.refused),
                "rows": records(result.table),
                "latency": records(result.latency),
                "structure": records(result.structure),
                "gates": [vars(ruling) for ruling in rulings],
            }
        )
    else:
        _print(result, arguments.top)
        for ruling in rulings:
            print(f"\n{ruling.outcome}: {ruling.gate}\n  {ruling.sentence}")
    return _exit_code(rulings)


def _print(result: Comparison, top: int) -> None:
    print(result.sentence)
    print_table(result.table, _SHOWN, top)
    print("\nLatency and errors:")
    print_table(result.latency, _SHOWN_LATENCY, max(top, len(result.latency)))
    if len(result.structure):
        print("\nOnly on one side:")
        print_table(result.structure, _SHOWN_STRUCTURE, top)
    for why in result.refused:
        print(f"\nnote: {why}")
    print()
    for side, counts in result.counts.items():
        print_counts(counts, of=side)


def _exit_code(rulings: Sequence[Ruling]) -> int:
    from perflab.analysis.gate import CANNOT_SAY, FAILED

    outcomes = {ruling.outcome for ruling in rulings}
    if FAILED in outcomes:
        return GATE_FAILED
    return COULD_NOT if CANNOT_SAY in outcomes else FINE
