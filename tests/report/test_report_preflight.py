"""What the preflight met, in the report."""

from __future__ import annotations

from pathlib import Path

from perflab.report.preflight import met
from perflab.run import Run


def test_a_run_without_a_preflight_shows_nothing(tmp_path: Path):
    """Older runs have none."""
    assert met(Run.create(tmp_path)) == ""


def test_stores_services_and_notices_are_shown_escaped(tmp_path: Path):
    """Names come from strangers' systems: nothing of them is markup."""
    # Given a run whose preflight met a store, two services and another version
    run = Run.create(tmp_path)
    run.write_preflight(
        {
            "stores": [
                {"store": "orders<b>", "state": "covered", "calls": 3, "service": "cart", "why": ""},
                {"store": "10.0.0.9:27017", "state": "unknown", "calls": 1, "service": "cart", "why": "no"},
            ],
            "services": [
                {
                    "service": "cart", "agent": "0.1.0", "uncovered": ["pymongo"],
                    "hooks": {"psycopg": {"state": "on", "version": "3.2"}, "redis": {"state": "failed"}},
                },
                {"service": "bank", "agent": "", "uncovered": [], "hooks": {}},
            ],
            "notices": ["service 'cart' runs agent 0.0.9; this is perflab 0.1.0"],
        }
    )  # fmt: skip
    # Then it is all there, escaped
    html = str(met(run))
    for text in (
        "orders&lt;b&gt;",
        "covered",
        "unknown",
        "psycopg 3.2",
        "redis is failed",
        "pymongo",
        "0.0.9",
    ):
        assert text in html, text
    assert "<b>" not in html
