"""Analyse more spans than fit into memory: CPU time and memory of `perflab analyse`, as a process of its own.

    python tests/benchmarks/large.py [SPANS]     (100 million by default: 3 GB of disk, some minutes)

The spans are made once, in a directory that is removed in the end: traces of a random forest over and over,
each with ids of its own and at a later time. What is printed is measured by the operating system.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from perflab.testing import random_forest
from perflab.trace.schema import span_table
from perflab.trace.store import SpanWriter

TRACES = 9_500
"""In a row group: about 128,000 spans."""

PAUSE_NS = 10**9


def write_many(path: Path, spans: int, seed: int = 1) -> int:
    """Write at least so many spans and return how many."""
    pattern = random_forest(seed, traces=TRACES)
    written = part = 0
    rng = np.random.default_rng(seed)
    lasts_ns = int(pattern["start_ns"].max() - pattern["start_ns"].min()) + PAUSE_NS
    codes = pattern["trace_id"].array.codes
    traces = len(pattern["trace_id"].array.categories)
    with SpanWriter(path) as writer:
        while written < spans:
            salt = np.uint64(rng.integers(1, 2**63))
            known = [f"{part:08x}{number:024x}" for number in range(1, traces + 1)]
            columns = {name: pattern[name].array for name in pattern.columns}
            columns["trace_id"] = pd.Categorical.from_codes(codes, categories=pd.Index(known, dtype="str"))
            columns["span_id"] = pattern["span_id"].to_numpy() ^ salt
            parent = pattern["parent_span_id"].to_numpy()
            columns["parent_span_id"] = np.where(parent == 0, parent, parent ^ salt)
            columns["start_ns"] = pattern["start_ns"].to_numpy() + part * lasts_ns
            writer.write(span_table(columns))
            written += len(pattern)
            part += 1
            if part % 50 == 0:
                print(f"  {written:,} spans written", file=sys.stderr, flush=True)
    return written


def main() -> None:
    """Make the spans, analyse them, say what it took."""
    spans = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000_000
    with tempfile.TemporaryDirectory(prefix="perflab-large-") as folder:
        path = Path(folder) / "spans.parquet"
        written = write_many(path, spans)
        print(f"{written:,} spans in {path.stat().st_size / 1e9:.2f} GB of Parquet", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "perflab", "analyse", str(path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = used.ru_utime + used.ru_stime
        print(
            f"perflab analyse: {cpu_s:.1f} s of CPU ({cpu_s / written * 1e6:.3f} us a span), "
            f"{time.monotonic() - began:.1f} s, {used.ru_maxrss / 2**20:.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
