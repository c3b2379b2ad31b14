"""perflab shadow prepare: shown, asked, done, proven."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ORDERS = ("shadow", "prepare", "--store", "orders", "--admin-env", "ADMIN_URL")


def test_without_a_choice_nothing_is_changed(perflab, site):
    """Exit code 2; the exact statements and lines are shown, and what to choose."""
    before = site.databases()
    done = perflab(*ORDERS, **site.environment)
    assert done.returncode == 2, done.stderr
    assert 'REVOKE CONNECT, TEMPORARY ON DATABASE "shop" FROM PUBLIC;' in done.stdout
    assert 'host    all  "shop_shadow"  all  reject' in done.stdout
    assert "pg_hba.conf" in done.stdout
    assert "at most 49 sessions" in done.stdout
    assert "rows of public.visits: the newest 1, and those they refer to" in done.stdout
    assert "masked: public.people.email by email" in done.stdout
    assert "nothing was changed; by what shall 'shop_shadow' be kept out" in done.stderr
    assert site.databases() == before


def test_a_dry_run_changes_nothing_whatever_was_chosen(perflab, site):
    """With --json it is one object."""
    before = site.databases()
    done = perflab(*ORDERS, "--yes", "revoke", "--dry-run", "--json", **site.environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["build"], told["keep_out"], told["rows"]) == (True, "revoke", {"public.visits": 1})
    assert site.databases() == before


def test_it_is_made_and_made_again(perflab, site):
    """The first time built, then kept without a question; the password is never shown."""
    first = perflab(*ORDERS, "--yes", "revoke", "--limit", "7", "--lock-timeout", "3s", **site.environment)
    again = perflab(*ORDERS, "--json", **site.environment)
    assert first.returncode == 0, first.stderr
    assert "shop_shadow is made; shop_shadow may enter nothing else:" in first.stdout
    assert 'shop: FATAL:  permission denied for database "shop"' in first.stdout
    assert "2 rows of 2 tables copied" in first.stdout
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["created"] is False
    assert not any("secret" in text for done in (first, again) for text in (done.stdout, done.stderr))
    with psycopg.connect(site.environment["SHADOW_URL"]) as session:
        (email,) = session.execute("SELECT email FROM people").fetchone()
        assert email.endswith(".test")
        assert "ada" not in email


def test_what_looks_personal_is_refused(perflab, site, tmp_path):
    """Exit code 2 with a list, until it is named."""
    path = tmp_path / "perflab.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "sample" not in line))
    refused = perflab(*ORDERS, "--yes", "revoke", "--rows", "5", **site.environment)
    assert refused.returncode == 2
    assert "1 columns look personal and have no mask: public.people.email" in refused.stderr
    done = perflab(
        *ORDERS, "--yes", "revoke", "--rows", "5", "--unmasked", "people.email", **site.environment
    )
    assert done.returncode == 0, done.stderr
    assert "3 rows of 2 tables copied" in done.stdout


def test_rules_that_are_not_there_are_shown(perflab, site):
    """--yes hba makes nothing before the lines are in the file."""
    before = site.databases()
    done = perflab(*ORDERS, "--yes", "hba", **site.environment)
    assert done.returncode == 2
    assert "Put these lines into" in done.stderr
    assert site.databases() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shadow", "prepare"), "name the store with --store; there are: orders, cache, file"),
        (("shadow", "prepare", "--store", "x"), "no store 'x' in that target; there are: orders"),
        (("shadow", "prepare", "--store", "orders"), "give it with --admin-env VAR or --admin-file FILE"),
        ((*ORDERS, "--rows", "-1"), "--rows is 0 or more"),
        ((*ORDERS, "--yes", "make"), "choose revoke, hba or separate"),
        ((*ORDERS, "--yes", "separate"), "the shadow's server is production's own"),
    ],
)
def test_wrong_words_are_told(perflab, site, words, message):
    """Exit code 2, and what to write instead."""
    done = perflab(*words, **site.environment)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_on_a_terminal_it_asks(site, tmp_path):
    """N changes nothing; the name of a method does it."""
    for answer, code in (("n", 2), ("revoke", 0)):
        assert _on_terminal(ORDERS, answer, site.environment, tmp_path) == code
    assert "shop_shadow" in site.databases()


def test_another_servers_shadow_needs_a_login_for_production(perflab, site):
    """A shadow URL that names another server is told what is missing."""
    url = site.environment["SHADOW_URL"].replace(f":{site.postgres.port}/", ":1/")
    done = perflab(*ORDERS, **{**site.environment, "SHADOW_URL": url})
    assert done.returncode == 2
    assert "--source-env VAR" in done.stderr


def _on_terminal(words: tuple[str, ...], answer: str, environment: dict[str, str], folder: Path) -> int:
    """Run perflab with a terminal as its standard input, and give an answer there."""
    ours, theirs = pty.openpty()
    code = "import sys; from perflab.cli import main; sys.exit(main())"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.write(ours, f"{answer}\n".encode())
        return process.wait(60)
    finally:
        os.close(ours)
        os.close(theirs)
