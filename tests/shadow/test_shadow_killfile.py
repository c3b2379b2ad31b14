"""The kill file: signed, added to, and free of what is over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perflab.shadow.killfile import killers, note_killed, replace_file

KEY = b"a control key"


def test_killed_runs_are_noted_and_those_that_are_over_leave(tmp_path: Path):
    """Runs are added to those there are; the first who killed a run stays; old ones go."""
    control, now_s = tmp_path / "control.json", int(time.time())
    assert killers(control, KEY) == {}
    note_killed(control, KEY, "a@x", {"run-1": now_s + 60, "run-0": now_s - 60})
    assert killers(control, KEY) == {"run-1": "a@x", "run-0": "a@x"}
    note_killed(control, KEY, "b@x", {"run-2": now_s + 60, "run-1": now_s + 60})
    assert killers(control, KEY) == {"run-1": "a@x", "run-2": "b@x"}
    assert sorted(os.listdir(tmp_path)) == ["control.json.kill"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"payload": "[]", "signature": ""}', b"\xff"])
def test_what_is_not_believed_kills_nothing(tmp_path: Path, content: bytes):
    """Garbage, and what another key signed, says nothing."""
    control = tmp_path / "control.json"
    note_killed(control, b"another key", "a@x", {"run-1": int(time.time()) + 60})
    assert killers(control, KEY) == {}
    (tmp_path / "control.json.kill").write_bytes(content)
    assert killers(control, KEY) == {}


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path):
    """What cannot be replaced fails loudly, and the file beside it is gone."""
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "there", b"x")
    assert os.listdir(tmp_path) == ["there"]
