"""What the agent costs ordinary work: the last measurement that was made of it, with its date and commit.

`tests/benchmarks/overhead.py` writes the figures into ``overhead.json`` beside this file; a run cannot
measure them, for it has no service without the agent to compare with.
"""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from perflab.report.cards import table

_MEASURED = Path(__file__).with_name("overhead.json")


def agents_cost() -> Markup:
    """Show the ratios to a service without any agent; nothing where they were never measured."""
    if not _MEASURED.exists():
        return Markup("")
    measured = json.loads(_MEASURED.read_text(encoding="utf-8"))
    rows = [
        {
            "compared with a bare service": name,
            "throughput": f"{figures['per_s']:.2f} x",
            "CPU per request": f"{figures['cpu_ms']:.2f} x",
            "p99": f"{figures['p99_ms']:.2f} x",
        }
        for name, figures in measured["ratios"].items()
    ]
    said = Markup("<p>{}</p>").format(
        f"Medians of {measured['rounds']} alternating rounds on a Flask service with PostgreSQL, sampling"
        f" {measured['sample_ratio']:g}; measured {measured['date']}, not in this run."
    )
    return Markup("<h3>What the agent costs ordinary requests</h3>") + table(rows).html + said
