"""What is known and not covered is named as people name it."""

from __future__ import annotations

import pytest
from attached_stage import stage_in

from perflab.shadow.drivers import HOOKS
from perflab.shadow.uncovered import SERVERS, UNCOVERED, what_is


def test_servers_are_told_from_drivers():
    """Nothing is both hooked and named as uncovered."""
    assert {what_is(name) for name in SERVERS} == {"server"}
    assert {what_is(name) for name in UNCOVERED - SERVERS} == {"driver"}
    assert not UNCOVERED & {trigger for triggers in HOOKS.values() for trigger, _, _ in triggers}


@pytest.mark.parametrize("name", ["tornado.web", "tornado.httpserver", "aiohttp.web"])
def test_a_server_that_is_not_covered_is_a_hole_by_its_name(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A request that arrives there would be taken for an ordinary one: the preflight refuses the run."""
    code = f"""
import {name}
from perflab.shadow.scope import process
print(*sorted(process.ledger.holes("shop")), sep="\\n")
"""
    with stage_in(tmp_path_factory.mktemp("stage")) as stage:
        assert f"shop: server {name} is not covered" in stage.script(code).stdout.splitlines()
