"""perflab launch: a scenario file against a target of perflab.toml."""

from __future__ import annotations

import json

SCENARIO = """
name = "home"
[[endpoints]]
name = "home"
url = "/"
[arrivals]
kind = "constant"
rate = 1
over = "2s"
"""
CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:9"]
control = "control.json"
control_key = { env = "SHOP_CONTROL_KEY" }
collector = "127.0.0.1:0"
"""


def test_an_unknown_target_is_wrong_input(perflab, tmp_path):
    """A target that is not in perflab.toml exits with 2 and lists those there are."""
    # GIVEN a scenario and a target
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "perflab.toml").write_text(CONFIG)
    # WHEN another target is named
    done = perflab("launch", "scenario.toml", "--target", "stage")
    # THEN those there are are listed
    assert done.returncode == 2
    assert "there are: shop" in done.stderr


def test_a_secret_that_is_not_there_is_wrong_input(perflab, tmp_path):
    """A control key whose variable is not set exits with 2 and names the variable."""
    # GIVEN a target whose key is nowhere
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "perflab.toml").write_text(CONFIG)
    # WHEN it is launched
    done = perflab("launch", "scenario.toml", "--target", "shop")
    # THEN the variable is named
    assert done.returncode == 2, done.stderr
    assert "SHOP_CONTROL_KEY is not set" in done.stderr


def test_requests_that_nobody_answers_fail_the_run(perflab, tmp_path):
    """A target where nothing listens is refused by the preflight, with one line of JSON that says so."""
    # GIVEN a target without services, where nothing listens
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "perflab.toml").write_text(CONFIG)
    # WHEN it is launched
    done = perflab("launch", "scenario.toml", "--target", "shop", "--json", SHOP_CONTROL_KEY="secret")
    # THEN it was refused, and the run is there
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["verdict"] == "refused"
    assert "home" in told["reason"]
    assert (told["offered"], told["errors"], told["p99_ms"]) == (0, 0, None)
    assert (tmp_path / "data/runs" / told["run"] / "run.json").exists()
