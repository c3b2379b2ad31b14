"""The signed list of live runs: who publishes it, who believes it, and for how long.

The controller of a run writes the list to a file every second; attached processes read it from that
file, or from a URL that serves it, at least every second. A list that is unsigned, altered or older than
five seconds is not believed: every mark is then refused. Ending a run is leaving it out of the list or
setting its kill flag.

The list also carries *delays*: entity -> time to wait there. They plant a fault, or test whether an
entity is the bottleneck, from outside the services' code.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from perflab.errors import ConfigError
from perflab.shadow.mark import RunKey

STALE_AFTER_S = 5.0
POLL_EVERY_S = 0.5
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
        Names the run's key; the key itself is derived and never written down.
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
    """Derive a run's key: HMAC-SHA256 of the run's key id under the control key."""
    key = hmac.digest(control_key, f"run-key {run.key_id} {run.tag:04x}".encode(), "sha256")
    return RunKey(run.tag, key, run.not_after_s)


def encode(control: ControlList, control_key: bytes) -> bytes:
    """Write and sign a list."""
    payload = json.dumps(
        {
            "issued_s": control.issued_s,
            "runs": [
                {
                    "tag": run.tag,
                    "run_id": run.run_id,
                    "key_id": run.key_id,
                    "not_after_s": run.not_after_s,
                    "killed": run.killed,
                    "accepted": run.accepted,
                }
                for run in control.runs
            ],
            "delays_ns": dict(control.delays_ns),
        }
    )
    return json.dumps({"payload": payload, "signature": _sign(payload, control_key)}).encode()


def decode(content: bytes, control_key: bytes) -> ControlList:
    """Read a list and check its signature.

    Raises
    ------
    ConfigError
        If it is not a list, or was not signed with this key.
    """
    try:
        envelope = json.loads(content)
        payload, signature = envelope["payload"], envelope["signature"]
        if not hmac.compare_digest(str(signature), _sign(payload, control_key)):
            raise ConfigError("the list of live runs is not signed with this control key")
        data = json.loads(payload)
        return ControlList(
            float(data["issued_s"]),
            tuple(LiveRun(**{**run, "accepted": tuple(run["accepted"])}) for run in data["runs"]),
            MappingProxyType({str(name): int(delay) for name, delay in data["delays_ns"].items()}),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the list of live runs cannot be read: {error!r}") from error


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
        self._runs.clear()
        self._delays.clear()
        with contextlib.suppress(OSError):
            self.publish()

    def add(self, run: LiveRun) -> RunKey:
        """List a run as live and return the key its marks are made with."""
        self._runs[run.tag] = run
        self.publish()
        return run_key(self._key, run)

    def kill(self, tag: int) -> None:
        """Have every attached process refuse this run's marks, at its next poll."""
        run = self._runs.get(tag)
        if run is not None:
            self._runs[tag] = replace(run, killed=True)
            self.publish()

    def remove(self, tag: int) -> None:
        """Take a run off the list."""
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
            control = ControlList(time.time(), tuple(self._runs.values()), dict(self._delays))
            aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            aside.write_bytes(encode(control, self._key))
            aside.replace(self._path)

    def _republish(self) -> None:
        while not self._closed.wait(1.0):
            with contextlib.suppress(OSError):  # a full disk: the list goes stale and marks are refused
                self.publish()


class ControlReader:
    """What one attached process believes about live runs.

    Parameters
    ----------
    source : str
        Path or ``http(s)`` URL of the list.
    control_key : bytes
        Checks its signature.
    """

    def __init__(self, source: str, control_key: bytes) -> None:
        self._source = source
        self._key = control_key
        self._list = ControlList()
        self._keys: Mapping[int, RunKey] = MappingProxyType({})
        self._thread: threading.Thread | None = None
        self.problem = "not read yet"

    def start(self) -> None:
        """Read once now, then poll from a daemon thread (started anew after a fork)."""
        self.poll()
        self._thread = threading.Thread(target=self._poll_forever, name="perflab-control", daemon=True)
        self._thread.start()

    @property
    def live(self) -> Mapping[int, RunKey] | None:
        """Keys of the live runs by tag, or None when the list is stale or not believed."""
        return self._keys if self.age_s <= STALE_AFTER_S else None

    @property
    def age_s(self) -> float:
        """Seconds since the list was issued; a list from the future is as bad as an old one."""
        return abs(time.time() - self._list.issued_s)

    @property
    def run_ids(self) -> Mapping[int, str]:
        """Names of the listed runs by tag."""
        return {run.tag: run.run_id for run in self._list.runs}

    def accepted(self, tag: int) -> frozenset[str]:
        """Return the holes a run accepts."""
        return frozenset(hole for run in self._list.runs if run.tag == tag for hole in run.accepted)

    def is_live(self, tag: int) -> bool:
        """Tell whether work of this run may go on."""
        live = self.live
        return live is not None and tag in live and time.time() <= live[tag].not_after_s

    def delay_ns(self, entity: str) -> int:
        """Return the delay in force at an entity, 0 for none or when the list is stale."""
        delays = self._list.delays_ns
        return delays.get(entity, 0) if delays and self.age_s <= STALE_AFTER_S else 0

    def poll(self) -> None:
        """Read the list once; a list that cannot be believed leaves the last one to go stale."""
        try:
            found = decode(self._fetch(), self._key)
        except (ConfigError, OSError) as error:
            self.problem = str(error)
            return
        if found.issued_s < self._list.issued_s:
            self.problem = "an older list was served after a newer one"
            return
        self.problem = ""
        self._list = found
        self._keys = MappingProxyType(
            {run.tag: run_key(self._key, run) for run in found.runs if not run.killed}
        )

    def _fetch(self) -> bytes:
        if self._source.startswith(("http://", "https://")):
            with urllib.request.urlopen(self._source, timeout=1.0) as answer:
                return bytes(answer.read(1 << 20))
        return Path(self._source).read_bytes()

    def _poll_forever(self) -> None:
        while True:
            time.sleep(POLL_EVERY_S)
            self.poll()


def _sign(payload: Any, control_key: bytes) -> str:
    return hmac.digest(control_key, b"perflab control list" + str(payload).encode(), "sha256").hex()
