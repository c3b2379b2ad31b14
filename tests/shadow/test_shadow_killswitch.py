"""The kill switch: heard by every attached process within two seconds, whatever the controller does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attached_stage import Stage, stage_in, until

from perflab.errors import ConfigError
from perflab.shadow.control import ControlPublisher, ControlReader, LiveRun, decode
from perflab.shadow.killfile import killers
from perflab.shadow.killswitch import kill

KEY = b"a control key"
RUNS = [LiveRun(tag, f"run-{tag}", f"key-{tag}", 4_000_000_000) for tag in (1, 2, 3)]


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control.json"


def killed_in(control: Path) -> set[str]:
    return {run.run_id for run in decode(control.read_bytes(), KEY).runs if run.killed}


def test_one_run_is_killed_or_all(control: Path):
    """The list is flagged at once, the publisher keeps the flags, and knows who it was."""
    with ControlPublisher(control, KEY) as publisher:
        for run in RUNS:
            publisher.add(run)
        assert kill(control, KEY, "ann@here", "run-2") == ["run-2"]
        assert killed_in(control) == {"run-2"}
        until(lambda: publisher.killed_by(2) == "ann@here", "the publisher hearing of it")
        publisher.publish()
        assert killed_in(control) == {"run-2"}
        assert kill(control, KEY, "bob@here") == ["run-1", "run-2", "run-3"]
        publisher.publish()
        assert killed_in(control) == {"run-1", "run-2", "run-3"}
        assert [publisher.killed_by(tag) for tag in (1, 2, 3)] == ["bob@here", "ann@here", "bob@here"]
        # A run that begins afterwards lives
        publisher.add(LiveRun(4, "run-4", "key-4", 4_000_000_000))
        assert "run-4" not in killed_in(control)


def test_what_cannot_be_killed_is_said(control: Path):
    """Without a list one names the run; one that is not listed is wrong input; of none, none is killed."""
    with pytest.raises(ConfigError, match="name the one to kill"):
        kill(control, KEY, "ann@here")
    assert kill(control, KEY, "ann@here", "run-9") == ["run-9"]
    assert killers(control, KEY) == {"run-9": "ann@here"}
    with ControlPublisher(control, KEY) as publisher:
        assert kill(control, KEY, "ann@here") == []
        publisher.add(RUNS[0])
        with pytest.raises(ConfigError, match="no run 'run-7' is listed; there are: run-1"):
            kill(control, KEY, "ann@here", "run-7")


def test_a_run_once_seen_killed_lives_never_again(control: Path):
    """Whatever signed list follows, a process that heard of the kill refuses that run's marks."""
    # Given a controller that hangs: it published, and looks for nothing any more
    publisher = ControlPublisher(control, KEY)
    publisher.add(RUNS[0])
    publisher.add(RUNS[1])
    reader = ControlReader(str(control), KEY)
    reader.poll()
    # When one run is killed and the reader hears of it
    kill(control, KEY, "ann@here", "run-1")
    reader.poll()
    assert not reader.is_live(1)
    # Then no newer list brings it back, only a run of another key may use its tag
    (control.parent / "control.json.kill").unlink()
    publisher.publish()
    assert killed_in(control) == set()
    reader.poll()
    assert (reader.problem, reader.is_live(1), reader.is_live(2)) == ("", False, True)
    publisher.add(LiveRun(1, "run-1b", "key-1b", 4_000_000_000))
    reader.poll()
    assert reader.is_live(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage_in(tmp_path_factory.mktemp("stage")) as opened:
        yield opened


def test_every_attached_process_refuses_within_two_seconds(stage: Stage):
    """Three processes of two kinds, killed from outside: each refuses in time, and serves everything else."""
    # Given attached processes that serve a run's marked requests
    services = [stage.serve("flask_shop:app"), stage.serve("flask_shop:app"), stage.serve("fastapi_shop:app")]
    run = stage.live()
    name = f"run-{run.tag}"
    for service in services:
        until(lambda: service.get("/items/1", stage.marked(run))[0] == 200, "the run being believed")  # noqa: B023 - called in this turn
    # When somebody kills it
    began_s = time.monotonic()
    assert kill(stage.control, (stage.directory / "control.key").read_bytes(), "ann@here", name) == [name]
    # Then each refuses its marks within two seconds
    left = list(services)
    while left:
        left = [service for service in left if service.get("/items/1", stage.marked(run))[0] != 403]
        assert time.monotonic() - began_s < 2, f"{len(left)} processes have not heard of the kill"
    # And marks of other runs, and real users, are served
    for service in services:
        assert service.get("/items/1", stage.marked())[0] == 200
        assert service.get("/items/1")[0] == 200
