"""The course of one run: its phases, in the order that is the safety.

Limits are checked before; here come agents, what is known to be open, the audit, one marked request per
endpoint, real users as they are, and only then load; afterwards real users again, and the proof. Whatever
happens, the run leaves the list of live runs, the generator ends, the audit's slots are dropped and what
was measured is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pandas as pd

import perflab
from perflab.analysis.entity import find_entities
from perflab.config import Target
from perflab.errors import ConfigError, LoadError
from perflab.load.arrivals import Arrivals
from perflab.load.experiment import Blocks, Experiment
from perflab.load.generator import Generator
from perflab.load.guard import Guard
from perflab.load.plan import Captured, MarkKey, Plan, Result
from perflab.load.record import Record
from perflab.load.verdict import Verdict, decide, judge_thresholds, refused_marks
from perflab.load.watchdog import Watchdog, finish_in_thread
from perflab.run import Run
from perflab.shadow import journey
from perflab.shadow.audit import Audit
from perflab.shadow.audit.signature import Signer
from perflab.shadow.control import ControlPublisher, LiveRun
from perflab.shadow.fleet import Fleet, between
from perflab.shadow.mark import RunKey, new_tag
from perflab.shadow.preflight import (
    Hole,
    Hop,
    mixed_versions,
    static_holes,
    travelled_holes,
    unaccepted,
)
from perflab.trace.collector import Collector
from perflab.trace.schema import GENERATOR_SERVICE, concat_spans
from perflab.trace.store import read_spans
from perflab.trace.tree import link
from perflab.traffic.scenario import Scenario
from perflab.units import NS_PER_MS, NS_PER_S, duration_ns

Watch = Callable[[str, Mapping[str, Any]], None]
"""Called with each event of the run and its details, for whoever shows progress."""

AGENTS_WITHIN_S = 15.0
SETTLE_S = 1.2  # two reports of every agent, and a batch of its spans
PREFLIGHT_REQUESTS = "preflight/generator.parquet"
REQUESTS = "spans/generator.parquet"
_T = TypeVar("_T")


class Course:
    """One run under way."""

    target_name = ""

    def __init__(
        self,
        run: Run,
        scenario: Scenario,
        arrivals: Arrivals,
        target: Target,
        guards: Sequence[Guard],
        delays_ns: dict[str, int],
        watch: Watch | None,
        experiment: Experiment | None = None,
    ) -> None:
        self.run, self.scenario, self.arrivals, self.target = run, scenario, arrivals, target
        self.delays_ns = delays_ns
        self.watch = watch
        self.found: list[Hole] = []
        self.fleet = Fleet()
        self.reported = asyncio.Event()
        self.record = Record()
        self.guards = [*(Guard(rule) for rule in target.guards), *(guard.on(None) for guard in guards)]
        self.started_ns = time.time_ns()
        self.publisher = ControlPublisher(Path(target.control), target.control_key.read().encode())
        self.blocks = Blocks(experiment, self.publisher.delay, self.event) if experiment else None
        self.audit = Audit(target.stores, run.run_id)
        self.signer = Signer.of(target)
        not_after_s = int(time.time() + arrivals.duration_ns / NS_PER_S + 600)
        key_id = f"{run.run_id} {secrets.token_hex(8)}"  # no other run has this key, whatever its name
        self.live = LiveRun(new_tag(), run.run_id, key_id, not_after_s, accepted=scenario.holes.accept)
        self.watchdog = Watchdog(
            target,
            self.guards,
            self.fleet,
            self.record,
            self.event,
            lambda: self.publisher.kill(self.live.tag),
            lambda: self.publisher.killed_by(self.live.tag),
        )

    async def inspect(self) -> None:
        """Carry out the preflight alone: everything up to load, and the proof that it left no trace."""
        with self.publisher, self.audit:
            run_key = self.publisher.add(self.live)
            await self._prepare(run_key)
            async with self._collector("spans"):  # the agents go on reporting what they claim
                await self._phase("proof", self._prove())
            self.publisher.remove(self.live.tag)
        verdict = decide(self.record, self.fleet.refusals)
        if verdict.word not in ("leaked", "refused", "stopped"):
            count = len(self.scenario.endpoints)
            verdict = Verdict(
                "passed",
                f"No hole is open: the mark was carried all the way in {count} of {count} endpoints.",
            )
        self.conclude(verdict)

    async def go(self, before_s: float, after_s: float) -> None:
        """Carry the run out."""
        with self.publisher, self.audit:
            run_key = self.publisher.add(self.live)
            captured = await self._prepare(run_key)
            async with self._collector("spans") as collector:
                if not self.record.holes and not self.record.leaks:
                    await self._measure(collector, run_key, captured, before_s, after_s)
                await self._phase("proof", self._prove())
                self.publisher.remove(self.live.tag)
        self._finish()

    def conclude(self, verdict: Verdict) -> None:
        """Write ``run.json``, and ``isolation.json`` if there is a proof, as far as they are known."""
        if self.record.isolation:
            self.run.write_isolation(self.record.isolation)
        self.run.write_info(
            {
                "scenario": self.scenario.name,
                "target": self.target_name,
                "addresses": self.target.addresses,
                "verdict": verdict.word,
                "reason": verdict.reason,
                "started_ns": self.started_ns,
                "ended_ns": time.time_ns(),
                **self.record.as_info(self.target, self.guards),
                "accepted_holes": list(self.scenario.holes.accept),
                "delays_ms": {name: delay / NS_PER_MS for name, delay in self.delays_ns.items()},
                "versions": self.fleet.versions(),
                **({"experiment": self.blocks.as_info()} if self.blocks else {}),
            }
        )
        self.event("verdict", verdict=verdict.word, reason=verdict.reason)
        self.signer.sign(self.run.path)

    def give_up(self, verdict: Verdict) -> None:
        """Conclude a run that was broken off; what cannot be written any more does not hide why."""
        with contextlib.suppress(OSError):
            self.conclude(verdict)

    def event(self, what: str, /, **details: Any) -> None:
        """Write an event down and show it."""
        self.run.event(what, **details)
        if what == "leak":
            self.run.keep_evidence(details)
        if self.watch is not None:
            self.watch(what, details)

    async def _prepare(self, run_key: RunKey) -> tuple[Captured, ...]:
        """Agents, known holes, audit, preflight, planted delays; returns what the preflight captured."""
        async with self._collector("preflight") as collector:
            await self._phase("agents", self._await_agents())
            self._open(static_holes(self.fleet, self.target.services))
            for notice in mixed_versions(self.fleet, perflab.__version__):
                self.event("notice", why=notice)
            if self.record.holes:
                self._chart([], [])
                return ()
            await self._phase("audit", finish_in_thread(self.audit.start))
            result = await self._phase("preflight", self._preflight(collector, run_key))
            if not self.record.holes and not self.record.leaks:
                await self._plant_delays(collector.spans())
        return result.captured

    async def _await_agents(self) -> None:
        """Wait until every attached service believes that the run is live, or time is up."""
        wanted = set(self.target.services)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGENTS_WITHIN_S):
                while not wanted <= self.fleet.believing(self.live.tag):
                    self.reported.clear()
                    await self.reported.wait()
        await asyncio.sleep(SETTLE_S / 2)
        self.event("agents", believing=sorted(self.fleet.believing(self.live.tag)))

    async def _preflight(self, collector: Collector, run_key: RunKey) -> Result:
        """Send one marked request per endpoint and see where it went."""
        plan = self._plan(run_key, PREFLIGHT_REQUESTS, preflight=True)
        async with Generator(plan) as generator:
            result = await generator.wait()
        await collector.wait_quiet(SETTLE_S, 8.0)
        await asyncio.sleep(SETTLE_S / 2)
        carriers = self.scenario.canary_carriers()
        self.record.canaries += sum(sample.endpoint in carriers for sample in result.samples)
        samples = [msgspec.structs.asdict(sample) for sample in result.samples]
        sent = {sample.trace_id for sample in result.samples}
        spans = collector.spans()
        hops = _hops(spans[spans["trace_id"].isin(sent)])  # real users are traced too, a few of them
        self._open(travelled_holes(self.fleet, hops, samples, self.target.services))
        self._chart(hops, samples)
        await self.watchdog.leaked(self.audit)
        return result

    def _chart(self, hops: Sequence[Hop], samples: Sequence[Mapping[str, Any]]) -> None:
        """Write down where the mark travelled, and what was met on the way."""
        refused = {str(refusal["service"]) for refusal in self.fleet.refusals}
        stops = journey.stops(hops, self.target.services, refused)
        self.run.write_preflight(
            {
                "services": journey.services_seen(self.fleet, self.target.services),
                "stores": journey.stores_seen(self.fleet, self.target.stores, self.target.outbound),
                "endpoints": [
                    {
                        **sample,
                        "stops": stops[sample["trace_id"]].as_dict() if sample["trace_id"] in stops else None,
                    }
                    for sample in samples
                ],
                "holes": [
                    {**hole.as_dict(), "accepted": hole.name in self.scenario.holes.accept}
                    for hole in self.found
                ],
                "notices": mixed_versions(self.fleet, perflab.__version__),
            }
        )

    def _open(self, found: list[Hole]) -> None:
        """Note the holes that the scenario does not accept."""
        self.found = found
        self.record.holes = unaccepted(found, self.scenario.holes.accept)
        for hole in found:
            self.event("hole", accepted=hole not in self.record.holes, **hole.as_dict())

    async def _plant_delays(self, spans: pd.DataFrame) -> None:
        """See that every place to be delayed is one that marked work came by, and plant the delays."""
        wanted = [*self.delays_ns, *([self.blocks.experiment.entity] if self.blocks else [])]
        if not wanted:
            return
        table = concat_spans([read_spans(self.run.path / PREFLIGHT_REQUESTS), spans[spans["shadow"]]])
        generators_own = (f"{GENERATOR_SERVICE}: ", f"{GENERATOR_SERVICE} -> ")  # nobody could wait there
        known = sorted(
            name for name in find_entities(table, link(table)).names if not name.startswith(generators_own)
        )
        unknown = [name for name in wanted if name not in known]
        if unknown:
            listed = "\n  ".join(known)
            raise ConfigError(f"there is no place {unknown[0]!r} to plant a delay; there are:\n  {listed}")
        if self.delays_ns:
            self.publisher.delay(self.delays_ns)
            self.event("delays planted", delays_ns=self.delays_ns)
            await asyncio.sleep(SETTLE_S)

    async def _measure(
        self,
        collector: Collector,
        run_key: RunKey,
        captured: tuple[Captured, ...],
        before_s: float,
        after_s: float,
    ) -> None:
        """Real users, load with its guards, real users again."""
        await self._phase("before", self.watchdog.rest("before", before_s))
        if self.watchdog.killed():
            return
        plan = self._plan(run_key, REQUESTS, captured=captured)
        self.record.result = await self._phase("load", self._load(plan))
        requests = read_spans(self.run.path / REQUESTS)
        carried = requests["name"].isin(self.scenario.canary_carriers()) & (requests["outcome"] != "missed")
        self.record.canaries += int(carried.sum())
        await self._phase("after", self.watchdog.rest("after", after_s))
        await collector.wait_quiet(SETTLE_S, 10.0)

    async def _load(self, plan: Plan) -> Result:
        """Send, watched."""
        earlier = self.watchdog.users()
        async with Generator(plan) as generator:
            tasks = [watching := asyncio.create_task(self.watchdog.watch(generator, self.audit))]
            try:
                async for progress in generator:
                    if watching.done() and watching.exception() is not None:
                        raise LoadError("the run could not be watched any more") from watching.exception()
                    if self.blocks and len(tasks) == 1:  # requests are on their way
                        tasks.append(asyncio.create_task(self.blocks.play(self.delays_ns)))
                    self.record.progress = progress
                    self.watchdog.feed(progress)
                    if self.watch is not None:
                        self.watch("progress", msgspec.structs.asdict(progress))
                result = await generator.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(SETTLE_S / 2)
        self.watchdog.note("during", between(self.watchdog.users(), earlier))
        return result

    async def _prove(self) -> None:
        """End the audit's window, let the last claims in, and say what is proven."""
        await finish_in_thread(self.audit.end)
        await asyncio.sleep(SETTLE_S)
        if self.record.result is not None:
            self.watchdog.note_lost()
        proof = await finish_in_thread(
            self.audit.finish, self.fleet.claims, self.fleet.sessions(), self.record.canaries
        )
        self.record.refused_marks = refused_marks(self.fleet, self.scenario.holes.accept)
        self.record.isolation = {
            **proof,
            "refusals": self.fleet.refusals,
            "outbound": self.fleet.outbound(),
            "claims_lost": self.fleet.claims_lost,
            "stepped_aside": dict(self.fleet.stepped_aside()),
        }
        self.event("proof", seen=proof["seen"], proven=proof["proven"], leaks=len(proof["leaks"]))

    def _finish(self) -> None:
        record = self.record
        self.watchdog.killed()
        if record.result is not None:
            record.thresholds = judge_thresholds(self.scenario, read_spans(self.run.path / REQUESTS))
        self.conclude(decide(record, self.fleet.refusals))

    def _collector(self, directory: str) -> Collector:
        path = self.run.path / directory
        path.mkdir(exist_ok=True)
        return Collector(
            self.target.collector,
            {"/v1/agents": self._receive},
            {"/v1/agents": self.fleet.agents},
            spans_dir=path,
        )

    def _receive(self, body: bytes) -> dict[str, Any]:
        """Take an agent's report, and wake whoever waits for one."""
        answer = self.fleet.receive(body)
        self.reported.set()
        return answer

    def _plan(
        self, run_key: RunKey, output: str, *, preflight: bool = False, captured: tuple[Captured, ...] = ()
    ) -> Plan:
        return Plan(
            run_id=self.run.run_id,
            scenario=self.scenario,
            addresses=self.target.addresses,
            output=str(self.run.path / output),
            arrivals=None if preflight else self.arrivals,
            mark=MarkKey.of(run_key),
            timeout_s=duration_ns(self.target.timeout) / NS_PER_S,
            max_in_flight=self.target.max_in_flight,
            preflight=preflight,
            captured=captured,
        )

    async def _phase(self, name: str, work: Awaitable[_T]) -> _T:
        """Await one phase of the run and note when it began and ended."""
        phase: dict[str, Any] = {"name": name, "start_ns": time.time_ns()}
        self.record.phases.append(phase)
        self.event("phase", name=name)
        try:
            return await work
        finally:
            phase["end_ns"] = time.time_ns()


def _hops(spans: pd.DataFrame) -> list[Hop]:
    hops = []
    for row in spans.itertuples(index=False):
        attributes = msgspec.json.decode(row.attributes) if row.attributes else {}
        peer = str(attributes.get("peer.service", ""))
        hops.append(
            Hop(
                str(row.trace_id),
                int(row.span_id),
                int(row.parent_span_id),
                str(row.service),
                str(row.kind),
                bool(row.shadow),
                peer,
                str(row.name),
                int(row.start_ns),
                row.status == "error",
            )
        )
    return hops
