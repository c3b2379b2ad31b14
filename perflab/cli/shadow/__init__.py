"""Prepare, look at and end what keeps shadow traffic apart: perflab shadow WHAT.

Each WHAT is a file of this package, with ``add_arguments(parser)`` and ``run(arguments)``, as a verb is.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what there is to do, and the arguments of each."""
    whats = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for item in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
        if item.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{item.name}")
        documentation = module.__doc__ or ""
        one = whats.add_parser(
            item.name.replace("_", "-"),
            help=documentation.partition("\n")[0].rstrip("."),
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(one)
        one.set_defaults(act=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return its exit code."""
    return int(arguments.act(arguments))
