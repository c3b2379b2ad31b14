"""Other processes: refused to marked work on every way there, unless its run accepts it; a fork is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attached_service import Service
from attached_stage import Stage, stage_in
from handed_on import ways_out
from test_shadow_handoff import a_mark

HOLE = "shop: another process"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


@pytest.fixture(scope="module")
def inside(stage: Stage) -> Iterator[Service]:
    """Start an attached process."""
    with Service(stage.environment()) as started:
        yield started


def test_no_program_and_no_process_is_started_by_marked_work(stage: Stage, inside: Service):
    """Each way there raises, says why and is counted under the name the preflight gives the hole."""
    mark = a_mark(stage)
    found = inside.call(ways_out, mark)
    # a child that was forked to become a program is refused there, and says so by its exit code
    assert found.pop("spawnv") == "127"
    assert found.pop("forked process") == str(mark["tag"])
    assert {name: said for name, said in found.items() if "would lose the mark" not in said} == {}


@pytest.mark.parametrize("accepted", [True, False])
def test_what_a_run_accepts_and_ordinary_work_is_untouched(stage: Stage, inside: Service, accepted: bool):
    """A scenario that names the hole has its work let through; real users never notice."""
    mark: dict[str, Any] | None = a_mark(stage, (HOLE,)) if accepted else None
    found = inside.call(ways_out, mark)
    assert found.pop("forked process") == str(mark["tag"] if mark else 0)
    wanted = dict.fromkeys(found, "None") | dict.fromkeys(
        ("run", "Popen", "system", "posix_spawn", "spawnv"), "0"
    )
    assert found == wanted | {"popen": ""}
