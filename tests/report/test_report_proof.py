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
