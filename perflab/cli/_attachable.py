"""Whether the agent can come into what a command starts.

It comes in through ``PYTHONPATH`` and ``sitecustomize``. A Python that is told to ignore them, or an
environment that is emptied on the way, would run the service unattached and say nothing. What is certain is
refused; what is only likely (a shell's text, a launcher's words) is said.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePath

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*t?\Z")
_IGNORING = {"I": "ignores PYTHONPATH", "E": "ignores PYTHONPATH", "S": "does not import sitecustomize"}
_WITH_VALUE = "WX"
_LAST = "cm"
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_DEEPEST = 5


def why_unattached(command: Sequence[str], deep: int = 0) -> str:
    """Say why what a command starts would certainly run without the agent; "" where nothing says so.

    Examples
    --------
    >>> why_unattached(["python3", "-u", "-bI", "shop.py"])
    'python3 -I ignores PYTHONPATH'
    >>> why_unattached(["python3", "shop.py", "-I"])
    ''
    >>> why_unattached(["env", "-i", "PATH=/bin", "python3", "shop.py"])
    'env -i empties the environment'
    """
    if not command or deep > _DEEPEST:
        return ""
    name = PurePath(command[0]).name
    if _PYTHON.match(name):
        return _python(name, command[1:])
    if name == "env":
        return _env(command[1:], deep)
    if name == "sudo":
        return "sudo takes PYTHONPATH out of the environment (write: sudo perflab attach ...)"
    script = _interpreter(command[0])
    return why_unattached([*script, *command[1:]], deep + 1) if script else ""


def what_may_be_unattached(command: Sequence[str]) -> str:
    """Say what in a command looks as if it started a Python without the agent; "" where nothing does."""
    words = list(command)
    if PurePath(command[0]).name in _SHELLS:
        for word in command[1:]:
            try:
                words += shlex.split(word) if " " in word else []
            except ValueError:  # the shell will say what is wrong with it
                continue
    for at, word in enumerate(words):
        name = PurePath(word).name
        if _PYTHON.match(name):
            why = _python(name, words[at + 1 :])
        elif name == "env":
            why = _env(words[at + 1 :], _DEEPEST)
        else:
            why = ""
        if why:
            return why
    return ""


def _python(name: str, words: Sequence[str]) -> str:
    """Read Python's own options, which end at the script, ``-c`` or ``-m``."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("--"):
            skip = word == "--check-hash-based-pycs"
        elif not word.startswith("-") or word == "-":
            return ""
        else:
            for at, letter in enumerate(word[1:], start=2):
                if letter in _IGNORING:
                    return f"{name} -{letter} {_IGNORING[letter]}"
                if letter in _LAST:
                    return ""
                if letter in _WITH_VALUE:
                    skip = at == len(word)
                    break
    return ""


def _env(words: Sequence[str], deep: int) -> str:
    """Read env's options and settings, and what it starts."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-i", "-", "--ignore-environment"):
            return f"env {word} empties the environment"
        if word in ("-u", "--unset", "-C", "--chdir"):
            value = rest.pop(0) if rest else ""
            word = f"--unset={value}" if word in ("-u", "--unset") else word
        if word.startswith(("-u", "--unset=")) and word.endswith(("PYTHONPATH", "PERFLAB_AGENT")):
            return f"env {word} takes away what the agent comes in by"
        if word.startswith("PYTHONPATH="):
            return "env sets another PYTHONPATH"
        if word.startswith(("-S", "--split-string")):
            text = word.partition("=")[2] if word.startswith("--") else word[2:]
            rest = [*shlex.split(text or (rest.pop(0) if rest else "")), *rest]
        elif not word.startswith("-") and "=" not in word:
            return why_unattached([word, *rest], deep + 1)
    return ""


def _interpreter(program: str) -> list[str]:
    """Return what a script's first line has it started with, and the script; [] for what is no script."""
    found = shutil.which(program)
    if found is None:
        return []
    try:
        with Path(found).open("rb") as file:
            first = file.readline(1024)
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    interpreter, _, argument = first[2:].decode("utf-8", "replace").strip().partition(" ")
    return [word for word in (interpreter, argument.strip(), found) if word]
