"""Limits: what a run is refused for before anything is started (more of it in test_load_launch.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perflab.config import RealUsers, Secret, Target
from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.limits import check_limits

ARRIVALS = Arrivals.constant(1, over="2s")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Return a target that allows `ARRIVALS`."""
    (tmp_path / "key").write_text("secret")
    return Target(
        addresses=("127.0.0.1:9",),
        control=str(tmp_path / "control.json"),
        control_key=Secret(file=str(tmp_path / "key")),
        services={"cart": ("127.0.0.1:9",)},
    )


def test_what_is_allowed_raises_nothing(target: Target) -> None:
    """A run within all limits is let through."""
    check_limits(ARRIVALS, target, [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"real_users": RealUsers("gateway")}, "'gateway'.* there are: cart"),
        ({"control": "/nowhere/control.json"}, "no directory /nowhere"),
        ({"control_key": Secret(file="/nowhere/key")}, "cannot read the secret"),
    ],
)
def test_what_could_not_be_watched_is_wrong_input(target: Target, changed: dict[str, Any], said: str) -> None:
    """A run without a place for its live list, without its key, or blind to its real users is refused."""
    with pytest.raises(ConfigError, match=said):
        check_limits(ARRIVALS, msgspec.structs.replace(target, **changed), [])
