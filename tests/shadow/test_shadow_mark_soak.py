"""False marks are never accepted, unmarked requests never refused: a slice; all by ``make soak-marks``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from mark_trials import Trials, attached_to, try_false_marks, try_unmarked

FALSE = int(os.environ.get("PERFLAB_FALSE_MARKS", "16000"))
UNMARKED = int(os.environ.get("PERFLAB_UNMARKED", "60000"))
ORDINARY = {"one bit of a bare trace-id flipped"}  # a trace-id can only affirm


@pytest.mark.timeout(7_200)
def test_no_false_mark_is_accepted(tmp_path: Path):
    """Forged, expired, altered and replayed marks: 0 accepted, and every claim is refused for a reason."""
    seed = time.time_ns()
    with attached_to(Trials(seed), tmp_path) as trials:
        verdicts = try_false_marks(trials, FALSE)
    print(f"\n{FALSE} false marks, seed {seed}, {len(trials.live)} live runs")
    for kind, found in verdicts.items():
        print(f"  {kind}: {found.total()} = " + ", ".join(f"{n} {why}" for why, n in found.most_common()))
        assert found.total() >= FALSE // len(verdicts)
        assert found["marked"] == 0, kind
        assert found["ordinary"] == (found.total() if kind in ORDINARY else 0), kind
    print(f"accepted: {sum(found['marked'] for found in verdicts.values())}")


@pytest.mark.timeout(7_200)
def test_no_unmarked_request_is_refused(tmp_path: Path):
    """Random trace-ids while runs are live: all ordinary."""
    seed = time.time_ns()
    with attached_to(Trials(seed), tmp_path) as trials:
        found = try_unmarked(trials, UNMARKED)
        assert trials.accept_genuine(100) == 100  # the runs were live to the end
    print(f"\n{UNMARKED} random unmarked trace-ids, seed {seed}, {len(trials.live)} live runs: {dict(found)}")
    assert found == {"ordinary": UNMARKED}
