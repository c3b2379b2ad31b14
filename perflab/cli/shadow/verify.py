"""Check whether a run's proof is as it was signed: perflab shadow verify RUN.

RUN is a run's directory, its id, or 'latest'. With --target or --public-key it is also checked who signed;
without, only that nothing was altered since somebody did. Exit code 1 when the proof is not signed, was
altered, or was signed with another key.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from perflab.config import load_config
from perflab.run import RUNS, Run
from perflab.shadow.audit.signature import Checked, Signer, check, fingerprint, read_public_key
from perflab.units import NS_PER_S


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what it takes."""
    parser.add_argument("run", metavar="RUN", help="a run's directory, its id, or 'latest'")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--target", metavar="NAME", help="the target of perflab.toml whose key must have signed"
    )
    whose.add_argument("--public-key", type=Path, metavar="FILE", help="a public key: 64 hex digits, or PEM")
    parser.add_argument("--config", type=Path, default=Path("perflab.toml"), help="default: ./perflab.toml")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help=f"default: {RUNS}")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of sentences")


def run(arguments: argparse.Namespace) -> int:
    """Check, tell, and return 0 when all is as it was signed, else 1."""
    found = Run.open(arguments.run, arguments.runs)
    checked = check(found.path, public_key=_expected(arguments))
    if arguments.json:
        told = {"run": found.run_id, "holds": checked.holds, **asdict(checked)}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print("\n".join(_sentences(found, checked)))
    return 0 if checked.holds else 1


def _expected(arguments: argparse.Namespace) -> str:
    if arguments.public_key is not None:
        return read_public_key(arguments.public_key)
    if arguments.target is not None:
        return Signer.of(load_config(arguments.config).target(arguments.target)).public_key
    return ""


def _sentences(found: Run, checked: Checked) -> list[str]:
    if not checked.signed:
        return [f"{found.run_id} is not signed: there is nothing to check it against."]
    if not checked.public_key:
        return [f"{found.run_id}: {line}" for line in checked.altered]
    moment = datetime.fromtimestamp(checked.signed_ns / NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"{found.run_id} was signed on {moment} with the key {fingerprint(checked.public_key)}."]
    lines.append(
        {
            True: "It is the key that was expected.",
            False: "It is NOT the key that was expected.",
            None: "Whose key that is was not checked: give --target or --public-key.",
        }[checked.trusted]
    )
    if checked.altered:
        lines.append("Altered since then:")
        lines += [f"  {line}" for line in checked.altered]
    else:
        proof = found.isolation
        leaks = len(proof.get("leaks") or [])
        stores = f"{proof.get('proven', 0)} of {proof.get('seen', 0)} stores"
        lines.append("Nothing was altered since then.")
        lines.append(f"Verdict: {found.verdict}; isolation is proven of {stores}, {leaks} leaks.")
    if checked.added:
        lines.append(f"Added since then, and not signed: {', '.join(checked.added)}.")
    return lines
