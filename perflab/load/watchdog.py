"""The watchdog of a run: guards each second, leaks and kills each half second, services that fall silent.

It stops the generator and, on a leak, kills the run in every attached process. It reads real users from
the agents' reports and the shadow traffic from the generator's progress.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from perflab.config import Target
from perflab.load.generator import Generator
from perflab.load.guard import Breach, Guard, Reading
from perflab.load.plan import Progress
from perflab.load.record import Record
from perflab.load.window import ShadowProbe
from perflab.shadow.audit import Audit
from perflab.shadow.fleet import Fleet, Window, between

GUARD_EVERY_S = 1.0
EVIDENCE_KEPT = 20
"""Leaks of one look that are written down one by one; all of them are in the proof."""
_T = TypeVar("_T")


class Watchdog:
    """Watches one run.

    Parameters
    ----------
    target : Target
        Which services there are, and where real users are measured.
    guards : sequence of Guard
        Limits that stop the run.
    fleet : Fleet
        The agents' reports.
    record : Record
        Where what is seen is noted.
    event : callable
        Writes an event.
    kill : callable
        Has every attached process refuse the run's marks.
    killed_by : callable
        Returns who killed the run from outside, "" while nobody has.
    """

    def __init__(
        self,
        target: Target,
        guards: Sequence[Guard],
        fleet: Fleet,
        record: Record,
        event: Callable[..., None],
        kill: Callable[[], None],
        killed_by: Callable[[], str] = str,
    ) -> None:
        self._target, self._guards, self._fleet, self._record = target, guards, fleet, record
        self._event, self._kill, self._killed_by = event, kill, killed_by
        self._shadow = ShadowProbe()

    def feed(self, progress: Progress) -> None:
        """Take one line of the generator's progress."""
        self._shadow.feed(progress)

    def users(self) -> Window:
        """Return all requests of real users so far (empty where the target does not say where to look)."""
        real_users = self._target.real_users
        return self._fleet.real_users(real_users.service if real_users else "")

    async def rest(self, when: str, seconds: float) -> None:
        """Watch real users for a while without load; ``before`` becomes the guards' baseline."""
        if self._target.real_users is None:
            return
        earlier = self.users()
        await asyncio.sleep(seconds)
        window = between(self.users(), earlier)
        self.note(when, window)
        if when == "before":
            for guard in self._guards:
                if guard.rule.of == "real_users":
                    guard.set_baseline(_reading(window), max(int(seconds / GUARD_EVERY_S), 1))

    def note(self, when: str, window: Window) -> None:
        """Note real users of a stretch of the run."""
        if self._target.real_users is not None:
            self._record.real_users[when] = window.summary()
            self._event("real users", when=when, **window.summary())

    async def leaked(self, audit: Audit) -> bool:
        """Look whether shadow work reached production since the last look; if so, kill the run at once."""
        leaks = await finish_in_thread(audit.poll)
        if leaks:
            self._kill()
            self._record.leaks += leaks
            for leak in leaks[:EVIDENCE_KEPT]:
                self._event("leak", **leak.as_row())
        return bool(leaks)

    def killed(self) -> bool:
        """Tell whether somebody has killed the run, and note who."""
        by = self._killed_by()
        if by and not self._record.killed_by:
            self._record.killed_by = by
            self._event("killed", by=by)
        return bool(by)

    async def watch(self, generator: Generator, audit: Audit) -> None:
        """Watch until cancelled, or until a leak, a kill or a lost mark stops the run; guards watch on."""
        users = self.users()
        judged_s = time.monotonic()
        while True:
            await asyncio.sleep(GUARD_EVERY_S / 2)
            if await self.leaked(audit):
                leak = self._record.leaks[0]
                await generator.stop(f"shadow work reached production: {leak.store} {leak.where}")
                return
            if self.killed():
                await generator.stop(f"the run was killed by {self._record.killed_by}")
                return
            if lost := self._fleet.lost_marks():
                self._kill()
                self._event("mark lost", service=lost[0]["service"], why=lost[0]["what"])
                await generator.stop(f"service {lost[0]['service']!r} lost the mark: {lost[0]['what']}")
                return
            self.note_lost()
            if self._record.breach is not None or time.monotonic() - judged_s < GUARD_EVERY_S:
                continue
            judged_s = time.monotonic()
            now = self.users()
            seen = None if self._blind() else _reading(between(now, users))
            breach = self._judge(seen, self._shadow.take())
            users = now
            if breach is not None:
                self._record.breach = breach
                self._event("guard tripped", reason=breach.reason, value=breach.value, limit=breach.limit)
                await generator.stop(breach.reason)

    def note_lost(self) -> None:
        """Note which services have fallen silent, and which of them report again."""
        record = self._record
        lost = set(self._fleet.lost(self._target.services))
        for name in sorted(lost - record.lost):
            self._event("service lost", service=name, why=f"the agent of {name} has not reported for 3 s")
        for name in sorted(record.lost - lost):
            self._event("service back", service=name)
        record.silent |= lost
        record.lost = lost

    def _blind(self) -> bool:
        """Whether the service in which real users are measured has fallen silent."""
        real_users = self._target.real_users
        return real_users is not None and real_users.service in self._record.lost

    def _judge(self, real_users: Reading | None, shadow: Reading | None) -> Breach | None:
        for guard in self._guards:
            reading: Any = real_users if guard.rule.of == "real_users" else shadow
            if reading is not None and reading.count:
                name = f"{guard.rule.of} {guard.rule.metric}"
                value = float(getattr(reading, guard.rule.metric))
                self._record.worst[name] = max(self._record.worst.get(name, 0.0), value)
            breach = guard.observe(reading)
            if breach is not None:
                return breach
        return None


async def finish_in_thread(step: Callable[..., _T], *arguments: Any) -> _T:
    """Do a blocking step on a thread; cancelled, wait for its end first.

    What closes the object the step works on must not run beside it: a connection it is just opening would
    stay open, and a publication it is just making would stay in production.
    """
    work = asyncio.ensure_future(asyncio.to_thread(step, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _reading(window: Window) -> Reading:
    p50_ms, p95_ms, p99_ms = (window.quantile_ms(ratio) for ratio in (0.5, 0.95, 0.99))
    return Reading(window.count, window.errors, p50_ms, p95_ms, p99_ms)
