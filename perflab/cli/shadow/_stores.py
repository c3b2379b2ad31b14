"""Which store of ``perflab.toml`` is meant, and how a person is asked before anything is changed."""

from __future__ import annotations

import argparse
import hmac
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from perflab.config import Sample, Secret, Store, Target, load_config
from perflab.errors import ConfigError


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how a store is named."""
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--target", help="a target of perflab.toml; may be left out when there is only one")
    parser.add_argument(
        "--store", metavar="NAME", help="a store of it; may be left out when there is only one"
    )


def add_login_arguments(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """Declare ``--NAME-env`` and ``--NAME-file``: an URL with a password never stands on a command line.

    Parameters
    ----------
    parser : ArgumentParser
    name : str
        ``admin``, for example.
    what : str
        What it is a login for.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(f"--{name}-env", metavar="VAR", help=f"environment variable with {what}")
    group.add_argument(f"--{name}-file", metavar="FILE", help="file with it (only one of both)")


def read_login(arguments: argparse.Namespace, name: str) -> str:
    """Return the URL a login argument refers to, "" when there is none."""
    env, file = getattr(arguments, f"{name}_env"), getattr(arguments, f"{name}_file")
    if not env and not file:
        return ""
    return Secret(env=env or "", file=file or "").read()


def require_login(arguments: argparse.Namespace, name: str, why: str) -> str:
    """Return the URL a login argument refers to.

    Raises
    ------
    ConfigError
        If it is not given.
    """
    url = read_login(arguments, name)
    if not url:
        raise ConfigError(f"{why}: give it with --{name}-env VAR or --{name}-file FILE")
    return url


def read_target(arguments: argparse.Namespace) -> Target:
    """Return the target that is meant."""
    return load_config(arguments.config).target(arguments.target or "")


def choose_stores(target: Target, name: str | None) -> Sequence[Store]:
    """Return the store of that name, or all.

    Raises
    ------
    ConfigError
        If there is none.
    """
    stores = [store for store in target.stores if name in (None, store.name)]
    if not stores:
        known = ", ".join(store.name for store in target.stores) or "none"
        raise ConfigError(
            f"no store {name!r} in that target; there are: {known}" if name else "it has no stores"
        )
    return stores


def choose_store(target: Target, name: str | None) -> Store:
    """Return one store.

    Raises
    ------
    ConfigError
        If there is none of that name, or several and no name.
    """
    stores = choose_stores(target, name)
    if len(stores) > 1:
        raise ConfigError(f"name the store with --store; there are: {', '.join(s.name for s in stores)}")
    return stores[0]


def read_sample(arguments: argparse.Namespace, store: Store) -> Sample | None:
    """Return the store's sample, with the command line's number of rows.

    Raises
    ------
    ConfigError
        If that number is none.
    """
    if arguments.rows is None:
        return store.sample
    if arguments.rows < 0:
        raise ConfigError("--rows is 0 or more")
    declared = store.sample or Sample()
    return Sample(arguments.rows, declared.tables, declared.masks, declared.key)


def read_unmasked(arguments: argparse.Namespace) -> list[str]:
    """Return the columns that may be copied as they are."""
    return [name.strip() for name in arguments.unmasked.split(",") if name.strip()]


def mask_key(target: Target, sample: Sample | None) -> bytes:
    """Return what masks depend on: the sample's key, or something that follows from the control key."""
    if sample is None:
        return b""
    if sample.key is not None:
        return sample.key.read().encode()
    return hmac.digest(target.control_key.read().encode(), b"perflab masks", "sha256")


def ask(question: str, choices: Iterable[str]) -> str:
    """Ask on the terminal and return one of the choices; "" for anything else, or when nobody is there."""
    if not sys.stdin.isatty():
        return ""
    try:
        answer = input(f"{question} [{'/'.join(choices)}/N] ").strip().lower()
    except EOFError:
        return ""
    return answer if answer in choices else ""
