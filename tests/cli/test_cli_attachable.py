"""A command that would run the service without the agent is refused, or at least said to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perflab.cli._attachable import what_may_be_unattached, why_unattached
from perflab.cli.attach import attached_environment
from perflab.config import load_config

CONFIG = """
[targets.shop]
addresses = ["127.0.0.1:1"]
control = "control.json"
control_key = { file = "control.key" }
collector = "127.0.0.1:9"
services = { cart = ["127.0.0.1:2"] }
"""
ATTACHED = "import sys; print('perflab.shadow.agent' in sys.modules)"


@pytest.fixture(autouse=True)
def config(tmp_path: Path) -> Path:
    """Write a perflab.toml with one target, and its key."""
    (tmp_path / "perflab.toml").write_text(CONFIG)
    (tmp_path / "control.key").write_text("key")
    return tmp_path / "perflab.toml"


CERTAIN = {
    "isolated": ["PYTHON", "-I", "-c", ATTACHED],
    "no environment": ["PYTHON", "-E", "-c", ATTACHED],
    "no site": ["PYTHON", "-S", "-c", ATTACHED],
    "several letters": ["PYTHON", "-bBI", "-c", ATTACHED],
    "after a value": ["PYTHON", "-X", "dev", "-W", "ignore", "-Wignore", "-I", "-c", ATTACHED],
    "env -i": ["env", "-i", "PYTHON", "-c", ATTACHED],
    "env -": ["env", "-", "PYTHON", "-c", ATTACHED],
    "env -u": ["env", "-u", "PYTHONPATH", "A=1", "PYTHON", "-c", ATTACHED],
    "env PYTHONPATH=": ["env", "PYTHONPATH=/x", "PYTHON", "-c", ATTACHED],
    "env python -I": ["env", "A=1", "PYTHON", "-I", "-c", ATTACHED],
    "env -S": ["env", "-S", "PYTHON -I", "-c", ATTACHED],
    "a script that says so": ["SCRIPT -I"],
    "a script of env that says so": ["SCRIPT env -S PYTHON -I"],
}
FINE = {
    "plain": ["PYTHON", "-c", ATTACHED],
    "other letters": ["PYTHON", "-sBu", "-X", "dev", "-c", ATTACHED],
    "an option of its own": ["PYTHON", "-c", ATTACHED, "-I", "-E", "-S"],
    "env": ["env", "-u", "B", "A=1", "PYTHON", "-c", ATTACHED],
    "a value that looks like one": ["PYTHON", "-W", "ignore::SyntaxWarning", "-c", ATTACHED],
    "a script": ["SCRIPT"],
}
LIKELY = {
    "a shell": ["sh", "-c", "PYTHON -I -c 'import sys; print(\"perflab.shadow.agent\" in sys.modules)'"],
    "a launcher": ["nice", "-n", "1", "PYTHON", "-I", "-c", ATTACHED],
    "a launcher and env": ["nice", "env", "-i", "PYTHON", "-c", ATTACHED],
}


def written(words: list[str], tmp_path: Path) -> list[str]:
    """Write out the interpreter, and a script where one is meant."""
    words = [word.replace("PYTHON ", f"{sys.executable} ") for word in words]
    if words[0].startswith("SCRIPT"):
        script = tmp_path / "shop"
        _, _, more = words[0].partition(" ")
        first = f"/usr/bin/{more}" if more.startswith("env") else f"{sys.executable} {more}"
        script.write_text(f"#!{first}\n{ATTACHED}\n")
        script.chmod(0o755)
        return [str(script)]
    return [sys.executable if word == "PYTHON" else word for word in words]


@pytest.mark.parametrize("what", CERTAIN)
def test_a_command_that_keeps_the_agent_out_is_refused(perflab, what: str, tmp_path: Path):
    """Nothing is started; started by hand with the agent's environment, it indeed runs without."""
    command = written(CERTAIN[what], tmp_path)
    said = perflab("attach", "--service", "cart", "--", *command)
    assert (said.returncode, said.stdout) == (2, "")
    assert "the service would run without the agent" in said.stderr
    assert started(command, tmp_path) == "False"


@pytest.mark.parametrize("what", FINE)
def test_a_command_that_does_not_is_started(perflab, what: str, tmp_path: Path):
    """Without a word, and with the agent in it."""
    command = written(FINE[what], tmp_path)
    said = perflab("attach", "--service", "cart", "--", *command)
    assert (said.returncode, said.stdout.strip(), said.stderr) == (0, "True", "")


@pytest.mark.parametrize("what", LIKELY)
def test_what_only_looks_so_is_said_and_started(perflab, what: str, tmp_path: Path):
    """One cannot know what a shell or a launcher makes of its words."""
    command = written(LIKELY[what], tmp_path)
    assert why_unattached(command) == ""
    said = perflab("attach", "--service", "cart", "--", *command)
    assert (said.returncode, said.stdout.strip()) == (0, "False")
    assert "may run without the agent" in said.stderr


def test_sudo_is_refused_and_odd_words_do_no_harm():
    """What cannot be read is left to who must read it."""
    assert "sudo" in why_unattached(["sudo", "-E", "python3", "shop.py"])
    for words in (["sh", "-c", "it's not closed"], ["python3"], ["env"], ["env", "-u"], ["no-such"]):
        assert why_unattached(words) == ""
        assert what_may_be_unattached(words) == ""


def started(command: list[str], tmp_path: Path) -> str:
    """Start a command in the environment of an attached service and return what it prints."""
    target = load_config(tmp_path / "perflab.toml").target("shop")
    done = subprocess.run(
        command, env=attached_environment(target, "cart"), capture_output=True, text=True, timeout=60,
        cwd=tmp_path, check=True,
    )  # fmt: skip
    return done.stdout.strip()
