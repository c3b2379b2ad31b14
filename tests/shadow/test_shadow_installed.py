"""Files that were replaced under a running process are not mixed with what it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import perflab

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from perflab.shadow import installed
print(installed.may_import("perflab.shadow.sql.psycopg3"), installed.may_import("perflab.shadow.installed"))
sys.stdout.flush()
sys.stdin.readline()
print(installed.may_import("perflab.shadow.sql.psycopg3"), installed.may_import("perflab.shadow.installed"))
"""


def test_replaced_files_are_noticed(tmp_path: Path):
    """What is imported stays usable; what is not would be another version's."""
    # Given a process that runs a copy of the package
    package = Path(perflab.__file__).parent
    copy = tmp_path / "perflab"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["True", "True"]
    # When the copy's files are replaced, as by a package manager
    fresh = copy / "__init__.new"
    fresh.write_bytes((copy / "__init__.py").read_bytes() + b"\n# another version\n")
    fresh.replace(copy / "__init__.py")
    said, _ = process.communicate("\n", timeout=30)
    # Then only what is in use already may be used
    assert said.split() == ["False", "True"]
