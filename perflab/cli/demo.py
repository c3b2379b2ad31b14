"""Load-test a real little shop on this machine, from nothing to the report.

Starts a private PostgreSQL and Redis, the shop's services with the agent in each, and real users; sends
shadow traffic that places orders and pays; proves that production was not touched; writes one HTML report
that names the bottleneck; leaves nothing running. The natural hotspot is in the shop on purpose; '--mended'
takes it out, '--slow ENTITY=MS' plants another; '--confirm ENTITY' tests by experiment whether one is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from perflab.cli._progress import Teller, interruptible
from perflab.cli.confirm import add_experiment, as_told, read_experiment
from perflab.errors import ConfigError, PerflabError
from perflab.units import NS_PER_S, duration_ns

if TYPE_CHECKING:
    from perflab.load.arrivals import Arrivals
    from perflab.load.experiment import Experiment
    from perflab.run import Run
    from perflab.traffic.scenario import Scenario


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--for", dest="over", default="20s", metavar="TIME", help="length of the load (default: 20s)"
    )
    parser.add_argument(
        "--rate", type=float, default=20.0, metavar="N", help="requests a second at the ramp's end"
    )
    parser.add_argument(
        "--slow",
        action="append",
        default=[],
        metavar="ENTITY=MS",
        help="plant a delay, e.g. 'order -> stock=150'",
    )
    parser.add_argument(
        "--confirm",
        metavar="ENTITY",
        help="delay marked calls of a place by turns: what does a millisecond there cost a request?",
    )
    parser.add_argument("--mended", action="store_true", help="take the shop's natural hotspot out")
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    add_experiment(parser)
    trial = parser.add_argument_group("trying the safety net")
    trial.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="run another build of a service; {port} stands for its port",
    )
    trial.add_argument(
        "--disable", action="append", default=[], metavar="SERVICE:HOOK", help="leave a hook of the agent out"
    )
    trial.add_argument("--accept", action="append", default=[], metavar="HOLE", help="run in spite of a hole")
    trial.add_argument(
        "--setting", action="append", default=[], metavar="NAME=VALUE", help="a setting of the shop, SHOP_..."
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return its exit code: 0 passed, 1 stopped, failed, refused or leaked."""
    from perflab.cli import _stage

    delays_ns = dict(_stage.read_delay(text) for text in arguments.slow)
    wishes = _stage.Wishes(
        mended=arguments.mended,
        settings=dict(_pair(text, "=", "--setting NAME=VALUE") for text in arguments.setting),
        commands=dict(_pair(text, "=", "--service NAME=COMMAND") for text in arguments.service),
        disabled=[_pair(text, ":", "--disable SERVICE:HOOK") for text in arguments.disable],
    )
    experiment = read_experiment(arguments, arguments.confirm) if arguments.confirm else None
    scenario, arrivals = _traffic(arguments, experiment)
    logs = _make_directories(arguments.out)
    teller = Teller(sys.stderr if arguments.json else sys.stdout)
    with interruptible():
        try:
            finished, report = _play(
                _stage, wishes, scenario, arrivals, delays_ns, experiment, arguments.out, logs, teller
            )
        except PerflabError as error:
            if error.exit_code == 2:
                shutil.rmtree(logs, ignore_errors=True)
            else:
                error.add_note(_where_logs_are(arguments.out, logs))
            raise
        except BrokenPipeError:
            raise
        except OSError as error:
            failure = PerflabError(f"the demo could not go on: {error}")
            failure.add_note(_where_logs_are(arguments.out, logs))
            raise failure from error
        finally:
            with contextlib.suppress(OSError):  # others' logs are in it, or it is gone
                logs.parent.rmdir()
    _tell_end(finished, report, arguments, teller)
    return 0 if finished.verdict == "passed" else 1


def _play(
    stages: Any,
    wishes: Any,
    scenario: Scenario,
    arrivals: Arrivals,
    delays_ns: Mapping[str, int],
    experiment: Experiment | None,
    out: Path,
    logs: Path,
    teller: Teller,
) -> tuple[Run, Path]:
    """Set the stage, run the test, look after the real users' writes, write the report."""
    from perflab.config import load_config
    from perflab.demo.scratch import sweep_leftovers
    from perflab.load.launch import launch
    from perflab.shadow.audit.signature import Signer

    sweep_leftovers()
    teller.say("starting PostgreSQL, Redis and the shop's services, each with the agent in it")
    with stages.Stage(logs, wishes) as stage:
        teller.say("the shop is open; real users are in it")
        finished = asyncio.run(
            launch(
                scenario,
                arrivals,
                target="shop",
                config=stage.config,
                runs=out / "runs",
                delays_ns=delays_ns,
                experiment=experiment,
                watch=teller.watch,
            )
        )
        stage.end_customers()
        _add_what_the_shop_knows(finished, stage)
        Signer.of(load_config(stage.config).target("shop")).sign(finished.path)
    if logs.exists():
        shutil.move(logs, finished.path / "logs")
    teller.say("writing the report")
    return finished, _report(finished, out / "reports")


def _add_what_the_shop_knows(finished: Run, stage: Any) -> None:
    """Add what only the shop's owner can look up: services that died, real users' writes, the bank's book."""
    info, proof = finished.info, finished.isolation
    found = _look_up(proof, stage, f"plc-{finished.run_id}")
    if died := stage.died():
        for name in died:
            finished.event("service died", service=name)
        states = {row["name"]: row for row in info["services"]}
        info["services"] = [
            *({**states, **{name: {"name": name, "state": "died"} for name in died}}).values()
        ]
        found.insert(0, ("failed", f"{', '.join(died)} ended while the run went on."))
    finished.write_isolation(proof)
    rank = ["leaked", "refused", "stopped", "failed", "passed"]
    word, reason = min([(info["verdict"], info["reason"]), *found], key=lambda pair: rank.index(pair[0]))
    finished.write_info({**info, "verdict": word, "reason": reason})
    if reason != info["reason"]:
        finished.event("verdict", verdict=word, reason=reason)


def _look_up(proof: dict[str, Any], stage: Any, canary: str) -> list[tuple[str, str]]:
    """Complete the proof from the shop's own books; return what speaks against the run, as verdicts."""
    found = []
    try:
        hits = stage.live_hits(canary)
        for row in proof.get("outbound", []):
            row["live_hits"] = hits if row["name"] == "bank" else 0
        if hits:
            charge = {"store": "bank", "where": "charges", "trace_id": "", "what": "POST", "time_ns": 0}
            proof["leaks"].append({**charge, "evidence": f"{hits} charges carry this run's canary"})
            found.append(("leaked", f"Shadow work reached production: {hits} charges at the real bank."))
        writes = proof["real_user_writes"] = stage.real_user_writes()
        if writes["missing"]:
            found.append(("failed", f"{writes['missing']} acknowledged writes of real users are missing."))
    except PerflabError as error:
        found.append(("failed", f"Whether production was left alone cannot be looked up: {error}."))
    return found


def _report(finished: Run, reports: Path) -> Path:
    from perflab.demo.scratch import scratch_directory
    from perflab.report.export import export
    from perflab.report.render import render

    reports.mkdir(parents=True, exist_ok=True)
    params = {"run": str(finished.path.resolve())}
    with scratch_directory() as scratch:  # the next demo sweeps it, should this one be killed
        notebook = render("loadtest", params, into=finished.path / "report.ipynb", scratch=scratch.path)
    title = f"Load test {finished.run_id}"
    return export(notebook, reports / f"{finished.run_id}.html", title=title).path


def _traffic(arguments: argparse.Namespace, experiment: Experiment | None) -> tuple[Scenario, Arrivals]:
    from perflab.load.arrivals import Arrivals
    from perflab.traffic.scenario import Holes, Scenario

    over_s = duration_ns(arguments.over) / NS_PER_S
    if not 2 <= over_s <= 600:
        raise ConfigError(f"--for {arguments.over}: the load lasts from 2s to 10min")
    if not 1 <= arguments.rate <= 500:
        raise ConfigError(f"--rate {arguments.rate:g}: the ramp ends between 1 and 500 requests a second")
    with resources.as_file(resources.files("perflab.demo") / "scenario.toml") as path:
        scenario = Scenario.load(path)
    accepted = Holes((*scenario.holes.accept, *arguments.accept))
    arrivals = (
        Arrivals.ramp(arguments.rate / 4, arguments.rate, over=arguments.over)
        if experiment is None
        else Arrivals.constant(arguments.rate, over=f"{experiment.lasts_ns}ns")
    )
    return msgspec.structs.replace(scenario, holes=accepted), arrivals


def _make_directories(out: Path) -> Path:
    """Make where runs, reports and logs go; return where the services' logs go for now."""
    logs = out / "logs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        (out / "reports").mkdir(exist_ok=True)
    except OSError as error:
        raise PerflabError(f"cannot write to {out}: {error.strerror or error}") from error
    return logs


def _where_logs_are(out: Path, logs: Path) -> str:
    moved = [] if logs.exists() else sorted((out / "runs").glob("*/logs"))
    return f"Everything was stopped. The services' logs: {moved[-1] if moved else logs}"


def _pair(text: str, sign: str, form: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise ConfigError(f"{text!r} is not of the form {form}")
    return left, right


def _tell_end(finished: Run, report: Path, arguments: argparse.Namespace, teller: Teller) -> None:
    from perflab.analysis.bottleneck import bottlenecks
    from perflab.load.experiment import fit_experiment, undelayed_spans

    info, proof = finished.info, finished.isolation
    found = bottlenecks(undelayed_spans(finished))
    first = found.first
    counted = ("offered", "sent", "late", "missed", "errors")
    told: dict[str, Any] = {
        "run": finished.run_id,
        "report": str(report),
        "verdict": info["verdict"],
        "reason": info["reason"],
        "bottleneck": {name: first[name] for name in ("entity", "service", "share_ratio")}
        if first is not None
        else None,
        "answer": found.answer,
        "isolation": {
            "stores": proof.get("seen", 0),
            "proven": proof.get("proven", 0),
            "leaks": len(proof["leaks"]),
        },
        "requests": {name: info["requests"][name] for name in counted},
    }
    kept = ("bottleneck", "answer", "isolation", "report")
    finished.write_info({**info, **{name: told[name] for name in kept}})
    teller.say(f"verdict: {info['verdict']}. {info['reason']}")
    teller.say(f"bottleneck: {found.sentence}")
    if confirmation := fit_experiment(finished):
        told["confirmation"] = as_told(confirmation)
        teller.say(f"experiment: {confirmation.sentence}")
    teller.say(f"isolation: {told['isolation']['proven']} of {told['isolation']['stores']} stores proven")
    teller.say(f"report: {report}")
    if arguments.json:
        print(json.dumps(told, ensure_ascii=False, default=float))
