"""Promise 2: marked work never writes production, or it errors; the report proves it. Each check can fail."""

from __future__ import annotations

import ast
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perflab.demo.shop

pytestmark = pytest.mark.demo
LEAKY = Path(__file__).parent / "leaky"


def test_every_store_is_proven_while_real_users_write(natural: Any) -> None:
    """Isolation is proven for PostgreSQL and Redis, and each acknowledged write of a real user is there."""
    # GIVEN the demo as it is
    proof = natural.run.isolation
    # THEN each store is proven by every condition of the definition
    assert natural.told["isolation"] == {"stores": 2, "proven": 2, "leaks": 0}
    assert {store["name"] for store in proof["stores"]} == {"postgres", "redis"}
    for store in proof["stores"]:
        assert store["login_refused"]["tried"] == store["login_refused"]["refused"] > 0
        assert store["marked_sessions"]["on_shadow"] > 0
        assert store["marked_sessions"]["elsewhere"] == 0
        assert store["canaries"]["sent"] > 0
        assert store["canaries"]["hits"] == 0
        assert store["changes"]["seen"] > 0
        assert store["changes"]["unattributed"] == 0
    # AND the real users' own writes are there, and the real bank was never charged
    assert proof["real_user_writes"]["acknowledged"] > 20
    assert proof["real_user_writes"]["missing"] == 0
    assert [(row["name"], row["action"], row["live_hits"]) for row in proof["outbound"]] == [
        ("bank", "stub", 0)
    ]


def test_a_disabled_hook_is_refused_before_anything_is_sent(demo: Callable[..., Any]) -> None:
    """A service whose database hook is off is named, and not one marked request is sent."""
    # GIVEN the stock service without its database hook
    # WHEN the demo runs
    played = demo("--for", "5s", "--disable", "stock:psycopg")
    # THEN the run is refused, naming service and hook
    assert (played.code, played.told["verdict"]) == (1, "refused"), played.stderr
    assert "stock" in played.told["reason"]
    assert "psycopg" in played.told["reason"]
    assert played.told["requests"]["sent"] == 0
    assert played.told["isolation"]["leaks"] == 0


def test_a_leak_is_found_with_store_table_and_trace(demo: Callable[..., Any]) -> None:
    """With the hole accepted, marked rows reach production: the run stops and says where, of which trace."""
    # GIVEN the same service, also without the hook of its pool, which alone keeps marked work out, and a
    # scenario that accepts both holes
    words = []
    for hook in ("psycopg", "sqlalchemy"):
        words += ["--disable", f"stock:{hook}", "--accept", f"stock: hook {hook} is off"]
    # WHEN the demo runs
    played = demo("--for", "10s", *words)
    # THEN it stopped, and the leak is there with its evidence
    assert (played.code, played.told["verdict"]) == (1, "leaked"), played.stderr
    leak = played.run.isolation["leaks"][0]
    assert leak["store"] == "postgres"
    assert "stock_movement" in leak["where"]
    assert len(leak["trace_id"]) == 32
    assert leak["trace_id"] in played.told["reason"]
    assert played.told["isolation"]["proven"] < played.told["isolation"]["stores"]


@pytest.mark.parametrize(
    ("build", "where"),
    [("hard_coded", "host="), ("uncovered", "pg8000")],
)
def test_a_leaky_build_is_refused(demo: Callable[..., Any], tmp_path: Path, build: str, where: str) -> None:
    """A hard-coded production address and a driver nobody covers are refused by name, exit 1."""
    # GIVEN a build of the stock service that goes around its settings
    command = f"{sys.executable} {shlex.quote(str(LEAKY / f'{build}.py'))} {{port}}"
    # WHEN the demo runs with it
    played = demo("--for", "5s", "--service", f"stock={command}")
    # THEN the run is refused, no canary reached production
    assert (played.code, played.told["verdict"]) == (1, "refused"), played.stderr
    assert "stock" in played.told["reason"]
    assert played.told["isolation"]["leaks"] == 0
    told = [*played.run.info["holes"], *played.run.isolation["refusals"]]
    assert any(where in str(entry) or "postgres" in str(entry) for entry in told)


def test_a_driver_that_is_not_covered_fails_closed(demo: Callable[..., Any]) -> None:
    """Accepted as a hole, the driver's sockets are still closed to marked work, with store and trace."""
    # GIVEN the build with its own driver, and a scenario that accepts it
    command = f"{sys.executable} {shlex.quote(str(LEAKY / 'uncovered.py'))} {{port}}"
    hole = "stock: driver pg8000 is not covered"
    # WHEN the demo runs with it
    played = demo("--for", "5s", "--service", f"stock={command}", "--accept", hole)
    # THEN marked work was refused at the socket, and production has no canary
    assert (played.code, played.told["verdict"]) == (1, "refused"), played.stderr
    refusals = played.run.isolation["refusals"]
    assert refusals, played.stderr
    assert "127.0.0.1:" in refusals[0]["store"]
    assert len(refusals[0]["trace_id"].strip("0")) > 0
    assert played.told["isolation"]["leaks"] == 0


def test_the_shop_imports_nothing_of_perflab_or_opentelemetry() -> None:
    """No line of the shop's business code knows of perflab or of tracing."""
    # GIVEN every module of the shop
    for path in Path(perflab.demo.shop.__file__).parent.rglob("*.py"):
        # WHEN its imports are read
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            # THEN none is perflab's or OpenTelemetry's
            for name in names:
                assert name.split(".")[0] not in ("perflab", "opentelemetry"), f"{path}: {name}"
