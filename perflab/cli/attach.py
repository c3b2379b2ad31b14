"""Start a service with the agent in it: perflab attach --service NAME -- COMMAND.

The command is the service's ordinary one; perflab replaces itself by it. Nothing of the service changes:
the agent comes in through ``PYTHONPATH`` and is told what it needs through one environment variable, secrets
by reference only. A Python that ignores these (``-I``, ``-E``, ``-S``, ``env -i``) is refused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import perflab.shadow
from perflab.cli._attachable import what_may_be_unattached, why_unattached
from perflab.config import Target, load_config
from perflab.errors import ConfigError
from perflab.shadow.agentconfig import VARIABLE, agent_config, write_agent_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--target", help="a target of perflab.toml; may be left out when there is only one")
    parser.add_argument("--service", required=True, help="what tables call this service")
    parser.add_argument(
        "--shadow-consumer",
        action="store_true",
        help="run this worker for shadow messages only: all its stores are shadows",
    )
    parser.add_argument(
        "--disable",
        action="append",
        default=[],
        metavar="HOOK",
        help="leave a hook out (a hole: runs are refused unless the scenario names it)",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the ordinary command"
    )


def run(arguments: argparse.Namespace) -> int:
    """Replace this process by the service, with the agent in it."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ConfigError(
            "no command given; write it after '--', as in: perflab attach --service cart -- python cart.py"
        )
    program = shutil.which(command[0])
    if program is None:
        raise ConfigError(f"the command {command[0]!r} is not on PATH")
    _check_reached(command)
    target = load_config(arguments.config).target(arguments.target or "")
    environment = attached_environment(
        target,
        arguments.service,
        disabled=tuple(arguments.disable),
        shadow_consumer=arguments.shadow_consumer,
    )
    os.execvpe(program, command, environment)


def attached_environment(
    target: Target, service: str, *, disabled: tuple[str, ...] = (), shadow_consumer: bool = False
) -> dict[str, str]:
    """Return the environment a service is started with so that the agent comes in.

    Raises
    ------
    ConfigError
        If a hook to leave out does not exist, or the agent could not start with what the target says.
    """
    _check_hooks(disabled)
    told = agent_config(target, service, disabled=disabled, shadow_consumer=shadow_consumer)
    bootstrap = Path(perflab.shadow.__file__).parent / "bootstrap"
    path = os.environ.get("PYTHONPATH", "")
    return {
        **os.environ,
        VARIABLE: write_agent_config(told),
        "PYTHONPATH": f"{bootstrap}{os.pathsep}{path}" if path else str(bootstrap),
    }


def _check_reached(command: Sequence[str]) -> None:
    why = why_unattached(command)
    if why:
        raise ConfigError(
            f"the service would run without the agent, and what it writes would not be isolated: {why}; "
            "leave that out, or put 'perflab attach ... --' behind it"
        )
    why = what_may_be_unattached(command)
    if why:
        print(
            f"perflab: the service, or a part of it, may run without the agent: {why}; "
            "'perflab preflight' says whether it reports",
            file=sys.stderr,
        )


def _check_hooks(disabled: tuple[str, ...]) -> None:
    if disabled:
        from perflab.shadow.drivers import HOOKS

        unknown = [name for name in disabled if name not in HOOKS]
        if unknown:
            raise ConfigError(f"no hook {', '.join(unknown)}; there are: {', '.join(sorted(HOOKS))}")
