"""perflab.cli: finding verbs, parsing, exit codes, what is said on standard error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import perflab.cli
from perflab import __version__

HEAD = '''"""{help}

More about it.
"""
import argparse, errno, logging, os, sys

from perflab.errors import ConfigError, LeakError, LoadError


def add_arguments(parser):
    {arguments}


def run(arguments):
    {body}
'''
MAIN = "import sys, perflab.cli as cli; cli.__path__.append(sys.argv.pop(1)); sys.exit(cli.main())"


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Add a verb to the package, from a folder of its own, for one test."""

    def add(name: str, body: str, arguments: str = "pass", help: str = "Do it.", more: str = "") -> None:  # noqa: A002 - argparse's word
        folder = tmp_path / "verbs"
        folder.mkdir(exist_ok=True)
        text = HEAD.format(help=help, arguments=arguments, body=body) + more
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        if str(folder) not in perflab.cli.__path__:
            monkeypatch.setattr(perflab.cli, "__path__", [*perflab.cli.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"perflab.cli.{name}", raising=False)

    return add


@pytest.fixture
def process(tmp_path: Path):
    """Start a verb of the test's own in a process of its own."""

    def start(*words: str, **options) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MAIN, str(tmp_path / "verbs"), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    return start


def test_help_lists_every_verb_with_its_first_line(capsys):
    """``--help``, and no word at all, list each file of the package with what it is for."""
    for words in (["--help"], []):
        assert perflab.cli.main(words) == 0
        shown = capsys.readouterr().out
        for name in perflab.cli.verbs():
            assert f"\n  {name} " in shown
        assert "List the runs there are" in shown


def test_help_imports_no_verb(verb, capsys):
    """A verb is shown without being imported: one that cannot be imported is listed all the same."""
    verb(
        "broken", "pass", arguments="pass", help="Stand in the list.", more="\nraise RuntimeError('imported')"
    )
    assert perflab.cli.main(["--help"]) == 0
    assert "broken" in capsys.readouterr().out


def test_a_file_may_be_named_so_that_python_can_import_it(verb, capsys):
    """``import_.py`` is the verb ``import``, ``two_words.py`` is ``two-words``."""
    verb("yield_", "return 0")
    verb("two_words", "return 0")
    assert perflab.cli.main(["yield"]) == 0
    assert perflab.cli.main(["two-words"]) == 0


def test_the_version_is_told(capsys):
    """``--version`` prints the package's."""
    assert perflab.cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"perflab {__version__}\n"


def test_a_verb_gets_its_arguments_and_gives_the_exit_code(verb):
    """What ``run`` returns is what the process exits with."""
    verb("answer", "return arguments.code", arguments="parser.add_argument('code', type=int)")
    assert perflab.cli.main(["answer", "1"]) == 1
    assert perflab.cli.main(["-v", "answer", "-v", "0"]) == 0


@pytest.mark.parametrize("nargs", ["'*'", "argparse.REMAINDER"])
def test_a_command_after_two_dashes_arrives_whole(verb, capsys, nargs):
    """Options after ``--`` belong to the command, also those perflab knows, and so does a second ``--``."""
    verb(
        "wrap",
        "print(arguments.service, arguments.debug, *arguments.command[arguments.command[0] == '--':])\n"
        "    return 0",
        arguments=f"parser.add_argument('--service'); parser.add_argument('command', nargs={nargs})",
    )
    words = ["wrap", "--service", "cart", "--", "python", "-m", "cart", "--debug", "-v", "--", "--help"]
    assert perflab.cli.main(words) == 0
    assert capsys.readouterr().out == f"cart False {' '.join(words[4:])}\n"


def test_a_verb_may_pass_on_what_it_does_not_know(verb, capsys):
    """With ``PASSES_ON`` unknown options, and what follows ``--``, are handed over in order."""
    verb("open", "print(arguments.passed_on)\n    return 0", more="\nPASSES_ON = True\n")
    assert perflab.cli.main(["open", "--port", "1", "-v", "--", "--debug"]) == 0
    assert capsys.readouterr().out == "['--port', '1', '--debug']\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "there is no verb 'nope'; there are: analyse,"),
        (["runs", "--nope"], "unrecognized arguments: --nope"),
        (["--nope", "runs"], "unrecognized arguments: --nope"),
        (["analyse"], "the following arguments are required: RUN|PATH"),
    ],
)
def test_wrong_words_exit_2(capsys, words, said):
    """A word the command line does not know is wrong input, and the message says what there is."""
    assert perflab.cli.main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("ConfigError('no such target')", 2, "perflab: no such target\n"),
        ("LeakError('a row in orders')", 1, "perflab: a row in orders\n"),
        ("LoadError('the worker died')", 3, "perflab: the worker died\n"),
        ("ExceptionGroup('two', [LoadError('a'), LoadError('b')])", 3, "perflab: a\nperflab: b\n"),
        (
            "OSError(errno.ENOSPC, 'No space left', 'spans')",
            3,
            "perflab: [Errno 28] No space left: 'spans'\n",
        ),
    ],
)
def test_an_expected_error_is_a_message_and_its_exit_code(verb, capsys, raised, code, said):
    """An error perflab raises on purpose, or a full disk, is told in one line without a traceback."""
    verb("fail", f"raise {raised}")
    assert perflab.cli.main(["fail"]) == code
    assert capsys.readouterr().err == said


def test_notes_on_an_error_are_told(verb, capsys):
    """What was added to an error on its way is part of what is said."""
    verb(
        "fail", "error = LoadError('the worker died')\n    error.add_note('log: /tmp/w.log')\n    raise error"
    )
    assert perflab.cli.main(["fail"]) == 3
    assert capsys.readouterr().err == "perflab: the worker died\n  log: /tmp/w.log\n"


def test_a_defect_is_one_line_unless_debugging(verb, capsys, monkeypatch):
    """Anything else exits 3 and says it is a defect; the traceback comes with --debug or PERFLAB_DEBUG."""
    monkeypatch.delenv("PERFLAB_DEBUG", raising=False)
    verb("fail", "return {}['key']")
    # When it fails without and with the wish to see
    assert perflab.cli.main(["fail"]) == 3
    plain = capsys.readouterr().err
    assert perflab.cli.main(["fail", "--debug"]) == 3
    by_option = capsys.readouterr().err
    monkeypatch.setenv("PERFLAB_DEBUG", "1")
    assert perflab.cli.main(["fail"]) == 3
    by_environment = capsys.readouterr().err
    # Then only the latter show the traceback
    assert plain.startswith("perflab: KeyError: 'key'; this is a defect")
    assert plain.count("\n") == 1
    assert "Traceback" in by_option
    assert "Traceback" in by_environment


def test_an_interrupt_exits_130_without_a_traceback(verb, process):
    """Ctrl-C is no defect."""
    # Given a verb that waits
    verb("wait", "print('here', flush=True); sys.stdin.read()")
    with process("wait", stdin=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        # When it is interrupted
        child.send_signal(signal.SIGINT)
        # Then it says so and nothing else
        _, said = child.communicate(timeout=20)
    assert (child.returncode, said) == (130, "perflab: interrupted\n")


def test_a_reader_that_leaves_is_no_error(verb, process):
    """``perflab ... | head -1`` ends quietly."""
    # Given a verb that prints more than a pipe holds
    verb("talk", "for i in range(100_000): print('line', i)\n    return 0")
    with process("talk") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "line 0\n"
        # When its reader leaves
        child.stdout.close()
        # Then it ends as a program killed by SIGPIPE does, and says nothing
        assert child.stderr is not None
        assert child.stderr.read() == ""
    assert child.returncode == 141


def test_a_broken_pipe_of_its_own_is_told(verb, capsys):
    """A pipe that broke elsewhere, say to a worker, is not taken for a reader that left."""
    verb("fail", "raise BrokenPipeError(errno.EPIPE, 'worker gone')")
    assert perflab.cli.main(["fail"]) == 3
    assert "worker gone" in capsys.readouterr().err


def test_verbosity_configures_logging(verb, process):
    """Perflab's log is shown from -v on, the libraries' from -vvv."""
    body = """for name in ("perflab.x", "aiohttp"):
        for level in (10, 20, 30):
            logging.getLogger(name).log(level, f"{name}{level}")
    return 0"""
    verb("log", body)
    shown = {}
    for option in ("", "-v", "-vv", "-vvv"):
        with process("log", *filter(None, [option])) as child:
            _, said = child.communicate(timeout=20)
        shown[option] = [line.split()[-1] for line in said.splitlines()]
    assert shown[""] == ["perflab.x30", "aiohttp30"]
    assert shown["-v"] == ["perflab.x20", "perflab.x30", "aiohttp30"]
    assert shown["-vv"] == ["perflab.x10", "perflab.x20", "perflab.x30", "aiohttp30"]
    assert shown["-vvv"] == [
        "perflab.x10",
        "perflab.x20",
        "perflab.x30",
        "aiohttp10",
        "aiohttp20",
        "aiohttp30",
    ]


@pytest.mark.parametrize("name", sorted(perflab.cli.verbs()))
def test_every_verb_explains_itself(name, capsys):
    """``perflab VERB --help`` exits 0 and begins with what ``perflab --help`` says of it."""
    assert perflab.cli.main([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    module = sys.modules[perflab.cli.verbs()[name]]
    assert module.__doc__ is not None
    assert " ".join(module.__doc__.splitlines()[0].split()) in shown


def test_the_installed_script_is_this(perflab):
    """The program in the environment's bin folder runs ``main``."""
    script = Path(sys.executable).with_name("perflab")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == perflab("--version").stdout
