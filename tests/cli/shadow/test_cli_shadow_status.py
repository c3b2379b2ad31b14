"""perflab shadow status: how each shadow stands."""

from __future__ import annotations

import json

PREPARE = ("shadow", "prepare", "--store", "orders", "--admin-env", "ADMIN_URL", "--yes", "revoke")


def test_without_shadows_it_fails(perflab, site):
    """Exit code 1; each store says why."""
    done = perflab("shadow", "status", **site.environment)
    assert done.returncode == 1, done.stderr
    assert "orders\n  there  NOT AS IT MUST BE: its login cannot enter it" in done.stdout
    assert "there is no file" in done.stdout


def test_a_prepared_store_is_good(perflab, site):
    """Exit code 0, in lines and as JSON; production is compared by the store's audit login."""
    assert perflab(*PREPARE, **site.environment).returncode == 0
    done = perflab("shadow", "status", "--store", "orders", **site.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "production's has not changed since" in done.stdout
    assert "NOT AS IT MUST BE" not in done.stdout
    told = json.loads(perflab("shadow", "status", "--store", "orders", "--json", **site.environment).stdout)
    assert {check["state"] for check in told["orders"]} == {"good"}
    assert [check["what"] for check in told["orders"]][:3] == ["there", "ours", "login"]


def test_redis_and_sqlite_are_looked_at(perflab, site):
    """A confined user and a file of ours are good; what cannot be said is not called bad."""
    for words in (("cache", "--admin-env", "REDIS_ADMIN"), ("file",)):
        done = perflab("shadow", "prepare", "--yes", "make", "--store", *words, **site.environment)
        assert done.returncode == 0, done.stderr
    for name in ("cache", "file"):
        done = perflab("shadow", "status", "--store", name, **site.environment)
        assert done.returncode == 0, done.stdout
    assert "cannot say: a file has no login" in done.stdout
