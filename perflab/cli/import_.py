"""Turn traces of other systems into a span table.

PATH is a file of Jaeger's JSON or OTLP/JSON, gzipped or not, or a folder of such files. Verbs that read spans
read these files, too; a table made once is read many times faster, and may be larger than memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perflab.cli._progress import following
from perflab.cli._spans import print_counts, print_json
from perflab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a file, or a folder of files")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the Parquet file to write; must not be there yet",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Read the files, write the table, say what there was."""
    from perflab.trace.jsonfile import read_json
    from perflab.trace.schema import concat_spans
    from perflab.trace.store import span_files, write_spans

    if arguments.out.exists():
        raise ConfigError(f"{arguments.out} is there already; remove it or name another file with --out")
    files = [file for path in arguments.paths for file in span_files(path)]
    if not files:
        raise ConfigError(
            f"there are no files of traces in {', '.join(str(path) for path in arguments.paths)}"
        )
    found = []
    for file in files:
        with following(file.stat().st_size, f"bytes of {file.name}") as watch:
            found.append(read_json(file, watch=watch))
    counts: dict[str, int] = {}
    for one in found:
        for name, count in one.counts.items():
            counts[name] = counts.get(name, 0) + count
    table = concat_spans(one.spans for one in found)
    counts["traces"] = len(table["trace_id"].array.unique())
    write_spans(table, arguments.out)
    refused = [f"{file}: {one.reason}" for file, one in zip(files, found, strict=True) if one.refused]
    if arguments.json:
        print_json({"out": str(arguments.out), "files": len(files), "counts": counts, "refused": refused})
        return 0
    print(f"{arguments.out}: {counts['spans']:,} spans of {counts['traces']:,} traces")
    for why in refused:
        print(f"refused, for one: {why}")
    print_counts(counts)
    return 0
