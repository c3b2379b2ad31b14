"""Open JupyterLab on the notebooks.

The notebooks are those in ``./notebooks``. Where there is no such folder, perflab's own are copied there
first; a folder that exists is opened as it is and nothing in it is written. Kernels start in the current
directory, so that ``pf.Run.open("latest")`` finds the runs under ``./data/runs``. Arguments perflab does
not know go to JupyterLab: ``perflab lab --no-browser --port 9999``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import perflab
from perflab.errors import ConfigError

PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "--notebooks",
        type=Path,
        default=Path("notebooks"),
        metavar="DIR",
        help="the folder to open, made and filled if it is not there (default: notebooks)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Become JupyterLab; this returns only when it could not be started."""
    folder = notebooks_folder(arguments.notebooks)
    print(f"JupyterLab on {folder}; kernels run in {Path.cwd()}", file=sys.stderr)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        f"--MappingKernelManager.root_dir={Path.cwd()}",
        *(["--allow-root"] if os.geteuid() == 0 else []),
        *arguments.passed_on,
    ]
    sys.stderr.flush()
    os.execv(sys.executable, command)


def notebooks_folder(wanted: Path) -> Path:
    """Return the folder to open, filled with perflab's notebooks if it was not there.

    Parameters
    ----------
    wanted : Path
        An existing folder is returned untouched.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    ConfigError
        If ``wanted`` is a file, or cannot be made.
    """
    folder = wanted.resolve()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigError(f"{folder} is a file; give the folder of the notebooks with --notebooks DIR")
    source = _own_notebooks()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
            filled = Path(aside) / folder.name
            shutil.copytree(source, filled, ignore=shutil.ignore_patterns(".*", "__pycache__"))
            filled.rename(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot copy the notebooks from {source} to {folder}: {error}; "
            "give a folder that can be written with --notebooks DIR"
        ) from error
    return folder


def _own_notebooks() -> Path:
    """Find the notebooks of the wheel, or of the checkout perflab runs from."""
    package = Path(perflab.__file__).parent
    places = (package / "notebooks", package.parent / "notebooks")
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(
        f"perflab's notebooks are missing from {' or '.join(map(str, places))}; reinstall perflab"
    )
