"""``perflab attach``: the service's own command, with the agent in it, or a clear word before it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perflab.cli.attach import attached_environment
from perflab.config import Secret, Target, load_config
from perflab.shadow.agentconfig import VARIABLE, read_agent_config

CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:1"]
control = "control.json"
control_key = {{ file = "control.key" }}
collector = "127.0.0.1:9"
services = {{ cart = ["127.0.0.1:2"] }}
{more}
"""
STORE = """[[targets.shop.stores]]
name = "s"
kind = "redis"
production = "redis://h"
shadow = { env = "NO_SUCH_VARIABLE_OF_OURS" }
"""
SHOW = """
import json, os, sys
attached = "perflab.shadow.agent" in sys.modules
print(json.dumps([sys.argv, os.getcwd(), os.environ["PYTHONPATH"], attached]))
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """``write(more)`` writes a perflab.toml with one target, and its key."""

    def write_config(more: str = "") -> None:
        (tmp_path / "perflab.toml").write_text(CONFIG.format(more=more))
        (tmp_path / "control.key").write_text("key")

    return write_config


def test_the_command_becomes_the_service_with_the_agent_in_it(perflab, write, tmp_path: Path):
    """Arguments, directory, exit code and PYTHONPATH are the command's own; the agent is there."""
    write()
    command = ["--", sys.executable, "-c", SHOW + "sys.exit(7)", "a b", "--service", "--", "x"]
    said = perflab("attach", "--service", "cart", *command, PYTHONPATH="/one:/two")
    assert (said.returncode, said.stderr) == (7, "")
    arguments, directory, path, attached = json.loads(said.stdout)
    assert arguments == ["-c", "a b", "--service", "--", "x"]
    assert directory == str(tmp_path)
    assert path.split(os.pathsep)[1:] == ["/one", "/two"]
    assert attached


def test_without_a_double_dash_the_command_is_understood_too(perflab, write):
    """The first word that is no option begins the command."""
    write()
    said = perflab("attach", "--target", "shop", "--service", "cart", sys.executable, "-c", "print('ran')")
    assert (said.returncode, said.stdout, said.stderr) == (0, "ran\n", "")


def test_a_program_that_is_no_python_runs_too(perflab, write):
    """The agent's environment does no harm to other programs."""
    write()
    said = perflab("attach", "--service", "cart", "--", "sh", "-c", "echo $0 ran")
    assert (said.returncode, said.stdout, said.stderr) == (0, "sh ran\n", "")


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (["--service", "cart"], "", "no command given; write it after '--'"),
        (["--service", "cart", "--", "no-such-program"], "", "'no-such-program' is not on PATH"),
        (["--service", "cart", "--target", "x", "--", "true"], "", "no target 'x' in perflab.toml"),
        (["--service", " ", "--", "true"], "", "the service has no name"),
        (
            ["--service", "cart", "--disable", "x", "--", "true"],
            "",
            "no hook x; there are: asyncpg, django, flask, httpx",
        ),
        (["--service", "cart", "--config", "none.toml", "--", "true"], "", "cannot read none.toml"),
        (["--service", "cart", "--", "true"], "colector = 1", "colector"),
        (["--service", "cart", "--", "true"], "sample_ratio = 3.0", "sample_ratio is 3"),
        (
            ["--service", "cart", "--", "true"],
            '[targets.other]\naddresses = ["a:1"]\ncontrol = "c"\ncontrol_key = { env = "K" }',
            "name the target with --target; perflab.toml has: other, shop",
        ),
        (
            ["--service", "cart", "--", "true"],
            STORE,
            "environment variable NO_SUCH_VARIABLE_OF_OURS is not set",
        ),
        (
            ["--service", "cart", "--", "true"],
            '[[targets.shop.outbound]]\nname = "bank"\naddress = "bank.example"',
            "the address of outbound peer 'bank' is 'bank.example'; write it as host:port",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_service_starts(
    perflab, write, words: list[str], more: str, said: str
):
    """Wrong input: exit 2, one line that names it, and the command never ran."""
    write(more)
    answered = perflab("attach", *words)
    assert answered.returncode == 2
    assert said in answered.stderr
    assert "Traceback" not in answered.stderr
    assert answered.stdout == ""


def test_a_missing_key_is_said_before_the_service_starts(perflab, write, tmp_path: Path):
    """Without the control key the agent could believe nothing."""
    write()
    (tmp_path / "control.key").unlink()
    answered = perflab("attach", "--service", "cart", "--", "echo", "started")
    assert (answered.returncode, answered.stdout) == (2, "")
    assert f"cannot read the secret in {tmp_path}/control.key" in answered.stderr


def test_the_environment_holds_references_and_absolute_paths(perflab, write, tmp_path: Path):
    """What is put into the environment is the target's, with no secret in it."""
    write()
    target = load_config(tmp_path / "perflab.toml").target("shop")
    environment = attached_environment(target, "cart", disabled=("httpx",), shadow_consumer=True)
    told = read_agent_config(environment[VARIABLE])
    assert (told.service, told.disabled, told.shadow_consumer) == ("cart", ("httpx",), True)
    assert told.control == str(tmp_path / "control.json")
    assert told.control_key == Secret(file=str(tmp_path / "control.key"))
    assert {**os.environ, **environment} == environment
    assert isinstance(target, Target)


def test_attaching_itself_imports_little(write, tmp_path: Path):
    """The command that is replaced by the service's has loaded neither OpenTelemetry nor pandas."""
    write()
    attach = [sys.executable, "-X", "importtime", "-m", "perflab", "attach"]
    told = subprocess.run(
        [*attach, "--service", "cart", "--", "true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.rpartition("|")[2].strip() for line in told.stderr.splitlines()]
    loaded = {name.partition(".")[0] for name in names}
    assert "msgspec" in loaded
    heavy = {"opentelemetry", "pandas", "numpy", "aiohttp", "asyncio", "requests", "google", "plotly"}
    assert loaded & heavy == set()
