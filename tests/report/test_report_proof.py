"""What a run can show for its promises."""

import re

from perflab.report import proof
from perflab.run import Run

HOSTILE = "<img src=x onerror=alert(1)>"


def words(html):
    """Return the text of a piece, whitespace folded."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html._repr_html_())).strip()


def bare_run(folder):
    """Return a run that failed before it wrote anything."""
    (folder / "spans").mkdir(parents=True)
    run = Run(folder)
    run.write_info({})
    return run


def test_every_store_is_listed_with_what_proves_it(run_dir):
    """The four conditions, and what was not checked in words."""
    # When
    said = words(proof.isolation(Run(run_dir)))
    # Then
    assert "shop (PostgreSQL) postgresql proven 3 of 3 tries 14 of 14 0 of 240 sent 812 of 812" in said
    assert "cache (Redis) redis not proven" in said
    assert "cache (Redis): two changes of expired keys could not be attributed" in said
    assert "Of 118 writes that real users had acknowledged meanwhile, 0 are missing." in said


def test_leaks_come_first_with_store_place_and_trace(make_run, tmp_path):
    """A leak is said in an alarm above everything else."""
    # Given
    run = make_run(tmp_path / "leaking")
    leak = {"store": "shop", "where": "orders", "trace_id": "ab" * 16, "what": "INSERT"}
    run.write_isolation({**run.isolation, "leaks": [leak]})
    # When
    html = proof.isolation(run)
    # Then
    assert html._repr_html_().startswith('<section class="proof"><div class="alarm">')
    assert (
        "Marked work reached production (1) store where what trace id shop orders INSERT " + "ab" * 16
        in words(html)
    )


def test_a_login_that_was_not_tried_is_not_a_refusal(make_run, tmp_path):
    """Booleans are read as well as counts, and an untried login never counts as proof."""
    # Given
    run = make_run(tmp_path / "odd")
    stores = [
        {"name": "a", "login_refused": {"tried": True, "refused": True}},
        {"name": "b", "login_refused": {"tried": False, "refused": False}},
        {"name": "c"},
    ]
    run.write_isolation({"stores": stores})
    # When
    said = words(proof.isolation(run))
    # Then
    assert "a — not proven yes" in said
    assert "b — not proven not tried" in said
    assert "c — not proven —" in said


def test_a_run_that_failed_early_says_everywhere_what_is_missing(tmp_path):
    """No proof, no users, no checks, no errors, no events: five sentences and no exception."""
    # Given
    run = bare_run(tmp_path / "bare")
    # When / Then
    assert "Nothing is proven" in words(proof.isolation(run))
    assert "were not measured" in words(proof.real_users(run))
    assert "No threshold and no guard is recorded." in words(proof.checks(run))
    assert "No request is recorded." in words(proof.errors(run))
    assert "no record of events" in words(proof.events(run))
    assert "scenario —" in words(proof.parameters(run))


def test_the_real_users_are_compared_before_during_and_after(run_dir):
    """Three rows in that order."""
    assert "before 300 8.1 31 0 % during 410 8.4 33.5 0 % after 120 8 30.2 0 %" in words(
        proof.real_users(Run(run_dir))
    )


def test_thresholds_and_guards_say_whether_they_held(make_run, tmp_path):
    """A threshold that was not met, one that cannot be judged, a guard that tripped."""
    # Given
    info = {
        "thresholds": [
            {"endpoint": "pay", "metric": "p99", "limit": "1s", "value": "2s", "passed": False},
            {"endpoint": "see", "metric": "p99", "limit": "1s", "value": None, "passed": None},
        ],
        "guards": [
            {"of": "real users", "metric": "p99", "limit": "250ms", "worst": "900ms", "tripped": True}
        ],
    }
    # When
    said = words(proof.checks(make_run(tmp_path / "checked", info=info)))
    # Then
    assert "threshold pay p99 1s 2s not held" in said
    assert "threshold see p99 1s — cannot say" in said
    assert "guard real users p99 250ms 900ms tripped" in said


def test_services_that_died_and_holes_are_named(make_run, tmp_path):
    """A service that is well is not listed."""
    # Given
    info = {
        "services": [{"name": "stock", "state": "died"}, {"name": "order", "state": "ok"}],
        "holes": ["POST /refund loses the mark", {"service": "mail", "why": "no agent"}],
    }
    # When
    said = words(proof.errors(make_run(tmp_path / "unwell", info=info)))
    # Then
    assert "stock: died" in said
    assert "order: ok" not in said
    assert "POST /refund loses the mark" in said
    assert "service mail, why no agent" in said


def test_text_from_the_run_is_escaped(make_run, tmp_path):
    """Markup in names of stores, services, holes, events and limits stays text."""
    # Given
    info = {
        "services": [{"name": HOSTILE, "state": HOSTILE}],
        "holes": [HOSTILE],
        "guards": [{"of": HOSTILE, "limit": HOSTILE}],
        "versions": {HOSTILE: HOSTILE},
        "requests": {"error_outcomes": {HOSTILE: 1}},
    }
    run = make_run(tmp_path / "hostile", info=info)
    run.event(HOSTILE, detail=HOSTILE)
    run.write_isolation(
        {"stores": [{"name": HOSTILE, "not_checked": [HOSTILE]}], "leaks": [{"store": HOSTILE}]}
    )
    # When / Then
    for piece in (
        proof.isolation,
        proof.checks,
        proof.errors,
        proof.events,
        proof.parameters,
        proof.real_users,
    ):
        assert "<img" not in piece(run)._repr_html_()


def test_what_production_gained_is_split_by_who_accounts_for_it(make_run, tmp_path):
    """What is covered by time only, and what nobody accounts for, each in a column; with examples."""
    # Given
    run = make_run(tmp_path / "counted")
    changes = {
        "unit": "transactions",
        "seen": 12,
        "attributed": 7,
        "opaque": 3,
        "background": 1,
        "expired": 0,
        "unattributed": 2,
    }
    example = {"where": "shop.orders", "what": "transaction 0-1-9: insert shop.orders (1)"}
    stores = [{"name": "market", "kind": "mariadb", "changes": {**changes, "examples": [example]}}]
    nothing = {
        "login_refused": {"tried": 0, "refused": 0},
        "changes": {"unit": "", "seen": 0, "attributed": 0},
    }
    run.write_isolation({"stores": [*stores, {"name": "notes", "kind": "sqlite", **nothing}]})
    # When
    said = words(proof.isolation(run))
    # Then
    assert "covered by time only written outside of requests expired by the server nobody" in said
    assert "market transactions 12 7 3 1 0 2" in said
    assert "market: transaction 0-1-9: insert shop.orders (1)" in said
    assert "notes sqlite not proven not tried — — not seen" in said


def test_a_leak_shows_where_it_stands_in_the_log(make_run, tmp_path):
    """Transaction, position, time and evidence, where they are known."""
    # Given
    run = make_run(tmp_path / "leaked")
    leak = {"store": "market", "where": "shop.orders", "what": "insert", "trace_id": "ab" * 16}
    known = {"transaction": "0-1-9", "position": "binlog.000001:17", "evidence": "(4, plc-x)"}
    run.write_isolation({"leaks": [{**leak, **known, "time_ns": 1_795_000_000_000_000_000}]})
    # When
    said = words(proof.isolation(run))
    # Then
    place = "transaction 0-1-9, position binlog.000001:17: (4, plc-x)"
    assert f"shop.orders, 2026-11-18 11:06:40 UTC, {place}" in said
