"""The signed list of live runs: who publishes it, who believes it, and for how long.

The controller of a run writes the list to a file every second; attached processes read it from that
file, or from a URL that serves it, at least every second. A list that is unsigned, altered or older than
five seconds is not believed: every mark is then refused. Ending a run is leaving it out of the list or
setting its kill flag (`perflab.shadow.killswitch` does, from outside). A kill is kept: a run that an attached
process has once seen killed lives never again there, whatever lists follow.

Every run has a key of its own, derived from its key id. The control key, too, can be changed while services
run (`perflab.shadow.signing`): they read it by its reference at every poll.

The list also carries *delays*: entity -> time marked work waits there. They plant a fault, or test whether
an entity is the bottleneck, from outside the services' code. Ordinary work never waits.
"""

from __future__ import annotations

import contextlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perflab.errors import ConfigError
from perflab.shadow.killfile import killers, replace_file
from perflab.shadow.mark import RunKey
from perflab.shadow.replay import Arrivals
from perflab.shadow.signing import keys_of, opened, signed

STALE_AFTER_S = 5.0
POLL_EVERY_S = 0.5
PUBLISH_EVERY_S = 1.0
CANARY_KEPT_S = 60.0
"""How long the canaries of a run that is over are still looked for: marked work may lie in a buffer."""
LOOKS = 4
"""How often, between two publications, a publisher looks for a kill."""
LONGEST_NS = 60_000_000_000
"""A longer delay is cut to this one, a negative one is none: it must never be an error where it is waited."""
SEEN_KEPT = 1024
LIST_BYTES = 1 << 20
_WHAT = "the list of live runs"
_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One entry of the list.

    Parameters
    ----------
    tag : int
        The run's tag in its marks.
    run_id : str
        Its name, for people.
    key_id : str
        Names the run's key, no other's; the key itself is derived and never written down.
    not_after_s : int
        Unix time.
    killed : bool
        True: its marks are refused from now on.
    accepted : tuple of str
        Holes the scenario names and accepts; a process with any other hole refuses the run's marks.
    """

    tag: int
    run_id: str
    key_id: str
    not_after_s: int
    killed: bool = False
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlList:
    """What attached processes are told: the live runs and the delays in force."""

    issued_s: float = 0.0
    runs: tuple[LiveRun, ...] = ()
    delays_ns: Mapping[str, int] = field(default_factory=lambda: _NONE)


def run_key(control_key: bytes, run: LiveRun) -> RunKey:
    """Derive a run's key: HMAC-SHA256 of the run's key id under the control key's first line."""
    key = hmac.digest(keys_of(control_key)[0], f"run-key {run.key_id} {run.tag:04x}".encode(), "sha256")
    return RunKey(run.tag, key, run.not_after_s)


def encode(control: ControlList, control_key: bytes) -> bytes:
    """Write and sign a list."""
    runs = [{**asdict(run), "accepted": list(run.accepted)} for run in control.runs]
    content = {"issued_s": control.issued_s, "runs": runs, "delays_ns": dict(control.delays_ns)}
    return signed(_WHAT, content, control_key)


def decode(content: bytes, control_key: bytes) -> ControlList:
    """Read a list and check its signature.

    Raises
    ------
    ConfigError
        If it is not a list, or was not signed with this key.
    """
    return _decoded(content, control_key)[0]


def _decoded(content: bytes, control_key: bytes) -> tuple[ControlList, bytes]:
    try:
        data, key = opened(_WHAT, content, control_key)
        control = ControlList(
            float(data["issued_s"]),
            tuple(LiveRun(**{**run, "accepted": tuple(run["accepted"])}) for run in data["runs"]),
            MappingProxyType(
                {str(name): min(max(int(delay), 0), LONGEST_NS) for name, delay in data["delays_ns"].items()}
            ),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the list of live runs cannot be read: {error!r}") from error
    return control, key


class ControlPublisher:
    """Publish the list to a file, again every second while it is open.

    Parameters
    ----------
    path : Path
        Written whole, by rename.
    control_key : bytes
        Signs it.

    Notes
    -----
    A thread of its own republishes, so that a busy controller is not taken for a dead one for want of an
    event loop; a controller that is gone stops publishing, and five seconds later every mark is refused.
    """

    def __init__(self, path: Path, control_key: bytes) -> None:
        self._path = path
        self._key = control_key
        self._runs: dict[int, LiveRun] = {}
        self._delays: dict[str, int] = {}
        self._killed_by: dict[int, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._republish, name="perflab-control", daemon=True)

    def __enter__(self) -> ControlPublisher:
        self.publish()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Withdraw every run, publish once more, stop."""
        self._closed.set()
        self._thread.join(timeout=5)
        with self._lock:
            self._runs, self._delays = {}, {}
        with contextlib.suppress(OSError):
            self.publish()

    def add(self, run: LiveRun) -> RunKey:
        """List a run as live and return the key its marks are made with."""
        with self._lock:
            self._runs[run.tag] = run
        self.publish()
        return run_key(self._key, run)

    def kill(self, tag: int) -> None:
        """Have every attached process refuse this run's marks, at its next poll."""
        with self._lock:
            if tag in self._runs:
                self._runs[tag] = replace(self._runs[tag], killed=True)
        self.publish()

    def remove(self, tag: int) -> None:
        """Take a run off the list."""
        with self._lock:
            self._runs.pop(tag, None)
        self.publish()

    def delay(self, delays_ns: Mapping[str, int]) -> None:
        """Put delays in force: entity, as every table prints it -> nanoseconds."""
        self._delays = dict(delays_ns)
        self.publish()

    def publish(self) -> None:
        """Write the list now.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with self._lock:
            self._hear_kills()
            control = ControlList(time.time(), tuple(self._runs.values()), dict(self._delays))
            replace_file(self._path, encode(control, self._key))

    def killed_by(self, tag: int) -> str:
        """Return who killed a run by the kill switch, "" if nobody."""
        return self._killed_by.get(tag, "")

    def _hear_kills(self) -> bool:
        """Flag the runs the kill file names; tell whether there are new ones."""
        killed = killers(self._path, self._key) if self._runs else {}
        new = {
            tag: killed[run.run_id]
            for tag, run in self._runs.items()
            if run.run_id in killed and tag not in self._killed_by
        }
        self._killed_by |= new
        self._runs |= {tag: replace(self._runs[tag], killed=True) for tag in new}
        return bool(new)

    def _republish(self) -> None:
        looks = 0
        while not self._closed.wait(PUBLISH_EVERY_S / LOOKS):
            looks += 1
            with self._lock:
                heard = self._hear_kills()
            if heard or looks % LOOKS == 0:
                with contextlib.suppress(OSError):  # a full disk: the list goes stale and marks are refused
                    self.publish()


@dataclass(frozen=True, slots=True)
class _Belief:
    """The last list that was believed and the keys of its runs; replaced whole, never seen half updated."""

    control: ControlList = field(default_factory=ControlList)
    live: Mapping[int, RunKey] = field(default_factory=dict)
    seen: Mapping[int, RunKey] = field(default_factory=dict)
    killed: frozenset[tuple[int, str]] = frozenset()
    lived: Mapping[int, tuple[str, float]] = field(default_factory=dict)
    canaries: tuple[str, ...] = ()

    def followed_by(self, control: ControlList, control_key: bytes) -> _Belief:
        """Return what is believed after one more list."""
        keys = {run.tag: self._key(run_key(control_key, run)) for run in control.runs}
        killed = self.killed | {(run.tag, run.key_id) for run in control.runs if run.killed}
        live = {run.tag: keys[run.tag] for run in control.runs if (run.tag, run.key_id) not in killed}
        seen = dict(list({**self.seen, **keys}.items())[-SEEN_KEPT:])
        now = {run.tag: (run.run_id, control.issued_s) for run in control.runs if run.tag in live}
        kept = {tag: at for tag, at in self.lived.items() if control.issued_s - at[1] < CANARY_KEPT_S}
        lived = {**kept, **now}
        canaries = tuple({f"plc-{run_id}-": None for run_id, _ in lived.values()})
        return _Belief(control, live, seen, killed, lived, canaries)

    def _key(self, derived: RunKey) -> RunKey:
        """Return the key that is there already, if it is the same: it has its HMAC begun."""
        known = self.seen.get(derived.tag)
        return known if known == derived else derived


class ControlReader:
    """What one attached process believes about live runs.

    Parameters
    ----------
    source : str
        Path or ``http(s)`` URL of the list.
    control_key : bytes or callable
        Checks its signature; or what reads it, asked at every poll.
    clock : callable
        Returns Unix time in seconds.
    """

    def __init__(
        self,
        source: str,
        control_key: bytes | Callable[[], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._read_key = control_key if callable(control_key) else lambda: control_key
        self._key = self._read_key()
        self._clock = clock
        self._belief = _Belief()
        self.problem = "not read yet"
        self.arrivals = Arrivals()
        self.quiet = True
        """Whether nothing is to be noted: no run is or was just live."""
        self.planted = False
        """Whether any delay is."""
        self.canaries: tuple[str, ...] = ()
        """What the canaries of the runs begin with that are live, or were until a minute ago."""

    def start(self, inside: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext) -> None:
        """Read once now, then poll from a daemon thread (started anew after a fork).

        Parameters
        ----------
        inside : callable
            Makes the context manager the polling is done in: how the agent keeps its hooks out of it.
        """
        with inside():
            self.poll()

        def poll_forever() -> None:
            with inside():
                while True:
                    time.sleep(POLL_EVERY_S)
                    self.poll()

        threading.Thread(target=poll_forever, name="perflab-control", daemon=True).start()

    @property
    def live(self) -> Mapping[int, RunKey] | None:
        """Keys of the live runs by tag, or None when the list is stale or not believed."""
        belief = self._belief
        return belief.live if self._age_s(belief.control) <= STALE_AFTER_S else None

    @property
    def seen(self) -> Mapping[int, RunKey]:
        """Keys by tag of every run that was ever listed here, live or over."""
        return self._belief.seen

    @property
    def age_s(self) -> float:
        """Seconds since the list was issued; a list from the future is as bad as an old one."""
        return self._age_s(self._belief.control)

    @property
    def run_ids(self) -> Mapping[int, str]:
        """Names of the listed runs by tag."""
        return {run.tag: run.run_id for run in self._belief.control.runs}

    def accepted(self, tag: int) -> frozenset[str]:
        """Return the holes a run accepts."""
        return frozenset(hole for run in self._belief.control.runs if run.tag == tag for hole in run.accepted)

    def is_live(self, tag: int) -> bool:
        """Tell whether work of this run may go on."""
        live = self.live
        return live is not None and tag in live and self._clock() <= live[tag].not_after_s

    def was_live(self, tag: int) -> bool:
        """Tell whether a run is live, or was until a minute ago."""
        return tag in self._belief.lived

    def delay_ns(self, entity: str) -> int:
        """Return the delay in force at an entity, 0 for none or when the list is stale."""
        control = self._belief.control
        if not control.delays_ns or self._age_s(control) > STALE_AFTER_S:
            return 0
        return control.delays_ns.get(entity, 0)

    def poll(self) -> None:
        """Read the list once; a list that cannot be believed leaves the last one to go stale."""
        try:
            found, key = self._read()
        except Exception as error:  # whatever a file or a server may hold must not end the polling
            self.problem = str(error) or repr(error)
            return
        while (problem := self._weigh(found, key)) is None:
            pass
        self.problem = problem

    def _weigh(self, found: ControlList, key: bytes) -> str | None:
        """Believe a list or say why not; None where another thread's poll came between, to be tried again."""
        before = self._belief
        if found.issued_s < before.control.issued_s:
            return "an older list was served after a newer one"
        if found.issued_s > self._clock() + STALE_AFTER_S:
            return "the list was issued in the future: the clocks differ"
        followed = before.followed_by(found, key)
        if self._belief is not before:
            return None
        quiet = not followed.lived
        self.quiet = self.quiet and quiet  # before a run is live, everything is noted
        self.canaries = followed.canaries
        self._belief, self.quiet, self.planted = followed, quiet, bool(found.delays_ns)
        if not followed.live:
            self.arrivals.forget()
        return ""

    def _read(self) -> tuple[ControlList, bytes]:
        """Read the key, which may have changed, and the list; a key that cannot be read any more stays."""
        with contextlib.suppress(ConfigError, OSError):
            self._key = self._read_key()
        return _decoded(self._fetch(), self._key)

    def _age_s(self, control: ControlList) -> float:
        return abs(self._clock() - control.issued_s)

    def _fetch(self) -> bytes:
        if self._source.startswith(("http://", "https://")):
            import urllib.request  # most lists are files; a service's start does not pay for this one

            with urllib.request.urlopen(self._source, timeout=1.0) as answer:
                return bytes(answer.read(LIST_BYTES))
        with open(self._source, "rb") as file:
            return file.read(LIST_BYTES)
