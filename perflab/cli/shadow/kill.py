"""End runs now: every attached process refuses their marks within two seconds.

Works from another terminal, on the machine where the list of live runs is written, and also when the
launch hangs. Without RUN all listed runs are killed. A launch that still moves stops its load and ends with
the verdict 'stopped'.
"""

from __future__ import annotations

import argparse
import getpass
import json
import socket
from pathlib import Path

from perflab.config import load_config
from perflab.errors import ConfigError
from perflab.shadow.killswitch import kill


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run_id", nargs="?", default="", metavar="RUN", help="one run; by default all")
    parser.add_argument("--target", help="a target of perflab.toml; may be left out when there is only one")
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Kill, and say what was killed."""
    target = load_config(arguments.config).target(arguments.target or "")
    if target.control.startswith(("http://", "https://")):
        raise ConfigError(
            f"the list of live runs is served at {target.control}; kill where it is written, "
            "with a perflab.toml whose 'control' is its path"
        )
    by = f"{_user()}@{socket.gethostname()}"
    killed = kill(Path(target.control), target.control_key.read().encode(), by, arguments.run_id)
    if arguments.json:
        print(json.dumps({"killed": killed, "by": by}))
    elif killed:
        print(f"killed: {', '.join(killed)}; attached processes refuse their marks within 2 s")
    else:
        print("no run is listed, so there is nothing to kill")
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as containers have
        return "unknown"
