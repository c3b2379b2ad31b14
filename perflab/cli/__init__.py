"""The command line: one file per verb, found by listing this package, imported when used.

A verb is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``; the first line of its
docstring is its help. ``import_.py`` would be the verb ``import``, ``a_b.py`` the verb ``a-b``. With
``PASSES_ON = True`` arguments the verb does not know arrive as ``arguments.passed_on``. What a verb
returns is the exit code: 0 done, 1 a guard stopped it or a threshold failed, 2 wrong input, 3 could not
do it. Logging is configured here and nowhere else.
"""

from __future__ import annotations

import argparse
import ast
import errno
import importlib
import logging
import os
import pkgutil
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from perflab import __version__
from perflab.errors import PerflabError

INTERRUPTED = 130
BROKEN_PIPE = 141
COULD_NOT = 3

_LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_ENVIRONMENT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENFILE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process when left out.

    Returns
    -------
    int
        0 done, 1 stopped or failed, 2 wrong input, 3 could not do it, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in _before_remainder(words) or bool(os.environ.get("PERFLAB_DEBUG"))
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse: --help, --version, a usage error
        return leaving.code if isinstance(leaving.code, int) else COULD_NOT if leaving.code else 0
    except KeyboardInterrupt:
        print("perflab: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError as error:
        if _reader_is_gone():
            return BROKEN_PIPE
        return _report(error, debug)
    except Exception as error:
        return _report(error, debug)


def verbs() -> dict[str, str]:
    """Return the verbs there are, in alphabetical order: name -> module of this package.

    Examples
    --------
    >>> verbs()["runs"]
    'perflab.cli.runs'
    """
    names = (item.name for item in pkgutil.iter_modules(__path__) if not item.name.startswith("_"))
    return {name.rstrip("_").replace("_", "-"): f"{__name__}.{name}" for name in sorted(names)}


def _dispatch(words: list[str]) -> int:
    known = verbs()
    top = _top_parser(known)
    place = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    if place == len(words):
        top.parse_args(words)
        top.print_help()
        return 0
    general = top.parse_args(words[:place])
    verb = words[place]
    if verb not in known:
        top.error(f"there is no verb {verb!r}; there are: {', '.join(known)}")
    module = importlib.import_module(known[verb])
    parser = argparse.ArgumentParser(
        prog=f"perflab {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    _add_general(parser)
    arguments = _parse(parser, module, words[place + 1 :])
    arguments.verbose = (arguments.verbose or 0) + (general.verbose or 0)
    arguments.debug = arguments.debug or general.debug
    _configure_logging(arguments.verbose)
    return int(module.run(arguments))


def _top_parser(known: dict[str, str]) -> argparse.ArgumentParser:
    width = max(map(len, known), default=0)
    lines = [f"  {verb:<{width}}  {_first_line(module)}" for verb, module in known.items()]
    parser = argparse.ArgumentParser(
        prog="perflab",
        usage="perflab [-h] [--version] [-v] [--debug] VERB ...",
        description="Full-link stress testing in production that proves it touched nothing, "
        "and names the bottleneck.",
        epilog="\n".join(["verbs:", *lines, "", "'perflab VERB --help' says more about one."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"perflab {__version__}")
    _add_general(parser)
    return parser


def _add_general(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v", "--verbose", action="count", help="log what is done; -vv in detail, -vvv the libraries' log too"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback when something goes wrong")


def _parse(parser: argparse.ArgumentParser, module: ModuleType, words: list[str]) -> argparse.Namespace:
    if getattr(module, "PASSES_ON", False):
        own = _before_remainder(words)
        arguments, unknown = parser.parse_known_args(own)
        arguments.passed_on = [*unknown, *words[len(own) + 1 :]]
        return arguments
    return parser.parse_args(words)


def _first_line(module: str) -> str:
    """Read the first line of a verb's docstring without importing the verb."""
    for path in _files(module):
        try:
            documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        return (documentation or "").partition("\n")[0]
    return ""


def _files(module: str) -> Iterator[Path]:
    name = module.rpartition(".")[2]
    for folder in __path__:
        yield Path(folder) / f"{name}.py"
        yield Path(folder) / name / "__init__.py"


def _configure_logging(verbose: int) -> None:
    logging.basicConfig(level=logging.DEBUG if verbose > 2 else logging.WARNING, format=_LOG_FORMAT)
    if verbose:
        logging.getLogger("perflab").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


def _before_remainder(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _reader_is_gone() -> bool:
    """Tell a closed standard output from any other broken pipe, and keep the exit from failing on it."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # standard output is no file of the system's
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _report(error: Exception, debug: bool) -> int:
    """Say on standard error what went wrong and return the exit code for it."""
    if debug:
        import traceback

        traceback.print_exception(error)
    causes = list(_leaves(error))
    expected = [cause for cause in causes if isinstance(cause, PerflabError)]
    if len(expected) == len(causes):
        for cause in dict.fromkeys(map(_told, expected)):
            print(f"perflab: {cause}", file=sys.stderr)
        return expected[0].exit_code
    first = next(cause for cause in causes if not isinstance(cause, PerflabError))
    if isinstance(first, OSError) and first.errno in _ENVIRONMENT:
        print(f"perflab: {first}", file=sys.stderr)
        return COULD_NOT
    print(
        f"perflab: {type(first).__name__}: {first or 'no message'}; this is a defect of perflab, "
        "please report it with what --debug shows",
        file=sys.stderr,
    )
    return COULD_NOT


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _told(error: BaseException) -> str:
    notes = getattr(error, "__notes__", ())
    return "\n  ".join([str(error) or type(error).__name__, *notes])
