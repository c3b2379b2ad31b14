"""perflab shadow drop: shown, asked, undone."""

from __future__ import annotations

import json

ORDERS = ("--store", "orders", "--admin-env", "ADMIN_URL")


def test_it_shows_and_asks_and_undoes_everything(perflab, site):
    """Without --yes nothing goes; with it all that was made, and nothing else."""
    # Given
    before = site.databases()
    assert perflab("shadow", "prepare", *ORDERS, "--yes", "revoke", **site.environment).returncode == 0

    # When
    asked = perflab("shadow", "drop", *ORDERS, **site.environment)
    assert asked.returncode == 2
    assert "would go: database shop_shadow\n" in asked.stdout
    assert "would go: PUBLIC may enter shop again\n" in asked.stdout
    assert "shop_shadow" in site.databases()
    done = perflab("shadow", "drop", *ORDERS, "--yes", "--json", **site.environment)

    # Then
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == "database shop_shadow"
    assert site.databases() == before
    assert perflab("shadow", "drop", *ORDERS, "--yes", **site.environment).stdout == "orders has no shadow\n"


def test_somebody_elses_database_stays(perflab, site):
    """A name in the shadow's URL that is not ours is refused."""
    url = site.environment["SHADOW_URL"].replace("/shop_shadow", "/shop")
    done = perflab("shadow", "drop", *ORDERS, "--yes", **{**site.environment, "SHADOW_URL": url})
    assert done.returncode == 1
    assert "a database 'shop' exists and was not made by perflab" in done.stderr
    assert "shop" in site.databases()
