"""Launch: a run from the first check to the verdict, or only as far as the preflight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from perflab.config import Target, load_config
from perflab.errors import ConfigError
from perflab.load.arrivals import Arrivals
from perflab.load.course import Course, Watch
from perflab.load.experiment import Experiment
from perflab.load.guard import Guard
from perflab.load.limits import check_limits
from perflab.load.verdict import Verdict
from perflab.run import RUNS, Run
from perflab.traffic.scenario import Scenario
from perflab.units import NS_PER_S, duration_ns


async def launch(
    scenario: Scenario,
    arrivals: Arrivals | None = None,
    *,
    target: str | Target,
    config: Path = Path("perflab.toml"),
    guards: Sequence[Guard] = (),
    runs: Path = RUNS,
    delays_ns: Mapping[str, int] | None = None,
    experiment: Experiment | None = None,
    before: str = "3s",
    after: str = "2s",
    watch: Watch | None = None,
) -> Run:
    """Run a shadow load test against a target and return what it left.

    Parameters
    ----------
    scenario : Scenario
        What is sent.
    arrivals : Arrivals, optional
        When; the scenario's own when left out.
    target : str or Target
        A target of ``perflab.toml``, or one itself.
    config : Path
        Where ``perflab.toml`` is.
    guards : sequence of Guard
        Limits that stop the run, on top of the target's.
    runs : Path
        Where run directories are made.
    delays_ns : mapping of str to int, optional
        Entity -> time marked work waits there, from after the preflight on: a planted fault.
    experiment : Experiment, optional
        An entity that is delayed by turns while load lasts, for marked work only; ``run.info["experiment"]``
        has the blocks, which `perflab.load.experiment.fit_experiment` reads. Load lasts at least as long.
    before, after : str
        How long real users are watched without load, as human durations.
    watch : callable, optional
        Called with every event.

    Returns
    -------
    Run
        ``run.verdict`` is ``passed``, ``failed``, ``stopped``, ``refused`` or ``leaked``. A tripped guard
        or an open hole is a result, not an exception.

    Raises
    ------
    ConfigError
        If the request does not fit the target's limits, a delay's entity does not exist, or load ends before
        the experiment.
    LoadError, TraceError
        If the generator or the receiver could not work.
    """
    found = target if isinstance(target, Target) else load_config(config).target(target)
    chosen = arrivals or (Arrivals.from_plan(scenario.arrivals) if scenario.arrivals else None)
    if chosen is None:
        raise ConfigError(f"scenario {scenario.name!r} says not when requests arrive; give arrivals")
    check_limits(chosen, found, guards)
    if experiment is not None and chosen.duration_ns < experiment.lasts_ns:
        raise ConfigError(
            f"load lasts {chosen.duration_ns / NS_PER_S:g} s, the experiment "
            f"{experiment.lasts_ns / NS_PER_S:g} s; let load last longer, or the experiment have fewer "
            "rounds or shorter blocks"
        )
    run = Run.create(runs, label="shadow")
    course = Course(run, scenario, chosen, found, guards, dict(delays_ns or {}), watch, experiment)
    course.target_name = target if isinstance(target, str) else found.addresses[0]
    before_s, after_s = (duration_ns(text) / NS_PER_S for text in (before, after))
    await _to_its_end(course, lambda: course.go(before_s, after_s))
    return run


async def preflight(
    scenario: Scenario,
    *,
    target: str | Target,
    config: Path = Path("perflab.toml"),
    runs: Path = RUNS,
    watch: Watch | None = None,
) -> Run:
    """Find every place where marked work would not be isolated, without load: one request per endpoint.

    Parameters
    ----------
    scenario : Scenario
        Whose endpoints are asked, once each.
    target : str or Target
        A target of ``perflab.toml``, or one itself.
    config : Path
        Where ``perflab.toml`` is.
    runs : Path
        Where run directories are made.
    watch : callable, optional
        Called with every event.

    Returns
    -------
    Run
        ``run.preflight`` says where the mark travelled and what was met; ``run.verdict`` is ``passed``,
        ``refused`` where a hole is open, or ``leaked``.

    Raises
    ------
    ConfigError
        If the target does not exist or its secrets cannot be read.
    LoadError, TraceError
        If the generator or the receiver could not work.
    """
    found = target if isinstance(target, Target) else load_config(config).target(target)
    run = Run.create(runs, label="preflight")
    course = Course(run, scenario, Arrivals.constant(1, over="1s"), found, (), {}, watch)
    course.target_name = target if isinstance(target, str) else found.addresses[0]
    await _to_its_end(course, course.inspect)
    return run


async def _to_its_end(course: Course, go: Callable[[], Awaitable[None]]) -> None:
    """Carry a run out, or write down that it was broken off."""
    try:
        await go()
    except (asyncio.CancelledError, KeyboardInterrupt):
        course.give_up(Verdict("stopped", "The run was interrupted."))
        raise
    except BaseException as error:
        course.give_up(Verdict("failed", f"The run could not be carried out: {error or repr(error)}"))
        raise
