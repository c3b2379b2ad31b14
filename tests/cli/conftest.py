"""The command line as a user meets it: a process of its own, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Perflab = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def perflab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perflab:
    """``perflab(*words, **environment)``: run it in ``tmp_path`` and return what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from perflab.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
