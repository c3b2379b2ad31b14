"""What the agent costs, in the report: the measured figures or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perflab.report import cost


def test_without_a_measurement_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No file, no sentence."""
    monkeypatch.setattr(cost, "_MEASURED", tmp_path / "none.json")
    assert cost.agents_cost() == ""


def test_measured_ratios_are_shown_with_their_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And that they are not of this run."""
    measured = {
        "date": "2026-11-25",
        "rounds": 9,
        "requests": 100,
        "sample_ratio": 0.01,
        "ratios": {"attached": {"per_s": 0.954, "cpu_ms": 1.06, "p99_ms": 1.1}},
    }
    (tmp_path / "overhead.json").write_text(json.dumps(measured))
    monkeypatch.setattr(cost, "_MEASURED", tmp_path / "overhead.json")
    html = str(cost.agents_cost())
    for text in ("attached", "0.95 x", "1.06 x", "2026-11-25, not in this run", "9 alternating rounds"):
        assert text in html, text


def test_the_shipped_figures_can_be_read():
    """What `make bench-overhead` has left is in the form the report reads."""
    assert "What the agent costs" in str(cost.agents_cost())
