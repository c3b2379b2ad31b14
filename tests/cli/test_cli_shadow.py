"""perflab shadow WHAT: each WHAT is a file."""

from __future__ import annotations

import pytest

from perflab import cli


def test_without_a_what_it_says_how_to_use_it(capsys: pytest.CaptureFixture[str]):
    """Exit code 2, and the usage."""
    assert cli.main(["shadow"]) == 2
    assert "perflab shadow" in capsys.readouterr().err
